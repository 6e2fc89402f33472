"""Presets: a use that works as it comes, with settings, their reasons, checks and measured results.

A preset is a YAML file, with its rows (if it brings any) beside it. The packaged ones lie in `presets/`; a person's own
lie in the `presets` folder of ftui's XDG config folder, and one with the same name takes the packaged one's place.
`save` writes a person's own, from a plan.
"""

from __future__ import annotations

import datetime
import difflib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import yaml
from msgspec import Struct, field

from engine import paths, recipe_words
from engine.errors import Exit, FtuiError
from engine.recipe import SETTING_FIELDS, Checks, setting, slug
from engine.text import number, shorten

if TYPE_CHECKING:
    from engine.draft import Draft

_COLUMN = re.compile(r"\{\w+\}")
_SUMMARY = 40  # cells: it stands in a list


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
    own         it lies in the person's config folder and is not a packaged one
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
    own: bool = False

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


def save(name: str, draft: Draft, force: bool = False) -> Path:
    """Write what makes `draft`'s plan more than the rules' advice as a preset of the person's own; returns its file.

    That is the settings that a person or a preset set, with reasons, the templates, values, checks and the probe. Rows
    come along only where they are a preset's (copied beside the file); anybody else's are named again by the person.
    force  replace a preset of that name
    Raises FtuiError(USAGE) for a name that cannot be a file's, or one that is taken.
    """
    if slug(name) != name or name.endswith((".yaml", ".yml")):
        example = slug(name.removesuffix(".yaml").removesuffix(".yml"))
        raise FtuiError(
            Exit.USAGE, f"a preset cannot be named {name}", "", f"letters, digits, dash and underscore, as in {example}"
        )
    taken = _files().get(name)
    if taken is not None and not force:
        raise FtuiError(
            Exit.USAGE, f"there is already a preset {name}", str(taken), "choose another name; --force takes its place"
        )
    folder = paths.private_dir(_own_folder())
    raw = _as_preset(name, draft)
    source = draft.recipe.data.source
    rows = load(source.removeprefix("preset:")).data_path if source.startswith("preset:") else None
    if rows is not None:
        raw["data"] = name + rows.suffix
        paths.write_private(folder / raw["data"], rows.read_bytes())
    file = folder / f"{name}.yaml"
    text = yaml.safe_dump(msgspec.to_builtins(raw), sort_keys=False, allow_unicode=True, width=110)
    paths.write_private(file, text)
    return file


def _as_preset(name: str, draft: Draft) -> dict[str, Any]:
    """The fields of the preset that repeats `draft` on other rows; empty ones left out."""
    data = draft.recipe.data
    base = load(draft.choice.preset) if draft.choice.preset else None
    settings, reasons = _chosen_settings(draft)
    notes = [f"Saved from a plan: {draft.plan.sentence}"]
    if data.system:
        notes.append(f"It was planned with a system prompt; give it with --system: {data.system}")
    by_hand = ", ".join(f"{field} {number(settings[field])}" for field in settings if field in draft.plan.edits)
    checks = base.checks if base else draft.recipe.checks
    fields: dict[str, Any] = {
        "title": name,
        "summary": shorten(by_hand, _SUMMARY) or "as planned, nothing set by hand",
        "when": f"You want to train again as planned on {datetime.date.today()}, with your own settings.",
        "intent": base.intent if base else "identity" if draft.advice_facts.intent == "identity" else "instructions",
        "values": data.values,
        "settings": settings,
        "reasons": reasons,
        "notes": [*(base.notes if base else []), *notes],
        "prompt": data.prompt if data.completion else None,
        "completion": data.completion if data.prompt else None,
        # A preset's own questions still hold {{name}}; a plan's are filled in already.
        "probe": base.probe if base else _own_probe(draft),
        "checks": checks if checks.identity or checks.general else None,
    }
    return {key: value for key, value in fields.items() if value}


def _chosen_settings(draft: Draft) -> tuple[dict[str, Any], dict[str, str]]:
    """(settings, reasons): what the person or the preset set; of a whole recipe only what the rules would not say."""
    whole_recipe = draft.plan.edits.keys() >= set(SETTING_FIELDS)
    settings: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for advice in draft.plan.advice:
        name, value = advice.field, getattr(draft.plan.settings, advice.field)
        if name in draft.plan.edits:
            if whole_recipe and value == advice.value:
                continue
            known = next((other.effect for other in advice.alternatives if other.value == value), "")
            reasons[name] = "set by hand" + (f": {known}" if known else "")
            if value != advice.value:
                reasons[name] += f"; advised was {number(advice.value)} ({advice.reason})"
        elif name in draft.given.settings:
            reasons[name] = advice.reason
        else:
            continue
        settings[name] = value
    return settings, reasons


def _own_probe(draft: Draft) -> str:
    """The plan's probe, unless it was only the first prompt of its rows: other rows have a first prompt, too."""
    for example in draft.dataset.examples:
        for message in example.messages or []:
            if message.role == "user":
                return "" if message.content == draft.recipe.probe else draft.recipe.probe
    return draft.recipe.probe


def _own_folder() -> Path:
    return paths.config_dir() / "presets"


def _files() -> dict[str, Path]:
    packaged = Path(str(resources.files("presets")))
    return {file.stem: file for folder in (packaged, _own_folder()) for file in sorted(folder.glob("[!.]*.yaml"))}


def _read(name: str, file: Path) -> Preset:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid(file, f"cannot read the preset: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _invalid(file, "the preset is not UTF-8 text") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise _invalid(file, recipe_words.no_yaml(error)) from None
    if not isinstance(raw, dict):
        raise _invalid(file, "a preset is a list of fields and values")
    for given in ("name", "folder", "own"):  # they follow from where the file lies
        if given in raw:
            raise _invalid(file, f"there is no field {given}")
    try:
        where = {"name": name, "folder": str(file.parent), "own": file.parent == _own_folder()}
        preset = msgspec.convert({**raw, **where}, Preset)
    except msgspec.ValidationError as error:
        raise _invalid(file, recipe_words.told(error, raw, Preset)) from None
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
