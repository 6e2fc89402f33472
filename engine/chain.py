"""Chains: several stages from one recipe, as SFT and then DPO, or SFT, reward model and RL.

`Recipe.then` holds the next stage. In it, "stage:sft" in the place of an adapter or a reward means what an earlier stage of
the same chain leaves. Each stage becomes an ordinary run: `resolved` puts the folders of those runs in place of the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine import recipe as recipes
from engine.errors import Exit, FtuiError
from engine.recipe import RL, STAGES, Recipe, Stage

MARK = "stage:"
JUDGE: Stage = "reward"  # leaves scores, and nothing that can be trained on or talked to


class Later(Struct, kw_only=True):
    """A later stage as a person picks it: what it trains on which rows, and settings that were changed."""

    stage: Stage
    data: str
    edits: dict[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """As --then takes it."""
        return f"{self.stage}:{self.data}"


def parse(word: str) -> Later:
    """ "dpo:pairs.json" as a later stage. Raises FtuiError(USAGE)."""
    stage, sign, data = word.partition(":")
    if not sign or not data:
        raise FtuiError(Exit.USAGE, f"a later stage is STAGE:ROWS, not {word}", next_step="as in --then dpo:pairs.json")
    return Later(stage=named_stage(stage), data=data)


def named_stage(word: str) -> Stage:
    """The stage of that name. Raises FtuiError(USAGE)."""
    for stage in STAGES:
        if stage == word:
            return stage
    raise FtuiError(Exit.USAGE, f"there is no stage {word}", next_step=f"one of: {', '.join(STAGES)}")


def by_stage(later: Sequence[str], edits: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`edits`, named "STAGE.FIELD", sorted by the stages in `later`. Raises FtuiError(USAGE) for a stage not among them."""
    found: dict[str, dict[str, Any]] = {stage: {} for stage in later}
    for name, value in edits.items():
        stage, _, setting = name.partition(".")
        if stage not in found:
            there = ", ".join(found) or "there is none; --then adds one"
            raise FtuiError(
                Exit.USAGE,
                f"--edit {name}: {stage} is no later stage of this chain",
                next_step=f"later stages: {there}",
            )
        found[stage][setting] = value
    return found


def stages(recipe: Recipe) -> list[Recipe]:
    """The recipes of all stages in their order, each without those that follow it."""
    found = []
    one: Recipe | None = recipe
    while one is not None:
        found.append(msgspec.structs.replace(one, then=None))
        one = one.then
    return found


def linked(recipes_: Iterable[Recipe]) -> Recipe:
    """One recipe of all stages."""
    whole: Recipe | None = None
    for one in reversed(list(recipes_)):
        whole = msgspec.structs.replace(one, then=whole)
    assert whole is not None
    return whole


def reference(word: str | None) -> str:
    """The stage that `word` names ("stage:sft" -> "sft"); empty where it names none."""
    return (word or "").removeprefix(MARK) if (word or "").startswith(MARK) else ""


def base(before: Sequence[Recipe], stage: Stage) -> str | None:
    """What `stage` begins from by itself: the newest stage that leaves a model. A reward model begins from the base."""
    speaking = [one.stage for one in before if one.stage != JUDGE]
    return MARK + speaking[-1] if speaking and stage != JUDGE else None


def reward(before: Sequence[Recipe], stage: Stage) -> str | None:
    """What `stage` is rewarded by without a word on it: the reward model of the same chain, if there is one."""
    return MARK + JUDGE if stage in RL and any(one.stage == JUDGE for one in before) else None


def found(word: str | None, before: Sequence[Recipe]) -> Recipe | None:
    """The earlier stage that `word` names, None where it names none."""
    return next((one for one in before if one.stage == reference(word)), None)


def check(recipe: Recipe) -> None:
    """Raises FtuiError(RECIPE_INVALID) for a chain that cannot be followed."""
    whole = stages(recipe)
    for at, one in enumerate(whole):
        check_next(one.stage, one.model.source, one.adapter, one.reward, whole[:at])


def check_next(stage: Stage, model: str, adapter: str | None, reward: str | None, before: Sequence[Recipe]) -> None:
    """The same for one stage after those `before` it."""
    if why := trouble(stage, model, adapter, reward, before):
        raise FtuiError(Exit.RECIPE_INVALID, f"stage {stage}: {why[0]}", next_step=why[1])


def trouble(
    stage: Stage, model: str, adapter: str | None, reward: str | None, before: Sequence[Recipe]
) -> tuple[str, str] | None:
    """(cause, way out) of what is wrong with a stage after those `before` it, None where nothing is."""
    if any(earlier.stage == stage for earlier in before):
        return "it stands twice in this chain", "take each stage once; `ftui train --from RUN` adds another run later"
    if before and model != before[0].model.source:
        return (
            f"it trains {model}, and the stages before it train {before[0].model.source}",
            "a chain trains one model: name the same in all stages",
        )
    known = ", ".join(earlier.stage for earlier in before)
    for place, word in (("adapter", adapter), ("reward", reward)):
        if reference(word) and found(word, before) is None:
            way_out = f"before it come: {known}" if known else "it is the first stage: nothing comes before it"
            return f"{place}: {word} names no stage before it", way_out
    if stage == JUDGE and adapter is not None:
        return "a reward model cannot start from an adapter", "leave its adapter out: it begins from the base"
    begun, judge = found(adapter, before), found(reward, before)
    if begun is not None and begun.stage == JUDGE:
        return f"adapter: {adapter} leaves scores, not a model that answers", "name another stage, or leave it out"
    if begun is not None and not begun.settings.adapts:
        return (
            f"adapter: {adapter} leaves no adapter, because {begun.stage} trains by {begun.settings.method}",
            f"take method lora for {begun.stage}; or train one by one, with --model FOLDER of the run before",
        )
    if judge is not None and stage not in RL:
        return f"reward: {reward} is of no use to it: only {', '.join(RL)} learn from rewards", "leave its reward out"
    if judge is not None and judge.stage != JUDGE:
        return f"reward: {reward} is no reward model", "name stage:reward, or a word such as length:40"
    return None


def resolved(one: Recipe, folders: Mapping[str, Path]) -> Recipe:
    """The recipe of one stage with the results of earlier ones in place of their names.

    folders  stage -> folder of its run; what it leaves stands there once it is ready
    """
    adapter, judge = reference(one.adapter), reference(one.reward)
    return msgspec.structs.replace(
        one,
        adapter=str(folders[adapter] / "adapter") if adapter else one.adapter,
        reward=str(folders[judge]) if judge else one.reward,
    )


def name_of(first: str, stage: Stage) -> str:
    """The name of a later stage's run, in a chain whose first run is called `first`."""
    return recipes.slug(f"{first}-{stage}")
