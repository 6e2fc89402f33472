"""What a setting, or the stage, could be instead: each value with what it does, what the plan becomes, and why it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from engine import draft as drafts
from engine import recipe as recipes
from engine.advice import fields
from engine.advice.compare import Change, brief, compare
from engine.advice.kinds import Advice, Plan
from engine.draft import Draft
from engine.errors import Exit, FtuiError
from engine.recipe import LOSSES, Settings, Stage

_TOLD = 4  # settings that follow from a value, named one by one


class Offer(Struct, frozen=True):
    """One value.

    does     what it does, or what is said of it, in one line; empty where there is nothing to say
    memory   bytes that training takes with it, by the forecast; None while no model is picked
    moves    what follows from it: "micro_batch 4 to 1, steps 50 to 25, memory +0.4 GB"; empty where nothing does
    refused  why the run would not start with it where it would without, and the way out; else empty
    """

    value: Any
    does: str
    memory: int | None = None
    moves: str = ""
    refused: str = ""

    @property
    def words(self) -> str:
        """What follows from it, or why it is refused."""
        return f"will not start: {self.refused}" if self.refused else self.moves


def taken(draft: Draft, field: str, value: Any) -> Draft:
    """The draft with this value of a setting, of the stage, or of the reward. Raises FtuiError for one that it cannot have."""
    if field == "reward":
        return drafts.worth(draft, str(value))
    if field != "stage":
        return drafts.replan(draft, {**draft.choice.edits, field: recipes.setting(field, value)})
    try:
        return drafts.restaged(draft, msgspec.convert(value, Stage))  # type: ignore[arg-type]
    except msgspec.ValidationError:
        raise FtuiError(Exit.RECIPE_INVALID, f"there is no stage {value}: {', '.join(get_args(Stage))}") from None


def choices(draft: Draft, field: str) -> list[Offer]:
    """All values that `field` can have, the refused ones as well; empty for a number, which has too many."""
    advice = find(draft, field)
    said = {advice.value: advice.reason, **{other.value: other.effect for other in advice.alternatives}}
    said |= fields.DOES.get(field, {})
    return _offers(draft, field, [(value, said.get(value, "")) for value in _values(field, draft.recipe.stage)])


def alternatives(draft: Draft, field: str) -> list[Offer]:
    """The values that the advice names beside its own."""
    return _offers(draft, field, [(other.value, other.effect) for other in find(draft, field).alternatives])


def find(draft: Draft, field: str) -> Advice:
    """The advice on a setting or on the stage. Raises KeyError."""
    return {advice.field: advice for advice in (draft.plan.stage, *draft.plan.advice)}[field]


def _values(field: str, stage: Stage) -> tuple[Any, ...]:
    if field == "stage":
        return get_args(Stage)
    if field == "loss":
        return LOSSES.get(stage, ())
    kind = next(found.type for found in msgspec.structs.fields(Settings) if found.name == field)
    return (True, False) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()


def _offers(draft: Draft, field: str, values: Sequence[tuple[Any, str]]) -> list[Offer]:
    refused = drafts.refusals(draft)
    return [_offer(draft, field, value, does, refused) for value, does in values]


def _offer(draft: Draft, field: str, value: Any, does: str, before: Sequence[str]) -> Offer:
    """before  why the draft would not start as it is"""
    try:
        after = taken(draft, field, value)
    except FtuiError as error:
        return Offer(value, does, refused=error.cause)
    refused = next((reason for reason in drafts.refusals(after) if reason not in before), "")
    memory, changes = after.plan.memory, compare(draft.plan, after.plan)
    moves = ", ".join(filter(None, (*_following(changes, field, after.plan), brief(changes))))
    return Offer(value, does, memory.total if memory else None, moves, refused)


def _following(changes: Sequence[Change], field: str, after: Plan) -> list[str]:
    """The settings that follow from a value of `field`: "micro batch 4 to 1"."""
    others = [one for one in changes if one.kind == "setting" and one.name != field and after.counts(one.name)]
    told = ["{} {} to {}".format(one.name, *(word or "none" for word in one.words())) for one in others]
    return [*told[:_TOLD], *([f"{len(told) - _TOLD} other settings"] if len(told) > _TOLD else [])]
