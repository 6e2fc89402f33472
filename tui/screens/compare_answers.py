"""Each prompt with the reference and both answers beside each other; part of Compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content

from engine.runs import scoreboard
from engine.text import safe, shorten
from tui.frame import BASE, FAINT, TUNED, Frame
from tui.widgets.pair import Pair, Said

if TYPE_CHECKING:
    from engine.runs.scoreboard import Compared

ORDERS = ("in order of the rows", "largest loss first", "largest gain first")


class AnswersScreen(Frame):
    """Answers of the base and of the tuned model, or of two runs."""

    TITLE = "Answers"
    HELP = (
        "One prompt at a time, what the row holds as its answer, and what both models said, greedily. The number behind a "
        "name is ROUGE-L against the reference, from 0 to 1; of texts with gaps, the share that is filled right. Order "
        "sorts by how much was lost or gained."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "Before", id="answers.before", tooltip="The prompt before"),
        Binding("right", "turn(1)", "Next", id="answers.next", tooltip="The next prompt"),
        Binding("home", "end(0)", "First", show=False, id="answers.first"),
        Binding("end", "end(-1)", "Last", show=False, id="answers.last"),
        Binding("o", "order", "Order", id="answers.order", tooltip="By row, largest loss or largest gain first"),
        Binding("w", "whole", "Whole prompt", id="answers.whole", tooltip="All of a long prompt and reference"),
        Binding("escape", "back", "Back", id="answers.back"),
    ]

    def __init__(self, results: Sequence[Compared], command: str) -> None:
        super().__init__()
        self.command = f"{command} --answers"
        self._names = scoreboard.heads(results)
        self._seen = f"   {shorten(safe(results[0].run), 30)}"
        self._pairs = scoreboard.pairs(results)
        self._order, self._at = 0, 0

    def body(self) -> ComposeResult:
        yield Pair(id="pair")

    def on_mount(self) -> None:
        self.query_one(Pair).focus()
        self._draw()

    def _draw(self) -> None:
        pair = self._sorted[self._at]
        heads = [shorten(safe(name), 24) for name in self._names[-2:]]
        self.heading = Content.assemble(
            ("Answers", "bold"),
            self._seen,
            f"   {self._at + 1}/{len(self._pairs)}",
            (f"   {ORDERS[self._order]}", FAINT),
        )
        gain = f"  {pair.second_score:.2f}  {pair.gain:+.2f}"
        self.query_one(Pair).show(
            Said("prompt", pair.prompt, more=f"  row {pair.row}"),
            Said("reference", pair.reference),
            Said(f"○ {heads[0]}", pair.first, f"bold {BASE}", f"  {pair.first_score:.2f}"),
            Said(f"● {heads[1]}", pair.second, f"bold {TUNED}", gain),
            None if pair.base is None else Said("base", pair.base),
        )

    @property
    def _sorted(self) -> list[scoreboard.Pair]:
        if not self._order:
            return self._pairs
        return sorted(self._pairs, key=lambda pair: pair.gain, reverse=self._order == 2)

    def action_turn(self, by: int) -> None:
        self._at = min(max(0, self._at + by), len(self._pairs) - 1)
        self._draw()

    def action_end(self, at: int) -> None:
        self._at = at % len(self._pairs)
        self._draw()

    def action_order(self) -> None:
        self._order, self._at = (self._order + 1) % len(ORDERS), 0
        self._draw()

    def action_whole(self) -> None:
        self.query_one(Pair).turn_whole()
