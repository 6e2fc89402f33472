"""Where ftui keeps things: the XDG folders, each made private on first use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification says that relative values must be ignored.
    root = Path(value) if value.startswith("/") else Path.home() / default
    return root / "ftui"


def data_dir() -> Path:
    """Models that were fetched or converted."""
    return private_dir(_base("XDG_DATA_HOME", ".local/share"))


def state_dir() -> Path:
    """Runs and everything that a run leaves."""
    return private_dir(_base("XDG_STATE_HOME", ".local/state"))


def config_dir() -> Path:
    return private_dir(_base("XDG_CONFIG_HOME", ".config"))


def cache_dir() -> Path:
    """Things that can be deleted at any time and are made again."""
    return private_dir(_base("XDG_CACHE_HOME", ".cache"))


def models_dir() -> Path:
    return private_dir(data_dir() / "models")


def runs_dir() -> Path:
    return private_dir(state_dir() / "runs")


def private_dir(path: Path) -> Path:
    """Create `path` and its parents, the folder itself readable by its owner only."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it; mode 0600."""
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have a file or folder on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
