"""Checkpoints that are whole or not there.

Standard library only. A checkpoint is saved into a staging folder, committed under a new name by rename, and from then
on believed only as long as every byte is the one that was written: resuming from a damaged one goes on without an
error on another trajectory (measured), so that it must never be tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.paths import sha256, sync

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


def name(step: int) -> str:
    """The folder name of the checkpoint after optimizer step `step`."""
    return f"step-{step:06d}"


def stage(checkpoints: Path, step: int) -> Path:
    """An empty private folder in `checkpoints` to save into; what an interrupted save left there is removed."""
    checkpoints.mkdir(mode=0o700, exist_ok=True)
    staging = checkpoints / f".staging-{name(step)}"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700)
    return staging


def commit(staging: Path, final: Path, facts: dict[str, Any] | None = None) -> Path:
    """Make the files in `staging` the checkpoint `final` (".../step-000096"); returns it.

    facts  goes into the manifest: recipe_sha256, data_sha256, versions

    When this returns, the checkpoint is on the disk; when it raises (OSError, disk full), `final` is as it was before.
    A checkpoint of the same name is replaced.
    """
    match = _NAME.fullmatch(final.name)
    if match is None:
        raise ValueError(f"not the name of a checkpoint: {final.name}")
    (staging / MANIFEST).unlink(missing_ok=True)
    files: dict[str, dict[str, Any]] = {}
    folders = [staging]
    for path in sorted(staging.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"a checkpoint holds no links: {path}")
        if path.is_dir():
            path.chmod(0o700)
            folders.append(path)
            continue
        path.chmod(0o600)
        sync(path)
        files[path.relative_to(staging).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
    content = _manifest({"step": int(match[1]), "files": files, **(facts or {})})
    descriptor = os.open(staging / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    for folder in folders:
        sync(folder)
    staging.chmod(0o700)
    replaced = final.with_name(f".retired-{final.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    staging.rename(final)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def verify(folder: Path) -> bool:
    """Whether every file of the checkpoint is there, no other is, and each byte is the one that was committed."""
    match = _NAME.fullmatch(folder.name)
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        sealed = dict(manifest)
        del sealed["manifest_sha256"]
        # Written anew it must be the same bytes: no change to the manifest itself goes unseen either.
        if match is None or manifest["step"] != int(match[1]) or not manifest["files"] or _manifest(sealed) != raw:
            return False
        present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if present - {MANIFEST} != set(manifest["files"]):
            return False
        paths = [(folder / name, expected) for name, expected in manifest["files"].items()]
        # Sizes first: they cost nothing and most damage shows there.
        if any(path.is_symlink() or path.stat().st_size != expected["size"] for path, expected in paths):
            return False
        return all(sha256(path) == expected["sha256"] for path, expected in paths)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that was verified."""
    return dict(json.loads((folder / MANIFEST).read_bytes()))


def changes(folder: Path, facts: dict[str, Any]) -> list[str]:
    """What is no longer as it was when a verified checkpoint was saved, one sentence each.

    facts  as now, with the names that `commit` was given: data_sha256, versions
    With any of these a resume is not exact to the bit, and the person is told.
    """
    before = manifest(folder)
    found = []
    if "data_sha256" in before and before["data_sha256"] != facts.get("data_sha256"):
        found.append("the rows have changed since the checkpoint: training goes on with the new ones")
    old, new = before.get("versions") or {}, facts.get("versions") or {}
    changed = [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    if changed:
        found.append("versions have changed since the checkpoint: " + ", ".join(changed))
    return found


def committed(run: RunDir) -> list[tuple[int, Path]]:
    """(step, folder) of every committed checkpoint, newest first; not verified."""
    return _committed(run.checkpoints)


def _committed(checkpoints: Path) -> list[tuple[int, Path]]:
    try:
        entries = [entry for entry in os.scandir(checkpoints) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = [(int(match[1]), Path(entry.path)) for entry in entries if (match := _NAME.fullmatch(entry.name))]
    return sorted(found, reverse=True)


def newest_verified(run: RunDir) -> tuple[int, Path] | None:
    """The newest checkpoint that is whole, passing over damaged ones; None when there is none.

    Reads every byte of the ones it looks at (about 1 s a GB).
    """
    return newest_in(run.checkpoints)


def newest_in(checkpoints: Path) -> tuple[int, Path] | None:
    """As `newest_verified`, of the folder in which they are."""
    return next(((step, path) for step, path in _committed(checkpoints) if verify(path)), None)


def retire(run: RunDir, keep: int = 2, best: int | None = None) -> list[int]:
    """Delete all but the newest `keep` checkpoints and that of step `best`; returns the steps deleted.

    Call it after a commit was journalled: what interrupted saves and deletions left behind goes too.
    """
    gone = [(step, path) for step, path in committed(run)[keep:] if step != best]
    for _, path in gone:
        _discard(path)
    for entry in list(os.scandir(run.checkpoints)):
        if entry.name.startswith((".retired-", ".staging-")) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
    return [step for step, _ in gone]


def _discard(folder: Path) -> None:
    """Delete a checkpoint so that a deletion cut short never leaves half of one under its name."""
    retired = folder.with_name(f".retired-{folder.name}")
    if retired.exists():
        shutil.rmtree(retired)
    folder.rename(retired)
    shutil.rmtree(retired, ignore_errors=True)


def _manifest(content: dict[str, Any]) -> bytes:
    body = json.dumps(content, sort_keys=True, default=str)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**json.loads(body), "manifest_sha256": seal}, sort_keys=True, indent=1).encode()
