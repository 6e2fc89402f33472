"""What else fits: the memory that every method takes, at every micro-batch, against what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import FtuiError
from engine.text import safe, size
from tui.frame import BAD, FAINT, FOCUS, GOOD, Frame
from tui.listing import pad
from tui.rows import GUTTER, Rows

if TYPE_CHECKING:
    from engine.models.memory import Fit
    from tui.screens.plan import PlanScreen

_LABEL = 13  # cells for a method's name
_CELL = 10  # cells for one micro-batch


class FitLine(Struct, frozen=True):
    """One method, a cell for each micro-batch: (micro-batch, bytes, fits)."""

    key: str
    label: str
    cells: tuple[tuple[int, int, bool], ...]
    chosen: int  # the micro-batch of the plan, if this is its method; else 0

    def line(self, width: int) -> Content:
        parts: list[str | tuple[str, str]] = [pad(self.label, _LABEL)]
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
        "Memory for training by method and micro-batch, by the same forecast as the plan: ✓ fits what is free here, ✗ does "
        "not. The plan's own place is marked. Enter takes the method under the cursor."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Back", id="fits.back")]

    def __init__(self, plan: PlanScreen) -> None:
        super().__init__()
        self._plan = plan
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), ("what else fits", "bold"))
        self.command = "ftui plan --fits"

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="columns", markup=False)
        yield Rows(id="fits", verb="Take this method")
        yield Static("", id="legend", markup=False)

    def on_mount(self) -> None:
        from engine.models import memory

        draft = self._plan.wizard.draft
        if draft is None:
            return
        settings, machine = draft.plan.settings, draft.advice_facts.hardware
        table = memory.table(draft.facts, settings, machine, draft.lengths.max, stage=draft.recipe.stage)
        lines = fit_lines(table, settings.method, settings.bits, settings.micro_batch)
        length = min(settings.max_length, draft.lengths.max)
        self.query_one("#sentence", Static).update(
            Content.assemble(
                (f"{size(machine.budget)} are free on {safe(machine.device_name)}.", "bold"),
                (f"  Rows of up to {length:,} tokens.", FAINT),
            )
        )
        batches = lines[0].cells if lines else ()
        head = " " * GUTTER + pad("rows at once", _LABEL)
        self.query_one("#columns", Static).update(
            Content.styled(head + "".join(f"{micro:>{_CELL - 3}}   " for micro, _, _ in batches), FAINT)
        )
        checkpointing = "with" if settings.gradient_checkpointing else "without"
        self.query_one("#legend", Static).update(
            Content.styled(
                f"In {settings.precision}, {checkpointing} gradient checkpointing, as the plan has it.", FAINT
            )
        )
        rows = self.query_one("#fits", Rows)
        rows.show(lines)
        rows.put_cursor(next((line.key for line in lines if line.chosen), ""))
        rows.focus()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
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
    cells: dict[tuple[str, str], list[tuple[int, int, bool]]] = {}
    for fit in table:
        key = f"{fit.method} {fit.bits}" if fit.method == "qlora" else fit.method
        cells.setdefault((key, fit.label), []).append((fit.micro_batch, fit.memory.total, fit.fits))
    mine = f"{method} {bits}" if method == "qlora" else method
    return [
        FitLine(key, label, tuple(found), micro_batch if key == mine else 0) for (key, label), found in cells.items()
    ]
