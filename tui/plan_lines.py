"""The lines of the Plan screen: settings, each with its value, reason and source, and the values to choose for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from rich.cells import cell_len
from textual.content import Content

from engine import rewards
from engine.advice import fields, numbers
from engine.recipe import RL
from engine.text import number, safe, size
from tui.frame import BAD, FAINT, FOCUS
from tui.listing import pad
from tui.rows import Heading

if TYPE_CHECKING:
    from engine.advice.kinds import Advice, Plan
    from engine.draft import Draft


# Sources whose names are long, where a line is short; the whole name stands below the list.
_SHORT = {
    numbers.GUIDE: "vendor guide",
    numbers.TUTORIAL: "Phi-2 tutorial",
    numbers.WALKTHROUGH: "walk-through",
    numbers.REGRET: "Without Regret",
    numbers.FACTORY: "LLaMA-Factory",
    numbers.RSLORA: "rsLoRA paper",
    numbers.PROMPT: "prompt tuning",
    numbers.PREFIX: "prefix tuning",
    numbers.LIBRARY: "library peft",
    numbers.TRL_DOCS: "TRL docs",
    numbers.BOTTLENECK: "AdapterFusion",
}
VALUE = 20  # cells of a value at most
LEAST_WHY = 16  # cells of a reason that still say something


def short_source(source: str) -> str:
    """A source as a line of 80 cells has room for it."""
    return "preset" if source.startswith("preset ") else _SHORT.get(source, source)


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
        """Reason and source share what the value leaves: the source stays whole, and of the reason what has room."""
        field, value = (15, 10) if width < 100 else (19, 17)
        value = max(value, min(VALUE, cell_len(self.value)))
        room = max(0, width - field - value - 2)
        source, column = (short_source(self.source), 14) if width < 100 else (self.source, 29)
        # A column, unless that would cut the reason; a source that is whole in any case.
        column = max(cell_len(source), min(column, room - cell_len(self.why) - 2))
        why = room - column - 2
        if why < LEAST_WHY:  # the line below the list says it
            source, why = "", room
        return Content.assemble(
            pad(words(self.key), field),
            (pad(self.value, value, right=True), f"bold {FOCUS}" if self.edited else "bold"),
            ("✎ " if self.edited else "  ", FOCUS),
            pad(self.why, why),
            ("  " + source if source else "", FOCUS if self.edited else FAINT),
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


def reason(cause: str) -> str:
    """Why a value does not fit, without the name and the value that it stands beside."""
    return cause.partition(": ")[2] or cause
