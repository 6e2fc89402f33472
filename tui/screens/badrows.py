"""Rows that cannot be used: file, line, column and reason of each, and what to do about all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
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

MOST = 1000  # rows listed; the count names all


class BadRowLine(Struct, frozen=True):
    """One row: where it is, and what is wrong with it or was done about it."""

    key: str
    file: str
    place: str
    reason: str
    repaired: str

    def line(self, width: int) -> Content:
        file = min(len(self.file), width // 4)
        glyph, colour = ("✓", GOOD) if self.repaired else ("✗", BAD)
        where = f"{pad(self.file, file)}  " if file else ""
        place = pad(self.place, 22)
        words = f"{self.reason}: {self.repaired}" if self.repaired else self.reason
        return Content.assemble(
            (glyph, colour), " ", (f"{where}{place}  ", FAINT), shorten(words, max(0, width - 26 - len(where)))
        )


def lines(bad: list[BadRow], several: bool) -> list[BadRowLine]:
    """The rows as lines; `several` files are told apart by their names."""
    found = []
    for number, row in enumerate(bad[:MOST]):
        place = f"row {row.row:,}" if row.row else "the file"
        if row.line is not None:
            place = f"line {row.line:,}" + (f", column {row.column:,}" if row.column is not None else "")
        name = safe(row.source.rpartition("/")[2]) if several else ""
        found.append(BadRowLine(str(number), name, place, safe(row.reason), safe(row.repaired)))
    return found


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
        now = {"skip": "They are left out.", "repair": "They are left out; the others were mended."}
        words = Content.assemble(
            (f"{plural(len(skipped), 'row')} cannot be used", f"bold {WARN}" if skipped else "bold"),
            (f", {plural(len(repaired), 'row')} mended" if repaired else "", ""),
            (f"   {now.get(self._now, 'Nothing starts until you say what to do with them.')}", FAINT),
        )
        yield Static(words, id="words", markup=False)
        yield Rows(id="bad", verb="", help="The rows, in the order of the files.")
        yield Static("", id="whole", markup=False)

    def on_mount(self) -> None:
        rows = self.query_one("#bad", Rows)
        rows.show(lines(self._all, len({bad.source for bad in self._all}) > 1))
        rows.focus()

    @property
    def _all(self) -> list[BadRow]:
        return [*self._dataset.skipped, *self._dataset.repaired]

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The whole reason and the file of the row under the cursor."""
        bad = self._all[int(event.item.key)]
        parts = [
            Content(safe(bad.reason)),
            Content.styled(safe(bad.source) + (f", row {bad.row:,}" if bad.row else ""), FAINT),
        ]
        if bad.repaired:
            parts.insert(1, Content.styled(f"✓ {safe(bad.repaired)}", GOOD))
        self.query_one("#whole", Static).update(Content("\n").join(parts))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "choose" or parameters[0] != self._now

    def action_choose(self, what: str) -> None:
        self.app.pop_screen()
        fixing.bad_rows(self._data, what)
