"""What a person picked, and the parts of a recipe that it means before any row is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from engine import chain
from engine import recipe as recipes
from engine.advice.kinds import Goal
from engine.errors import Exit, FtuiError
from engine.models import trust

if TYPE_CHECKING:
    from engine.presets import Preset

# An adapter that is trained further keeps the shape it was born with.
FIXED = ("rank", "alpha", "targets")
# How the matrices of a feed-forward block are named in the families in use; an adapter without them is attention only.
_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h", "c_fc")
# What says by its first letters that it is not a path.
_SCHEMES = ("preset:", "hub:")


class Choice(Struct, kw_only=True):
    """What a person picked. Nothing here is resolved or checked yet.

    data      "SOURCE" or "SOURCE*WEIGHT", SOURCE as in `recipe.Source`; None for the rows that the preset brings
    more      other rows to mix in, each as `data`
    columns   role -> column, corrections to what was found
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
    """Settings that hold until the person edits them, and why: a preset's, and those of the adapter to start from."""

    settings: dict[str, Any] = field(default_factory=dict)
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
        more=[weighted(word) for word in choice.more],
        values={**(preset.values if preset else {}), **choice.values},
        prompt=choice.prompt or (preset.prompt if preset else None),
        completion=choice.completion or (preset.completion if preset else None),
        system=choice.system,
        on_bad_row=choice.on_bad_row,
    )


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
    """What the preset sets, and over it rank, alpha and targets of the adapter to start from.

    Raises FtuiError for an adapter that cannot be trained on.
    """
    found = Given()
    if preset is not None:
        found = Given(settings=dict(preset.settings), reasons=dict(preset.reasons), preset=preset.name)
    if not choice.adapter:
        return found
    if (earlier := chain.found(choice.adapter, choice.before)) is not None:
        kept = {name: getattr(earlier.settings, name) for name in ("method", *FIXED)}
        found.settings.update(kept)
        found.reasons.update(dict.fromkeys(kept, f"as the adapter of {earlier.stage} has it"))
        return found
    path = Path(choice.adapter).expanduser() / "adapter_config.json"
    trust.check_adapter(path.parent)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha, modules = int(config["r"]), int(config["lora_alpha"]), config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            "the adapter to start from cannot be read",
            str(path),
            "give a finished LoRA or QLoRA run",
        ) from None
    everything = modules == "all-linear" or any(str(module).endswith(_MLP) for module in modules)
    fixed = {"rank": rank, "alpha": alpha, "targets": "all-linear" if everything else "attention"}
    found.settings.update(fixed)
    found.reasons.update(dict.fromkeys(fixed, "as the adapter to start from has it"))
    return found


def edits(choice: Choice, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All edits of a choice.

    settings  what the preset and the adapter to start from set
    Raises FtuiError(RECIPE_INVALID) for edits that the adapter to start from cannot follow.
    """
    made = {**({"method": choice.method} if choice.method else {}), **choice.edits}
    if not choice.adapter:
        return made
    if made.get("method") in ("full", "freeze"):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"an adapter cannot be trained on with method {made['method']}",
            next_step="use lora or qlora",
        )
    for name in FIXED:
        if name in made and recipes.setting(name, made[name]) != settings[name]:
            raise FtuiError(
                Exit.RECIPE_INVALID,
                f"{name} is fixed to {settings[name]} by the adapter to start from",
                next_step=f"leave {name} out, or train a new adapter",
            )
    return made
