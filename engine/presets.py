"""Presets: a use that works as it comes, with settings, their reasons, checks and measured results.

A preset is a YAML file, with its rows (if it brings any) beside it. The packaged ones lie in `presets/`; a person's own
lie in the `presets` folder of ftui's XDG config folder, and one with the same name takes the packaged one's place.
"""

from __future__ import annotations

import datetime
import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct, field

from engine import paths
from engine.errors import Exit, FtuiError
from engine.recipe import Checks, setting

_COLUMN = re.compile(r"\{\w+\}")


class Measured(Struct, kw_only=True, forbid_unknown_fields=True):
    """What one real run of the preset gave.

    seconds  training alone, without loading and without answering the checks
    memory   the largest resident size of the process that trained (bytes), or null where it was not read
    """

    model: str
    hardware: str
    date: datetime.date
    seconds: float
    steps: int
    first_loss: float
    last_loss: float
    memory: int | None = None
    note: str = ""


class Preset(Struct, kw_only=True, forbid_unknown_fields=True):
    """One preset.

    summary     a few words for a list
    when        one sentence: when to use it
    data        the file of rows that it brings, beside the YAML; null when the person brings the data
    values      what stands in for placeholders until the person says otherwise: {"name": "Congyu"}
    settings    what it sets instead of the advice, each one a field of `recipe.Settings`
    reasons     why, for every field of `settings`
    notes       what the settings cannot say: where the recipe comes from, and where it departs from its source
    prompt      a template over a row's columns, with `completion` for the answer
    probe       the prompt that is answered at intervals during training
    checks      asked before and after; `expect` may hold placeholders, filled with the run's values
    """

    name: str
    title: str
    summary: str
    when: str
    intent: Literal["identity", "instructions", "summaries"]
    folder: str
    data: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    prompt: str | None = None
    completion: str | None = None
    probe: str = ""
    checks: Checks = field(default_factory=Checks)
    measured: list[Measured] = field(default_factory=list)

    @property
    def data_path(self) -> Path | None:
        """The file of rows that it brings."""
        return None if self.data is None else Path(self.folder) / self.data


def names() -> list[str]:
    """Every preset that can be loaded by name: the packaged ones, then the person's own; files are not read."""
    return list(_files())


def load(name: str) -> Preset:
    """Read one preset, every value checked.

    Raises FtuiError(PRESET_UNKNOWN) with the closest name and the list, or FtuiError(RECIPE_INVALID) naming the
    file and the field.
    """
    files = _files()
    if name not in files:
        closest = difflib.get_close_matches(name.lower(), files, n=1)
        raise FtuiError(
            Exit.PRESET_UNKNOWN,
            f"there is no preset named {name}" + (f"; did you mean {closest[0]}?" if closest else ""),
            next_step="presets: " + ", ".join(files),
        )
    return _read(name, files[name])


def _files() -> dict[str, Path]:
    packaged = Path(str(resources.files("presets")))
    own = paths.config_dir() / "presets"
    return {file.stem: file for folder in (packaged, own) for file in sorted(folder.glob("[!.]*.yaml"))}


def _read(name: str, file: Path) -> Preset:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid(file, f"cannot read the preset: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _invalid(file, "the preset is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise _invalid(file, " ".join(str(error).split())) from None
    if not isinstance(raw, dict):
        raise _invalid(file, "a preset is a list of fields and values")
    for given in ("name", "folder"):  # they follow from where the file lies
        if given in raw:
            raise _invalid(file, f"Object contains unknown field `{given}`")
    try:
        preset = msgspec.convert({**raw, "name": name, "folder": str(file.parent)}, Preset)
    except msgspec.ValidationError as error:
        raise _invalid(file, str(error)) from None
    try:
        preset.settings = {key: setting(key, value) for key, value in preset.settings.items()}
    except FtuiError as error:
        raise _invalid(file, error.cause, error.next_step) from None
    if problem := _problem(preset):
        raise _invalid(file, problem)
    return preset


def _problem(preset: Preset) -> str:
    """What is wrong with a preset whose types are right; empty when nothing is."""
    if unexplained := sorted(preset.settings.keys() ^ preset.reasons.keys()):
        # A plan shows why for every number; a preset's are no exception.
        return "settings and reasons must name the same fields: " + ", ".join(unexplained)
    if (preset.prompt is None) != (preset.completion is None):
        return "prompt and completion belong together: give both or neither"
    for template in (preset.prompt, preset.completion):
        if template is not None and not _COLUMN.search(template):
            return f"a template names at least one column, like {{dialogue}}: {template!r}"
    if preset.data is not None and Path(preset.data).name != preset.data:
        return f"data must be a file beside the preset, not {preset.data!r}"
    if preset.data_path is not None and not preset.data_path.is_file():
        return f"there is no file {preset.data} beside the preset"
    return ""


def _invalid(file: Path, cause: str, next_step: str = "mend the preset, or move it away") -> FtuiError:
    return FtuiError(Exit.RECIPE_INVALID, cause, str(file), next_step)
