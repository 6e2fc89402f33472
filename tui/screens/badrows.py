"""Rows that cannot be used: file, line, column and reason of each, and what to do about all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.text import safe, shorten
from tui.frame import BAD, FAINT, GOOD, WARN, Frame
from tui.inspection import plural
from tui.listing import pad
from tui.rows import Rows
from tui.screens import fixing

if TYPE_CHECKING:
    from engine.data.dataset import BadRow, Dataset
    from tui.screens.data import DataScreen

PLACE = 40  # cells for file, line and column
MOST = 1000  # rows listed; the count names all


class BadRowLine(Struct, frozen=True):
    """One row: where it is, and what is wrong with it or was done about it."""

    key: str
    place: str
    reason: str
    repaired: str

    def line(self, width: int) -> Content:
        glyph, colour = ("✓", GOOD) if self.repaired else ("✗", BAD)
        words = f"{self.repaired} ({self.reason})" if self.repaired else self.reason
        room = max(0, width - 4 - cell_len(self.place))
        return Content.assemble((glyph, colour), " ", (f"{self.place}  ", FAINT), shorten(words, room))


def lines(bad: Sequence[BadRow]) -> list[BadRowLine]:
    """The rows as lines, their places in a column; files are named where there are several."""
    several = len({row.source for row in bad}) > 1
    places = [place(row, several) for row in bad[:MOST]]
    width = min(PLACE, max(map(cell_len, places), default=0))
    return [
        BadRowLine(str(number), pad(where, width), safe(row.reason), safe(row.repaired))
        for number, (row, where) in enumerate(zip(bad, places, strict=False))
    ]


def place(row: BadRow, named: bool) -> str:
    """Where a row is: "line 4, column 29", with the file's name before it where that is wanted."""
    words = f"row {row.row:,}" if row.row else "the file"
    if row.line is not None:
        words = f"line {row.line:,}" + (f", column {row.column:,}" if row.column is not None else "")
    return f"{shorten(safe(row.source.rpartition('/')[2]), PLACE // 2)}  {words}" if named else words


def _file(source: str) -> str:
    """A file as a person here would name it: without the current folder before it."""
    path = Path(source)
    here = Path.cwd()
    return safe(path.relative_to(here) if path.is_relative_to(here) else path)


class BadRowsScreen(Frame):
    """Shown over the Data screen."""

    TITLE = "Rows that cannot be used"
    CSS_PATH = "badrows.tcss"
    HELP = (
        "Each row that cannot be used as it is, with its place in the file and the reason. s leaves all of them out; r mends "
        "those whose meaning is plain and leaves the others out. The file itself is never changed."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "choose('skip')", "Leave them out", id="badrows.skip", tooltip="Leave these rows out"),
        Binding(
            "r",
            "choose('repair')",
            "Repair",
            id="badrows.repair",
            tooltip="Mend what can be mended, leave out the rest",
        ),
        Binding("escape", "back", "Back", id="badrows.back"),
    ]

    def __init__(self, data: DataScreen, dataset: Dataset, on_bad_row: str) -> None:
        super().__init__()
        self._data, self._dataset, self._now = data, dataset, on_bad_row
        self.command = data.command

    def body(self) -> ComposeResult:
        skipped, repaired = self._dataset.skipped, self._dataset.repaired
        now = {"skip": "left out", "repair": "left out"}.get(self._now, "nothing starts until you say what to do")
        words = Content.assemble(
            (f"{plural(len(skipped), 'row')} cannot be used", f"bold {WARN}" if skipped else "bold"),
            (f" ({now})", FAINT),
            f", {plural(len(repaired), 'row')} mended" if repaired else "",
        )
        yield Static(words, id="words", markup=False)
        yield Rows(id="bad", verb="", help="The rows, in the order of the files.")
        yield Static("", id="whole", markup=False)

    def on_mount(self) -> None:
        rows = self.query_one("#bad", Rows)
        rows.show(lines(self._all))
        rows.focus()

    def on_resize(self) -> None:
        # The whole reason keeps its place below; a long list scrolls above it.
        self.query_one("#bad").styles.max_height = max(3, self.query_one("#body").content_size.height - 7)

    @property
    def _all(self) -> list[BadRow]:
        return [*self._dataset.skipped, *self._dataset.repaired]

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The whole reason and the file of the row under the cursor."""
        bad = self._all[int(event.item.key)]
        parts = [
            Content(safe(bad.reason)),
            Content.styled(_file(bad.source) + (f", row {bad.row:,}" if bad.row else ""), FAINT),
        ]
        if bad.repaired:
            parts.insert(1, Content.styled(f"✓ {safe(bad.repaired)}", GOOD))
        self.query_one("#whole", Static).update(Content("\n").join(parts))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "choose" or parameters[0] != self._now

    def action_choose(self, what: str) -> None:
        self.app.pop_screen()
        fixing.bad_rows(self._data, what)
