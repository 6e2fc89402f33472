"""Where ftui keeps things: the XDG folders, private and of the user who runs it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Literal

Kind = Literal["data", "state", "config", "cache"]
_DEFAULTS: dict[Kind, str] = {
    "data": ".local/share",
    "state": ".local/state",
    "config": ".config",
    "cache": ".cache",
}


def place(kind: Kind) -> Path:
    """Where a folder of ours is or will be; touches nothing."""
    value = os.environ.get(f"XDG_{kind.upper()}_HOME", "")
    # The XDG specification says that relative values must be ignored.
    root = Path(value) if value.startswith("/") else Path.home() / _DEFAULTS[kind]
    return root / "ftui"


def data_dir() -> Path:
    """Models that were fetched or converted."""
    return private_dir(place("data"))


def state_dir() -> Path:
    """Runs and everything that a run leaves."""
    return private_dir(place("state"))


def config_dir() -> Path:
    return private_dir(place("config"))


def cache_dir() -> Path:
    """Things that can be deleted at any time and are made again."""
    return private_dir(place("cache"))


def hub_home() -> Path:
    """Where the hub's client keeps its cache and tokens, found as it does (huggingface_hub, constants.py)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(cache, "huggingface")).expanduser()


def models_dir() -> Path:
    return private_dir(data_dir() / "models")


def runs_dir() -> Path:
    return private_dir(state_dir() / "runs")


def private_dir(path: Path) -> Path:
    """`path` as a folder that its owner alone can look into, made with its parents where it is not there yet.

    Raises PermissionError where it, or a link that stands for it, belongs to somebody else: what is put there could be read
    or changed.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = path.lstat()
    link = stat.S_ISLNK(status.st_mode)
    if not (link and status.st_uid not in (os.geteuid(), 0)):
        status = path.stat() if link else status
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "there is a file in its place", str(path))
        if status.st_uid == os.geteuid():
            if stat.S_IMODE(status.st_mode) != 0o700:
                path.chmod(0o700)
            return path
    raise PermissionError(errno.EPERM, "it belongs to another user", str(path))


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


def sha256(path: Path) -> str:
    """Of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
