"""The lines of the Plan screen: settings, each with its value, reason and source, and the values to choose for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from textual.content import Content

from engine import rewards
from engine.advice import fields
from engine.recipe import RL
from engine.text import number, safe, size
from tui.frame import BAD, FAINT, FOCUS
from tui.listing import pad
from tui.rows import Heading

if TYPE_CHECKING:
    from engine.advice.kinds import Advice, Plan
    from engine.draft import Draft


def words(field: str) -> str:
    """A setting's name as a person says it."""
    return "checkpointing" if field == "gradient_checkpointing" else field.replace("_", " ")


class AdviceLine(Struct, frozen=True):
    """One setting. `key` is the name of its field, `help` says in one line what it is."""

    key: str
    value: str
    why: str
    source: str
    edited: bool

    @property
    def help(self) -> str:
        return fields.HELP[self.key]

    def line(self, width: int) -> Content:
        source = 9 if width < 100 else 22
        field, value = (15, 10) if width < 100 else (18, 16)
        origin = "preset" if self.source.startswith("preset ") and width < 100 else self.source
        why = max(0, width - field - value - source - 4)
        return Content.assemble(
            pad(words(self.key), field),
            (pad(self.value, value, right=True), f"bold {FOCUS}" if self.edited else "bold"),
            ("✎ " if self.edited else "  ", FOCUS),
            pad(self.why, why),
            "  ",
            (pad(origin, source), FOCUS if self.edited else FAINT),
        )


class OfferLine(Struct, frozen=True):
    """One value to choose. `key` is what a person would type for it."""

    key: str
    does: str
    memory: str
    refused: str
    now: bool

    def line(self, width: int) -> Content:
        value, memory = 18, 7 if self.memory else 0
        rest = max(0, width - value - memory - 2)
        told = (pad(f"✗ {self.refused}", rest), BAD) if self.refused else pad(self.does, rest)
        return Content.assemble(
            (pad(self.key, value), f"bold {FOCUS}" if self.now else "bold"),
            (pad(self.memory, memory, right=True), FAINT),
            "  ",
            told,
        )


def lines(draft: Draft, everything: bool) -> list[AdviceLine | Heading]:
    """The plan as lines: what most people look at, then under a heading the rest that counts; without `everything` only edits of it."""
    plan, choice = draft.plan, draft.choice
    chosen = choice.stage is not None
    found: list[AdviceLine | Heading] = [
        AdviceLine(
            "stage", plan.stage.value, safe(plan.stage.reason), "you" if chosen else safe(plan.stage.source), chosen
        )
    ]
    if draft.recipe.stage in RL:
        worth = safe(choice.reward or "none yet")
        found.append(AdviceLine("reward", worth, rewards.WORDS, "you", bool(choice.reward)))
    few, expert = plan.shown(everything)
    found += [_line(plan, advice) for advice in few]
    if expert:
        found += [Heading("expert", "expert"), *(_line(plan, advice) for advice in expert)]
    return found


def _line(plan: Plan, advice: Advice) -> AdviceLine:
    why, source = plan.why(advice)
    value = number(getattr(plan.settings, advice.field))
    return AdviceLine(advice.field, safe(value), safe(why), safe(source), advice.field in plan.edits)


def offer_lines(draft: Draft, field: str) -> list[OfferLine]:
    """All values of `field`, if they are few enough to choose from."""
    from engine import offers

    held = draft.recipe.stage if field == "stage" else getattr(draft.plan.settings, field)
    return [
        OfferLine(
            number(offer.value),
            safe(offer.does),
            size(offer.memory) if offer.memory is not None else "",
            safe(offer.refused),
            offer.value == held,
        )
        for offer in offers.choices(draft, field)
    ]


def typed(text: str) -> str:
    """A value as a person types it ("yes") as a recipe takes it ("true")."""
    return {"yes": "true", "no": "false"}.get(text.lower(), text)


_KINDS = {
    "`float`": "a number",
    "`int`": "a whole number",
    "`bool`": "yes or no",
    ", got `str`": "",
    "Expected": "this takes",
}


def reason(cause: str) -> str:
    """Why a value does not fit, short enough to stand beside it."""
    text = cause.partition(": ")[2] or cause
    for word, plain in _KINDS.items():
        text = text.replace(word, plain)
    return text
