"""One row at a time: its number, its length, and the exact text, with ways through all rows or those of a finding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from engine.errors import FtuiError
from engine.text import safe
from tui import inspection
from tui.inspection import Walk
from tui.widgets.preview import MaskedPreview, Side

if TYPE_CHECKING:
    from engine.draft import Draft
    from tui.frame import Frame

LONG = 60_000  # bytes of a row whose tokens are told apart in a thread: keys must not wait for it


class RowPreview(MaskedPreview):
    """The preview with the keys that go through rows in the footer while it has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "screen.row(1)", "Next row", id="preview.next-row"),
        Binding("b", "screen.row(-1)", "Row before", id="preview.row-before"),
        Binding("a", "screen.text('answer')", "Answer", id="preview.answer"),
        Binding("o", "screen.text('tokens')", "Tokens", id="preview.tokens"),
        Binding("p", "screen.read", "Whole screen", id="preview.read"),
    ]


class Reading(Vertical):
    """Shows the row of a draft that it has come to. Numbers of rows are those of the file; they may have gaps."""

    DEFAULT_CSS = """
    Reading {
        & > .row { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.walk: Walk | None = None  # through the rows of a finding
        self.tokens = False  # each token is told from the next
        self.answer = False  # the text begins at the answer
        self._draft: Draft | None = None
        self._index = 0  # of the example that is shown
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static("", classes="row", markup=False)
        yield RowPreview(id="preview")

    def show(self, draft: Draft) -> None:
        """Show the row; drawn anew only where something changed."""
        self._draft = draft
        examples = draft.dataset.examples
        self._index %= len(examples)
        cutoff = draft.plan.settings.max_length
        now = (examples, self._index, self.tokens, self.answer, cutoff, self.walk)
        if self._shown == now:
            return
        example = examples[self._index]
        self.query_one(".row", Static).update(inspection.row_words(draft, self._index, example, self.walk))
        stay = self._shown[:2] == now[:2]
        self._shown = now

        def sides(tokens: bool = self.tokens, answer: bool = self.answer) -> list[Side]:
            try:
                return inspection.sides(draft, example, tokens, answer)
            except FtuiError as error:
                return [("", [(safe(error.cause), "cut")])]

        def draw(found: list[Side]) -> None:
            if self._shown == now:  # and not yet on the way to another row
                self.query_one(MaskedPreview).show(found, stay=stay)

        if self.tokens and len(msgspec.json.encode(example)) > LONG:
            self.query_one(MaskedPreview).show([("", [("telling its tokens apart …", "boundary")])])
            cast("Frame", self.screen).in_thread(sides, draw, group="text", exclusive=True)
        else:
            draw(sides())

    def step(self, by: int) -> None:
        """The next row, of all or of the walk."""
        if self.walk is None:
            self._index += by
        else:
            self.walk = self.walk.step(by)
            self._index = self._at(self.walk.row)
        self._again()

    def go_to(self, number: int) -> None:
        """The row with this number. Raises ValueError where there is none."""
        self._index = self._at(number)
        self.walk = None
        self._again()

    def go_through(self, key: str, rows: Sequence[int]) -> None:
        """The first row of a finding; asked again, the next one. Raises ValueError where it is not among the examples."""
        walk = self.walk.step(1) if self.walk is not None and self.walk.key == key else Walk(key, rows, 0)
        self._index = self._at(walk.row)
        self.walk = walk
        self._again()

    def leave(self) -> bool:
        """Out of the rows of a finding; False where there was no such way."""
        was, self.walk = self.walk is not None, None
        self._again()
        return was

    def _again(self) -> None:
        if self._draft is not None:
            self.show(self._draft)

    def _at(self, number: int) -> int:
        """The index of the example with this row number."""
        examples = self._draft.dataset.examples if self._draft is not None else []
        index = bisect_left(examples, number, key=lambda example: example.row)
        if index == len(examples) or examples[index].row != number:
            raise ValueError(f"there is no row {number:,} among those that are used")
        return index
