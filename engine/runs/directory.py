"""The folder of one run, and finding runs by name.

$XDG_STATE_HOME/ftui/runs/YYYY-MM-DD-HHMM-<slug>, 0700, everything in it 0600. Its layout is public: docs/runs.md.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import pwd
import re
import shutil
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from engine import __version__
from engine import recipe as recipes
from engine.errors import Exit, FtuiError
from engine.paths import runs_dir, write_private
from engine.recipe import Recipe, Settings
from engine.secrets import secrets

_NAME = re.compile(r"\d{4}-\d\d-\d\d-\d{4}-(.+)", re.DOTALL)
_STAMP = len("2026-11-22-1430-")
# The C loader reads the same YAML about ten times as fast; a list of runs reads one recipe a run.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RunDir:
    """A run's folder. Making the object touches nothing; two of the same folder are equal."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.recipe_path = self.path / "recipe.yaml"
        self.plan_path = self.path / "plan.json"
        self.journal_path = self.path / "events.jsonl"
        self.log_path = self.path / "worker.log"
        self.socket_path = self.path / "chat.sock"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.model = self.path / "model"
        self.evaluation_path = self.path / "evaluation.json"
        self.stop_path = self.path / "stop"
        self.lock_path = self.path / "lock"
        self.supervisor_path = self.path / "supervisor.json"
        self.exit_path = self.path / "exit.json"

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunDir) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def recipe(self) -> Recipe:
        """The run's recipe. FtuiError(RECIPE_INVALID) when it is gone or damaged."""
        try:
            return msgspec.convert(_content(self.recipe_path), Recipe)
        except (msgspec.ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError):
            return recipes.load(self.recipe_path)  # once more, for its words on what is wrong

    @property
    def result(self) -> Path | None:
        """The folder of the trained adapter or model, None while there is no complete one."""
        if (self.adapter / "adapter_config.json").is_file() and (self.adapter / "adapter_model.safetensors").is_file():
            return self.adapter
        if (self.model / "config.json").is_file() and any(self.model.glob("model*.safetensors")):
            return self.model
        return None


def _content(path: Path) -> Any:
    stat = path.stat()
    return _raw(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=512)
def _raw(path: str, _changed: int, _size: int) -> Any:
    return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)


def create(recipe: Recipe, plan: dict[str, Any]) -> RunDir:
    """Make the folder of a new run and write recipe.yaml and plan.json into it. Nothing is started.

    A name that was given before is allowed. FtuiError(DISK_FULL | PERMISSION) when the folder cannot be written.
    """
    base = f"{time.strftime('%Y-%m-%d-%H%M')}-{recipes.slug(recipe.name)}"
    with writing():
        parent = runs_dir()
        text = recipes.to_yaml(recipe)
        if any(secret in text for secret in secrets()):
            raise FtuiError(
                Exit.RECIPE_INVALID,
                "the recipe would quote a token of the environment, and recipes are kept and passed on",
                next_step="take it out of the name, the paths and the values",
            )
        number = 1
        while True:
            path = parent / (base if number == 1 else f"{base}-{number}")
            try:
                path.mkdir(mode=0o700)
                break
            except FileExistsError:
                number += 1
        path.chmod(0o700)
        run = RunDir(path)
        try:
            run.checkpoints.mkdir(mode=0o700)
            write_private(
                run.plan_path, json.dumps(plan, indent=1, ensure_ascii=False, default=msgspec.to_builtins) + "\n"
            )
            # Last, since a folder with a recipe is a run.
            write_private(run.recipe_path, text)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
    return run


@contextlib.contextmanager
def writing(where: Path | None = None) -> Iterator[None]:
    """What the system says against a write in `where`, as FtuiError(DISK_FULL | PERMISSION)."""
    try:
        yield
    except OSError as error:
        place = Path(error.filename or where or "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FtuiError(
                Exit.DISK_FULL,
                "cannot write the run's folder: the disk is full",
                str(place),
                "free some space (`ftui where` shows the folders), then do it again",
            ) from None
        if error.errno == errno.EROFS:
            raise FtuiError(
                Exit.PERMISSION,
                "cannot write the run's folder: its file system is read-only",
                str(place),
                "have it mounted writable, or set XDG_STATE_HOME to a folder that is",
            ) from None
        owner = _owner(place)
        if error.errno in (errno.EACCES, errno.EPERM) and owner not in (None, os.geteuid()):
            raise _belongs(owner, place) from None
        raise FtuiError(
            Exit.PERMISSION,
            f"cannot write the run's folder: {error.strerror}",
            str(place),
            "set XDG_STATE_HOME to a folder of yours",
        ) from None


