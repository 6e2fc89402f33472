"""Which files a source is: a file, a folder, a preset's rows, a data set of the hub, or an entry of LLaMA-Factory's
registry (dataset_info.json) with what it says about the columns."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from engine.data import sources
from engine.errors import Exit, FtuiError
from engine.recipe import Source

REGISTRY = "dataset_info.json"
# Its names for the roles of columns; other roles (images, videos, audios) are nothing that can be trained on here.
_ROLES = {
    "prompt": "prompt",
    "query": "input",
    "response": "completion",
    "history": "history",
    "system": "system",
    "messages": "conversation",
    "tools": "tools",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "label",
}
_ENTRY = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)(?=[-._]|$)", re.IGNORECASE)
_TOLD = 30  # names listed in an error


class Located(Struct):
    """The files of a source, in order.

    columns  role -> column: the registry's, and over them the person's
    tags     the registry's names for the keys and speakers of turns
    array    the name of the array to read where a JSON file holds several
    name     for a list or a run: a file's stem, a data set's name
    notes    what a person should know about the choice of files, in sentences
    """

    paths: list[Path]
    name: str
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    array: str | None = None
    notes: list[str] = field(default_factory=list)


def files(source: Source) -> Located:
    """The files of `source`. A data set of the hub is fetched the first time.

    Raises FtuiError: DATA_MISSING (no such file, entry or data set, or an empty folder), PRESET_UNKNOWN, NETWORK,
    DATA_SYNTAX (a registry that is not JSON).
    """
    named, columns = source.source, dict(source.columns)
    if named.startswith("preset:"):
        return Located([_of_preset(named)], named.removeprefix("preset:"), columns)
    if named.startswith("hub:"):
        found = _of_hub(named.removeprefix("hub:"), source.subset, source.split, None)
        found.columns = columns
        return found
    path = sources.home(named)
    registry, _, entry = named.rpartition(":")
    if registry.endswith(REGISTRY) and not path.exists():
        return _of_registry(sources.home(registry), entry, source)
    if path.name == REGISTRY and (entries := _entries(path)):
        raise FtuiError(
            Exit.DATA_MISSING,
            f"this registry lists {len(entries)} data sets: {_listed(entries)}",
            str(path),
            f"name one of them: {named}:{next(iter(entries))}",
        )
    found = _on_disk(path, source.split)
    found.columns = columns
    return found


def _of_preset(source: str) -> Path:
    from engine import presets

    name = source.removeprefix("preset:")
    path = presets.load(name).data_path
    if path is None:
        raise FtuiError(
            Exit.DATA_MISSING, f"the preset {name} brings no data of its own", source, "name a data file (--data FILE)"
        )
    return path


def _of_hub(name: str, subset: str | None, split: str | None, folder: str | None) -> Located:
    from engine.data import hub

    path, notes = hub.fetch(name, subset, split, folder)
    return Located([path], name.rpartition("/")[2], notes=notes)


def _on_disk(path: Path, split: str | None) -> Located:
    if path.is_dir():
        return _folder(path, split)
    sources.check(path)
    return Located([path], _stem(path), array=split)


def _folder(folder: Path, split: str | None) -> Located:
    """The data files of a folder that have one suffix: those that are most, then those that are largest.

    Files that are named by split (train-0001.parquet, test.jsonl) are read for `split`, else for training alone.
    """
    kinds: dict[str, list[Path]] = {}
    others = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        suffix = _suffix(path)
        if suffix and path.name not in (REGISTRY, "state.json"):
            kinds.setdefault(suffix, []).append(path)
        else:
            others += 1
    if not kinds:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        next_step = f"name one of its folders: {_listed(inside)}" if inside else f"name a file: {sources.KINDS}"
        raise FtuiError(Exit.DATA_MISSING, "the folder holds no data files", str(folder), next_step)
    suffix, found = max(kinds.items(), key=lambda kind: (len(kind[1]), sum(path.stat().st_size for path in kind[1])))
    others += sum(map(len, kinds.values())) - len(found)
    notes = []
    if (folder / REGISTRY).is_file() and _entries(folder / REGISTRY):
        notes.append(f"the folder has a {REGISTRY}: name one data set with {folder / REGISTRY}:NAME")
    chosen = _of_split(found, split, folder)
    if len(chosen) < len(found):
        left = [path.name for path in found if path not in chosen]
        notes.append(f"read for training: {_listed(p.name for p in chosen)}; left aside: {_listed(left)}")
    elif others:
        notes.append(f"{len(found)} {suffix} files of the folder are read, {others} other files are not")
    return Located(chosen, folder.resolve().name, notes=notes)


def _of_split(found: list[Path], split: str | None, folder: Path) -> list[Path]:
    splits: dict[str, list[Path]] = {}
    for path in found:
        name = _SPLIT.match(path.name)
        splits.setdefault(name[1].lower() if name else "", []).append(path)
    if split is None:
        return splits["train"] if "train" in splits and "" not in splits else found
    named = [path for path in found if re.match(re.escape(split) + r"(?=[-._]|$)", path.name, re.IGNORECASE)]
    if not named:
        raise FtuiError(
            Exit.DATA_MISSING,
            f"no file of the folder is named by the split {split}",
            str(folder),
            "the files are: " + _listed(path.name for path in found),
        )
    return named


def _suffix(path: Path) -> str:
    """The suffix of a data file, that of what is inside for a packed one; "" for other files."""
    suffix = path.suffix.lower()
    if suffix in (".gz", ".zst"):
        inner = path.with_suffix("").suffix.lower()
        return inner if inner in sources.SUFFIXES else ""
    return suffix if suffix in sources.SUFFIXES and path.name.lower() not in ("readme.md", "readme.txt") else ""


def _stem(path: Path) -> str:
    return path.with_suffix("").stem if path.suffix.lower() in (".gz", ".zst") else path.stem


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a registry; empty for a JSON file that is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FtuiError(
            Exit.DATA_MISSING, f"the registry cannot be read: {error.strerror}", str(path), "check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FtuiError(Exit.DATA_SYNTAX, f"the registry is not JSON: {reason}", str(path), "mend it there") from None
    if not isinstance(raw, dict) or not all(isinstance(entry, dict) for entry in raw.values()):
        return {}
    return raw if any(_ENTRY & entry.keys() for entry in raw.values()) else {}


def _of_registry(path: Path, name: str, source: Source) -> Located:
    entries = _entries(path)
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=3, cutoff=0.5)
        cause = f"the registry has no data set {name}" if entries else "the registry lists no data sets"
        next_step = f"did you mean {' or '.join(close)}?" if close else "it lists: " + _listed(entries)
        raise FtuiError(Exit.DATA_MISSING, cause, str(path), next_step if entries else "check the file")
    entry = entries[name]
    subset, split = source.subset or _word(entry, "subset"), source.split or _word(entry, "split")
    if hub_name := _word(entry, "hf_hub_url"):
        found = _of_hub(hub_name, subset, split, _word(entry, "folder"))
    elif file_name := _word(entry, "file_name"):
        found = _on_disk(path.parent / file_name, split)
    else:
        where = next((key for key in ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name") if key in entry), "")
        cause = f"{name} is only to be had by {where}, which is not read here" if where else f"{name} names no file"
        raise FtuiError(Exit.DATA_MISSING, cause, str(path), "fetch its rows yourself, and name the file")
    found.name = name
    columns = {str(role): column for role, column in _table(entry, "columns").items() if isinstance(column, str)}
    found.columns = {_ROLES[role]: column for role, column in columns.items() if role in _ROLES}
    if found.columns.keys() == {"prompt"}:  # how it writes plain text, for continued pre-training
        found.columns = {"text": found.columns["prompt"]}
        if found.paths[0].suffix.lower() in (".txt", ".md", ".text"):
            found.columns = {}  # lines and paragraphs, which have no name of their own
    if lost := sorted(columns.keys() - _ROLES.keys()):
        found.notes.append(f"{' and '.join(lost)} cannot be trained on here: only text is read")
    found.columns |= source.columns
    found.tags = {str(key): tag for key, tag in _table(entry, "tags").items() if isinstance(tag, str)}
    return found


def _word(entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    return value if isinstance(value, str) and value else None


def _table(entry: dict[str, Any], key: str) -> dict[Any, Any]:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(str(name)[:60] for name in names[:_TOLD]) + more
