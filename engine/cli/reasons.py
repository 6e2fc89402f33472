"""Why a value is what it is: reason, source, disagreement, and what every alternative would change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from engine.cli import show
from engine.cli.options import SHORT
from engine.errors import Exit, FtuiError
from engine.text import number

if TYPE_CHECKING:
    from engine.advice.kinds import Advice
    from engine.draft import Draft

_MARKS = {"for": "✓", "doubt": "?", "against": "✗"}


def explain(draft: Draft, field: str) -> None:
    """The whole reasoning about one setting, the stage or the gate."""
    from engine.advice.fields import HELP

    if field == "gate":
        _explain_gate(draft)
        return
    advice = find(draft, field)
    edited = advice.field in draft.plan.edits
    held = draft.plan.settings if advice.field != "stage" else draft.recipe
    show.say(f"{advice.field} {number(getattr(held, advice.field))}", "bold")
    show.paragraph(HELP[advice.field], "dim")
    if advice.field != "stage" and not draft.plan.counts(advice.field):
        show.say(f"{draft.recipe.stage} by {draft.plan.settings.method} does not look at it")
    if edited:
        show.say("you set it")
    lead = f"advised {number(advice.value)}: " if edited else ""
    show.paragraph(f"{lead}{advice.reason}")
    show.paragraph(f"source: {advice.source}, confidence {advice.confidence}", "dim")
    if advice.disagreement:
        show.paragraph(advice.disagreement, lead="sources differ: ")
    rows: list[tuple[object, object]] = []
    for other in alternatives(draft, advice):
        rows.append((number(other["value"]), other["effect"]))
        if other["moves"]:
            rows.append(("", show.styled(other["moves"], "dim")))
    if rows:
        show.say()
        show.console().print(
            show.table(
                ("instead", "what is said of it, and what it would change here"),
                rows,
                ("instead",),
                wrap="what is said of it, and what it would change here",
            )
        )
    if advice.field != "stage":
        show.say(f"change it with --edit {advice.field}=VALUE", "dim")


def _explain_gate(draft: Draft) -> None:
    gate = draft.plan.gate
    show.paragraph(gate.why, "bold", lead=f"{gate.verdict}: ")
    for question in gate.questions:
        show.paragraph(f"{question.answer} ({question.source})", lead=f"{_MARKS[question.speaks]} {question.text:<30} ")


def alternatives(draft: Draft, advice: Advice) -> list[dict[str, Any]]:
    """Other values of a setting: what is known of each, and what of the plan it would move."""
    from engine import offers

    return [
        {"value": other.value, "effect": other.does, "moves": other.words}
        for other in offers.alternatives(draft, advice.field)
    ]


def document(draft: Draft, field: str) -> Any:
    """The same as JSON: the advice, its alternatives with what they would move."""
    if field == "gate":
        return draft.plan.gate
    advice = find(draft, field)
    return {**msgspec.to_builtins(advice), "alternatives": alternatives(draft, advice)}


def find(draft: Draft, field: str) -> Advice:
    """The advice on a setting (short names count) or on the stage. Raises FtuiError(USAGE)."""
    wanted = SHORT.get(field, field).replace("-", "_")
    for advice in (draft.plan.stage, *draft.plan.advice):
        if advice.field == wanted:
            return advice
    fields = ", ".join(a.field for a in draft.plan.advice)
    raise FtuiError(Exit.USAGE, f"the plan has no field {field}", next_step=f"fields: gate, stage, {fields}")
