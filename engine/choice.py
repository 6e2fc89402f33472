"""What a person picked, and the parts of a recipe that it means before any row is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from engine import chain
from engine import recipe as recipes
from engine.advice.kinds import Goal
from engine.errors import Exit, FtuiError
from engine.models import adapter

if TYPE_CHECKING:
    from engine.presets import Preset

# What says by its first letters that it is not a path.
_SCHEMES = ("preset:", "hub:")


class Columns(Struct, kw_only=True):
    """What a person says of the columns of one source: as in `recipe.Source`."""

    columns: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None


class Choice(Struct, kw_only=True):
    """What a person picked. Nothing here is resolved or checked yet.

    data      "SOURCE" or "SOURCE*WEIGHT", SOURCE as in `recipe.Source`; None for the rows that the preset brings
    more      other rows to mix in, each as `data`
    columns   role -> column, corrections to what was found; with `prompt` and `completion` for the first source
    said      the same of the others, by their word in `more`
    subset    of a data set on the hub, with `split`
    reward    what answers are worth, for RL: a word of engine.rewards
    stage     None for what the rows are made for
    goal      what the tuning is for, if the person said so
    deadline  seconds in which it has to be done, if the person said so
    values    what stands in for placeholders; merged over the preset's own values
    name      the run's name; None makes one from values["name"] or the data file
    edits     settings the person changed, kept apart from advice
    adapter   a folder with an adapter to start from; "stage:sft" for that of an earlier stage
    trust_remote_code  the person allowed the code that comes with this model
    then      later stages of a chain
    before    the recipes of earlier stages: what they leave is not there yet
    """

    model: str = "starter"
    trust_remote_code: bool = False
    data: str | None = None
    more: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    said: dict[str, Columns] = field(default_factory=dict)
    subset: str | None = None
    split: str | None = None
    stage: recipes.Stage | None = None
    reward: str | None = None
    goal: Goal | None = None
    deadline: float | None = None
    preset: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    method: str | None = None
    edits: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    on_bad_row: Literal["abort", "skip", "repair"] = "abort"
    adapter: str | None = None
    then: list[chain.Later] = field(default_factory=list)
    before: list[recipes.Recipe] = field(default_factory=list)


class Given(Struct, kw_only=True):
    """Settings that hold until the person edits them, and why: a preset's, and those of the adapter to start from.

    fixed  those among them that the adapter to start from does not let a person edit
    """

    settings: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    preset: str = ""


def data(choice: Choice, preset: Preset | None) -> recipes.Data:
    """The data part of the recipe: the person's word over the preset's. Raises FtuiError(DATA_MISSING)."""
    if choice.data:
        first = weighted(choice.data)
    elif preset is not None and preset.data_path is not None:
        first = recipes.Source(source=f"preset:{preset.name}")
    elif preset is not None:
        raise FtuiError(
            Exit.DATA_MISSING,
            f"the preset {preset.name} brings no rows of its own",
            next_step="give yours with --data FILE",
        )
    else:
        raise FtuiError(
            Exit.DATA_MISSING,
            "no data given",
            next_step="give --data FILE, or a preset that brings rows (`ftui presets`)",
        )
    return recipes.Data(
        source=first.source,
        weight=first.weight,
        columns=dict(choice.columns),
        subset=choice.subset,
        split=choice.split,
        more=[_told(weighted(word), choice.said.get(word)) for word in choice.more],
        values={**(preset.values if preset else {}), **choice.values},
        prompt=choice.prompt or (preset.prompt if preset else None),
        completion=choice.completion or (preset.completion if preset else None),
        system=choice.system,
        on_bad_row=choice.on_bad_row,
    )


def _told(source: recipes.Source, said: Columns | None) -> recipes.Source:
    return source if said is None else msgspec.structs.replace(source, **msgspec.structs.asdict(said))


def weighted(word: str) -> recipes.Source:
    """ "rows.jsonl*0.5" as a source, its path made absolute. Raises FtuiError(USAGE) for a weight that is none."""
    path, sign, weight = word.rpartition("*")
    if not sign or not path or Path(word).expanduser().exists():
        return recipes.Source(source=absolute(word))
    try:
        number = float(weight)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100:
        raise FtuiError(
            Exit.USAGE, f"{weight} is no weight", word, "a weight is above 0 and at most 100, as in rows.jsonl*0.5"
        )
    return recipes.Source(source=absolute(path), weight=number)


def absolute(source: str) -> str:
    """A path that exists, made absolute, so that the recipe works from any folder; anything else as it is.

    "dataset_info.json:ENTRY" counts as a path when its file exists.
    """
    if source == "starter" or source.startswith(_SCHEMES):
        return source
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    file, sign, entry = source.rpartition(":")
    if sign and file and Path(file).expanduser().is_file():
        return f"{Path(file).expanduser().resolve()}:{entry}"
    return source


def given(choice: Choice, preset: Preset | None) -> Given:
    """What the preset sets, and over it the method and shape of the adapter to start from.

    Raises FtuiError for an adapter that cannot be trained on.
    """
    found = Given()
    if preset is not None:
        found = Given(settings=dict(preset.settings), reasons=dict(preset.reasons), preset=preset.name)
    if not choice.adapter:
        return found
    if (earlier := chain.found(choice.adapter, choice.before)) is not None:
        found.fixed, reason = adapter.left_by(earlier.settings), f"as the adapter of {earlier.stage} has it"
    else:
        found.fixed, reason = adapter.read(Path(choice.adapter).expanduser()), "as the adapter to start from has it"
    found.settings.update(found.fixed)
    found.reasons.update(dict.fromkeys(found.fixed, reason))
    if found.fixed.get("method") in recipes.LOW_RANK:  # the base may be packed for one stage and not for the other
        del found.fixed["method"]
    return found


def added_tokens(choice: Choice, given: Given) -> tuple[str, ...]:
    """The words that become tokens of their own, before there is a plan: rows are counted with them. Raises as `edits`."""
    words = {**given.settings, **edits(choice, given)}.get("added_tokens", ())
    found: tuple[str, ...] = recipes.setting("added_tokens", words)
    return found


def edits(choice: Choice, given: Given) -> dict[str, Any]:
    """All edits of a choice.

    given  what the preset and the adapter to start from set
    Raises FtuiError(RECIPE_INVALID) for edits that the adapter to start from cannot follow.
    """
    made = {**({"method": choice.method} if choice.method else {}), **choice.edits}
    if not choice.adapter:
        return made
    if made.get("method", "lora") not in (given.fixed.get("method"), *recipes.LOW_RANK):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"an adapter cannot be trained on with method {made['method']}",
            next_step=f"use {given.fixed.get('method', 'lora or qlora')}",
        )
    for name, value in given.fixed.items():
        if name in made and recipes.setting(name, made[name]) != value:
            raise FtuiError(
                Exit.RECIPE_INVALID,
                f"{name} is fixed to {value} by the adapter to start from",
                next_step=f"leave {name} out, or train a new adapter",
            )
    return made
