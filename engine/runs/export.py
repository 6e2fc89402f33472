"""What an export is asked to be, and what it will take on the disk: the same for the faces and for the worker."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.errors import Exit, FtuiError
from engine.models import weights
from engine.recipe import Method, Precision, Settings, slug

Kind = Literal["adapter", "merged", "gguf"]
Format = Literal["f16", "q8_0"]
KINDS: tuple[Kind, ...] = ("adapter", "merged", "gguf")
FORMATS: tuple[Format, ...] = ("f16", "q8_0")
DTYPES: tuple[Precision, ...] = ("fp32", "bf16", "fp16")

UNMERGED: dict[Method, str] = {
    "prompt": "virtual tokens",
    "prefix": "virtual tokens",
    "bottleneck": "networks of their own behind the layers",
}

_SIZE = re.compile(r"\d+(\.\d+)?\s*[MG]i?B", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_Q8_BLOCK = 34 / 32  # bytes a weight: 32 of them share a scale of 2 bytes


class Options(Struct, kw_only=True):
    """What a job of kind "export" is told.

    to          the folder, which must not exist or be empty; None for one under the data folder
    shard_size  largest file of a merged model ("2GB")
    dtype       of a merged model's weights; None as it was tuned
    format      of a GGUF
    push        OWNER/NAME on the hub, to put it there as well
    public      that repository can be seen by everybody
    """

    kind: Kind
    to: str | None = None
    shard_size: str = "2GB"
    dtype: Precision | None = None
    format: Format = "f16"
    push: str | None = None
    public: bool = False


def read(options: dict[str, Any]) -> Options:
    """A job's options, checked. FtuiError(USAGE) with the field that is wrong."""
    try:
        known = {field.name for field in msgspec.structs.fields(Options)}
        found = msgspec.convert({name: value for name, value in options.items() if name in known}, Options)
    except msgspec.ValidationError as error:
        raise FtuiError(Exit.USAGE, f"that is no export: {error}") from None
    if not _SIZE.fullmatch(found.shard_size):
        raise FtuiError(Exit.USAGE, f"{found.shard_size} is not a size", "shard size", "write it like 500MB or 2GB")
    if found.push is not None and not _REPOSITORY.fullmatch(found.push):
        raise FtuiError(Exit.USAGE, f"{found.push} is no name for a repository", "push", "write it OWNER/NAME")
    return found


def refuse(options: Options, settings: Settings) -> None:
    """Raise FtuiError(EXPORT_FAILED) for what a run with `settings` cannot be exported as."""
    if options.kind == "adapter" and not settings.adapts:
        raise FtuiError(Exit.EXPORT_FAILED, f"{settings.method} tuning leaves no adapter", next_step="export it merged")
    if options.kind != "adapter" and settings.method in UNMERGED:
        raise FtuiError(
            Exit.EXPORT_FAILED,
            f"{settings.method} tuning learns {UNMERGED[settings.method]}, which cannot be merged into weights",
            next_step="export the adapter",
        )


def needed(options: Options, result: Path, base: Path | None, tuned: Precision) -> int:
    """Bytes that the export will take; 0 where that cannot be told.

    result  the run's adapter or model
    base    the base model's folder, for an adapter that will be merged into it
    tuned   the precision of the run
    """
    if options.kind == "adapter":
        return sum(path.stat().st_size for path in result.rglob("*") if path.is_file())
    whole = base if (result / "adapter_config.json").exists() else result
    if whole is None:
        return 0
    count = sum(tensor.size for tensor in weights.tensors(whole))
    if options.kind == "gguf":
        return int(count * (2 if options.format == "f16" else _Q8_BLOCK))
    return count * (4 if (options.dtype or tuned) == "fp32" else 2)


def taken(folder: Path) -> bool:
    """Whether something stands in the way of writing to `folder`: a file, or a folder with something in it."""
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError:
        return True


def check_place(folder: Path) -> None:
    """Raise FtuiError(EXPORT_FAILED) where something is in `folder` already, FtuiError(PERMISSION) where it cannot be made:
    that is tried, since root is told that it may write anywhere."""
    if taken(folder):
        raise FtuiError(Exit.EXPORT_FAILED, f"{folder.name} is there and not empty", str(folder), "name another folder")
    there = folder.parent
    try:
        while not there.exists():
            there = there.parent
        Path(tempfile.mkdtemp(prefix=".ftui-", dir=there)).rmdir()
    except OSError as error:
        cause = f"nothing can be written to {there} ({error.strerror or error})"
        raise FtuiError(Exit.PERMISSION, cause, str(folder), "name another folder") from None


def ollama_name(run: str) -> str:
    """The run's name as Ollama takes it: small letters, digits, dot, dash, underscore."""
    return re.sub(r"[^a-z0-9._-]+", "-", slug(run).lower()).strip("-._") or "tuned"


def gguf_name(run: str, form: str) -> str:
    """The name of the GGUF file."""
    return f"{slug(run)}-{form}.gguf"
