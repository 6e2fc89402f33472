"""What else fits: the memory that every method takes, at every micro-batch, against what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.advice.fields import DOES
from engine.errors import FtuiError
from engine.text import safe, size
from tui.frame import BAD, FAINT, FOCUS, GOOD, Frame
from tui.listing import pad
from tui.rows import GUTTER, Rows
from tui.wizard import command

if TYPE_CHECKING:
    from engine.fits import Fit
    from tui.screens.plan import PlanScreen

_LABEL = 13  # cells for a method's name
_CELL = 10  # cells for one micro-batch


class FitLine(Struct, frozen=True):
    """One method, a cell for each micro-batch: (micro-batch, bytes, fits); or why it cannot be used."""

    key: str
    label: str
    cells: tuple[tuple[int, int, bool], ...]
    chosen: int  # the micro-batch of the plan, if this is its method; else 0
    refused: str = ""

    def line(self, width: int) -> Content:
        parts: list[str | tuple[str, str]] = [pad(self.label, _LABEL)]
        if self.refused:
            parts.append((pad(f"  ✗ {self.refused}", width - _LABEL), FAINT))
        for micro, count, fits in self.cells[: max(1, (width - _LABEL) // _CELL)]:
            mark, colour = ("✓", GOOD) if fits else ("✗", BAD)
            text = size(count).rjust(_CELL - 3)
            style = f"bold {FOCUS}" if micro == self.chosen else ("" if fits else FAINT)
            parts += [(text, style), " ", (mark, colour), " "]
        return Content.assemble(*parts)


class FitsScreen(Frame):
    """Methods down, micro-batches across; enter takes the method under the cursor, its batch is planned anew."""

    TITLE = "What else fits"
    CSS_PATH = "plan.tcss"
    HELP = (
        "Memory for training by method and micro-batch, by the same forecast as the plan: ✓ fits into what a run may use "
        "here once the runs before it have ended, ✗ does not. The plan's own place is marked. Enter takes the method under "
        "the cursor. Rank, checkpointing and what else changes with the method are as its plan would have them."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Back", id="fits.back")]

    def __init__(self, plan: PlanScreen) -> None:
        super().__init__()
        self._plan = plan
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), ("what else fits", "bold"))
        self.command = command(plan.wizard.choice, "plan", "--fits")

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="columns", markup=False)
        yield Rows(id="fits", verb="Take this method")
        yield Static("", id="legend", markup=False)

    def on_mount(self) -> None:
        from engine import fits

        draft = self._plan.wizard.draft
        if draft is None:
            return
        settings, machine = draft.plan.settings, draft.advice_facts.hardware
        lines = fit_lines(fits.table(draft), settings.method, settings.bits, settings.micro_batch)
        length = min(settings.max_length, draft.lengths.max)
        self.query_one("#sentence", Static).update(
            Content.assemble(
                (f"{size(machine.budget)} for a run on {safe(machine.device_name)}{machine.when_there}.", "bold"),
                (f"  Rows up to {length:,} tokens, {settings.precision}.", FAINT),
            )
        )
        head = " " * GUTTER + pad("rows at once", _LABEL)
        self.query_one("#columns", Static).update(
            Content.styled(head + "".join(f"{micro:>{_CELL - 3}}   " for micro in fits.MICRO_BATCHES), FAINT)
        )
        rows = self.query_one("#fits", Rows)
        rows.show(lines)
        rows.put_cursor(next((line.key for line in lines if line.chosen), ""))
        rows.focus()

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """What the method under the cursor does, or the whole reason why not, which its line has no room for."""
        line = event.item
        if not isinstance(line, FitLine):
            return
        if line.refused:
            told = Content.styled(f"✗ {line.refused}", BAD)
        else:
            marked = "  * with gradient checkpointing" if line.label.endswith("*") else ""
            told = Content.assemble(DOES["method"][line.key.partition(" ")[0]], (marked, FAINT))
        self.query_one("#legend", Static).update(told)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        if isinstance(event.item, FitLine) and event.item.refused:
            return  # the reason stands below
        method, _, bits = event.item.key.partition(" ")
        try:
            self._plan.set("method", method)
            if bits:
                self._plan.set("bits", int(bits))
        except FtuiError as error:
            self.error(error)
        else:
            self.app.pop_screen()


def fit_lines(table: list[Fit], method: str, bits: int, micro_batch: int) -> list[FitLine]:
    """The table of forecasts as one line a method; `method`, `bits` and `micro_batch` are those of the plan."""
    mine = f"{method} {bits}" if method == "qlora" else method
    found = []
    for fit in table:
        key = f"{fit.method} {fit.bits}" if fit.method == "qlora" else fit.method
        label = f"{fit.label} *" if fit.checkpointing else fit.label
        cells = tuple((cell.micro_batch, cell.memory.total, cell.fits) for cell in fit.cells)
        found.append(FitLine(key, label, cells, micro_batch if key == mine else 0, safe(fit.refused)))
    return found
