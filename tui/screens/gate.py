"""Tune at all? Four questions that come before any method, answered from what is known where it is known."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine.text import safe, shorten
from tui.ask import Ask
from tui.frame import BAD, FAINT, FOCUS, GOOD, WARN, Frame
from tui.listing import pad
from tui.rows import Rows
from tui.wizard import command

if TYPE_CHECKING:
    from engine.advice.gate import Gate
    from tui.screens.plan import PlanScreen

# How a verdict looks: glyph and colour, each with the verdict's own word beside it.
VERDICTS = {"tune": ("✓", GOOD), "unsure": ("?", WARN), "do not tune": ("✗", BAD)}
GOALS = {
    "persona": "who the model is: a name, a character",
    "style": "how it writes",
    "format": "an output of a fixed form, such as JSON",
    "language": "a language it hardly knows",
    "task": "a task of your own, shown by examples",
    "changing facts": "facts that are new or change: prices, documents, news",
}


class GoalLine(Struct, frozen=True):
    """One thing that tuning may be for."""

    key: str
    means: str
    chosen: bool

    def line(self, width: int) -> Content:
        mark = ("●", FOCUS) if self.chosen else ("○", FAINT)
        return Content.assemble(mark, " ", (pad(self.key, 16), "bold"), shorten(self.means, max(0, width - 18)))


def verdict(gate: Gate) -> Content:
    """The verdict in one line."""
    glyph, colour = VERDICTS[gate.verdict]
    return Content.assemble((f"{glyph} {gate.verdict}", f"bold {colour}"), f": {safe(gate.why)}")


class GateScreen(Frame):
    """The questions with their answers; the two that nothing here can know are asked."""

    TITLE = "Tune at all?"
    CSS_PATH = "plan.tcss"
    HELP = (
        "Whether tuning is the right thing to do: enough data, hardware, would looking things up or an API do, and is there "
        "time. What is known is answered. Enter says what the tuning is for, d when it has to be done. Nothing here is needed "
        "to go on."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "deadline", "How soon", id="gate.deadline", tooltip="Say when it has to be done"),
        Binding("x", "clear", "Take back", id="gate.clear", tooltip="Take both answers back"),
        Binding("escape", "back", "Back", id="gate.back"),
    ]

    def __init__(self, plan: PlanScreen) -> None:
        super().__init__()
        self._plan = plan
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), ("tune at all?", "bold"))

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="questions", markup=False)
        yield Rule(line_style="solid")
        yield Static(Content.styled("What is it for?", FAINT), classes="instead", markup=False)
        yield Rows(id="goals", verb="It is for this")
        yield Ask(id="ask")

    def on_mount(self) -> None:
        self._show()
        self.query_one("#goals").focus()

    def _show(self) -> None:
        draft = self._plan.wizard.draft
        if draft is None:
            return
        gate = draft.plan.gate
        self.query_one("#sentence", Static).update(verdict(gate))
        width = max((len(question.text) for question in gate.questions), default=0) + 2
        lines = []
        for question in gate.questions:
            answer = safe(question.answer) if question.answer else "not known: say so below"
            style = "" if question.known else FAINT
            source = (
                f"  {question.source}" if self.size.width >= 100 else ""
            )  # on a narrow screen it would break the line
            lines.append(Content.assemble(pad(question.text, width), (answer, style), (source, FAINT)))
        self.query_one("#questions", Static).update(Content("\n").join(lines))
        goal = draft.advice_facts.goal
        self.query_one("#goals", Rows).show([GoalLine(key, means, key == goal) for key, means in GOALS.items()])
        self.command = command(draft.choice, "plan")

    def _answer(self, goal: str | None, deadline: float | None) -> None:
        from engine import draft as drafts
        from engine.advice.kinds import Goal

        draft = self._plan.wizard.draft
        if draft is not None:
            self._plan.wizard.take(drafts.answer(draft, typing.cast("Goal | None", goal), deadline))
            self._show()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        draft = self._plan.wizard.draft
        self._answer(event.item.key, draft.choice.deadline if draft else None)

    def action_deadline(self) -> None:
        draft = self._plan.wizard.draft
        if draft is None:
            return

        def take(text: str) -> None:
            from engine.text import seconds_of

            self._answer(draft.choice.goal, seconds_of(text) if text else None)

        self.query_one(Ask).ask("done within", "", take, "as in 30m, 2h or 3d; empty for no hurry", short=True)

    def action_clear(self) -> None:
        self._answer(None, None)
