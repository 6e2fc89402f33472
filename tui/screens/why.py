"""Why one value: the reason, its source, where sources disagree, and what other values would change."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine.advice.fields import HELP
from engine.errors import FtuiError
from engine.text import number, safe, shorten
from tui.frame import FAINT, Frame
from tui.listing import pad
from tui.plan_lines import words
from tui.rows import Rows
from tui.wizard import command

if TYPE_CHECKING:
    from engine.advice.kinds import Advice
    from tui.screens.plan import PlanScreen


class AlternativeLine(Struct, frozen=True):
    """Another value; `moves` is what it would change in this plan ("steps 50 to 100, memory +0.2 GB")."""

    key: str
    value: str
    effect: str
    moves: str

    def line(self, width: int) -> Content:
        moves = width // 2 if width >= 100 else 0
        effect = width - 16 - moves
        return Content.assemble(
            (pad(self.value, 14), "bold"),
            "  ",
            pad(self.effect, effect),
            (shorten(f"  {self.moves}", moves), FAINT) if moves else "",
        )


class WhyScreen(Frame):
    """Why one value, and what else it could be; enter takes the alternative under the cursor."""

    TITLE = "Why"
    CSS_PATH = "plan.tcss"
    HELP = (
        "The reason for one value, where it comes from, where sources disagree, and what would change with another value. "
        "Enter takes an alternative."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="why.back"),
    ]

    def __init__(self, plan: PlanScreen, advice: Advice) -> None:
        super().__init__()
        self._plan, self._advice = plan, advice
        field = words(advice.field)
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), (f"why {field}", "bold"))
        self.command = command(plan.wizard.choice, "plan", "--explain", advice.field)

    def body(self) -> ComposeResult:
        advice = self._advice
        text: list[str | tuple[str, str]] = [
            (f"{words(advice.field)}  {safe(number(advice.value))}", "bold"),
            (f"\n{HELP[advice.field]}", FAINT),
            f"\n{safe(advice.reason)}\n",
            (f"Source: {safe(advice.source)}. Confidence: {advice.confidence}.", FAINT),
        ]
        if advice.disagreement:
            text += ["\n\n", ("Sources disagree: ", "bold"), safe(advice.disagreement)]
        yield Static(Content.assemble(*text), classes="reason", markup=False)
        if advice.alternatives:
            yield Rule(line_style="solid")
            yield Static(Content.styled("Instead", FAINT), classes="instead", markup=False)
            yield Rows(id="alternatives", verb="Take it")
            yield Static("", id="moves", markup=False)

    def on_mount(self) -> None:
        from engine import offers

        draft = self._plan.wizard.draft
        if draft is None or not self._advice.alternatives:
            return
        rows = self.query_one("#alternatives", Rows)
        rows.show(
            [
                AlternativeLine(
                    str(index),
                    safe(number(other.value)),
                    safe(other.does),
                    safe(other.words or "nothing else moves"),
                )
                for index, other in enumerate(offers.alternatives(draft, self._advice.field))
            ]
        )
        rows.focus()

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """What the alternative under the cursor means, whole: its line may be too short for it."""
        item = event.item
        if isinstance(item, AlternativeLine):
            self.query_one("#moves", Static).update(
                Content.assemble(item.effect, "\n", (f"Then: {item.moves}.", FAINT))
            )

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        other = self._advice.alternatives[int(event.item.key)]
        try:
            self._plan.set(self._advice.field, other.value)
        except FtuiError as error:
            self.error(error)
        else:
            self.app.pop_screen()