def _belongs(uid: int | None, path: Path) -> FtuiError:
    try:
        name = pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        name = f"number {uid}"
    return FtuiError(
        Exit.PERMISSION,
        f"cannot write the run's folder: it belongs to user {name}",
        str(path),
        "set XDG_STATE_HOME to a folder of yours",
    )


def _owner(path: Path) -> int | None:
    """Who owns `path`, or the folder it would stand in."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            return place.stat().st_uid
    return None


def change_settings(run: RunDir, recipe: Recipe, settings: Settings, why: str) -> Path:
    """Have the recipe in the folder say `settings`; the one before is kept under the returned path.

    recipe  as it is now; why  "extend", "resume" or "retry", for the name of what is kept
    """
    before = run.recipe_path.read_bytes()
    number = 1
    while (kept := run.path / f"recipe.before-{why}-{number}.yaml").exists():
        number += 1
    write_private(kept, before)
    write_private(run.recipe_path, recipes.to_yaml(msgspec.structs.replace(recipe, settings=settings)))
    return kept


def all_runs() -> list[RunDir]:
    """Every run of this user, newest first. Links and other people's folders are passed over."""
    found: list[tuple[str, int, Path]] = []
    try:
        with os.scandir(runs_dir()) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) and (created := _created(Path(entry.path))) is not None:
                    found.append((entry.name[: _STAMP - 1], created, Path(entry.path)))
    except PermissionError as error:
        reason = f"cannot read the folder of runs: {error.strerror}"
        raise FtuiError(
            Exit.PERMISSION, reason, str(error.filename), "set XDG_STATE_HOME to a folder of yours"
        ) from None
    return [RunDir(path) for _, _, path in sorted(found, reverse=True)]


def _created(path: Path) -> int | None:
    """When the run in `path` was made (ns; plan.json is never written again), None when there is no run of ours."""
    try:
        folder = path.lstat()
        if not os.path.isdir(path) or path.is_symlink() or folder.st_uid != os.geteuid():  # noqa: PTH112
            return None
        (path / "recipe.yaml").lstat()
        plan = path / "plan.json"
        return plan.stat().st_mtime_ns if plan.exists() else 0
    except OSError:
        return None


def find(name: str) -> RunDir:
    """The run that `name` means: a folder name, else the newest run of that name, else the only one that begins so.

    FtuiError(RUN_UNKNOWN) otherwise, with names that come near.
    """
    runs = all_runs()
    for run in runs:
        if run.name == name:
            return run
    wanted = recipes.slug(name)
    for run in runs:
        # The folder name holds the slug, so that only recipes that may match are read.
        if re.fullmatch(re.escape(wanted) + r"(-\d+)?", run.name[_STAMP:]) and title(run) == name:
            return run
    begin = [run for run in runs if name and (run.name.startswith(name) or run.name[_STAMP:].startswith(name))]
    if len(begin) == 1 or (begin and len({title(run) for run in begin}) == 1):
        return begin[0]
    if not runs:
        raise FtuiError(Exit.RUN_UNKNOWN, "there are no runs yet", next_step="start one: ftui train --help")
    names = list(dict.fromkeys(title(run) for run in runs))
    if begin:
        near = list(dict.fromkeys(title(run) for run in begin))[:5]
        raise FtuiError(Exit.RUN_UNKNOWN, f"several runs begin with {name!r}", next_step="one of: " + ", ".join(near))
    near = difflib.get_close_matches(name, names, 3, 0.5)
    hint = "did you mean " + " or ".join(near) if near else "the runs there are: ftui runs"
    raise FtuiError(Exit.RUN_UNKNOWN, f"there is no run named {name!r}", next_step=hint)


def made_by(run: RunDir) -> str:
    """The version of ftui in the run's recipe, also where this version cannot read the rest; its own when there is none."""
    try:
        return str(_content(run.recipe_path)["ftui"])
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError):
        return __version__


def title(run: RunDir) -> str:
    """The name in the run's recipe; the slug of its folder when the recipe cannot be read."""
    try:
        return run.recipe().name
    except FtuiError:
        return run.name[_STAMP:]


def handle(run: RunDir) -> str:
    """The shortest name by which `find` gives this run: its recipe's name, or its folder's where a newer run has that."""
    name = title(run)
    wanted = recipes.slug(name)
    # One look at the names settles it where no other folder can mean the same; a list of runs asks this for many.
    if [path.name for path in run.path.parent.iterdir() if wanted in path.name[_STAMP:]] == [run.name]:
        return name
    try:
        return name if find(name) == run else run.name
    except FtuiError:
        return run.name
