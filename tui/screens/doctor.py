"""Doctor: what works on this machine, what does not, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine.text import safe, shorten
from tui.frame import BAD, FAINT, FOCUS, GOOD, WARN, Frame
from tui.listing import pad
from tui.rows import Rows

if TYPE_CHECKING:
    from engine.doctor import Check

_ORDER = ("bad", "warning", "ok")
_GLYPHS = {"ok": ("✓", GOOD), "warning": ("!", WARN), "bad": ("✗", BAD)}


class CheckLine(Struct, frozen=True):
    key: str
    name: str
    level: str
    detail: str
    fix: str

    def line(self, width: int) -> Content:
        glyph, colour = _GLYPHS[self.level]
        return Content.assemble(
            (glyph, colour), f" {pad(self.name, 16)}  ", (shorten(self.detail, width - 20), "" if self.fix else FAINT)
        )


class DoctorScreen(Frame):
    TITLE = "Doctor"
    CSS_PATH = "doctor.tcss"
    HELP = (
        "What a run needs, checked one by one: ✓ works, ! works with a limit, ✗ is broken. "
        "The line under the rule says what to do about the check under the cursor."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "look", "Look again", id="doctor.look"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.command = "ftui doctor"

    def body(self) -> ComposeResult:
        yield Static("", id="verdict", markup=False)
        yield Rows(id="checks", verb="")
        yield Rule(line_style="solid")
        yield Static("", id="fix", markup=False)

    def on_mount(self) -> None:
        self.query_one(Rule).display = False
        self.action_look()

    def action_look(self) -> None:
        self.query_one("#verdict", Static).update(Content.styled("looking, a few seconds …", FAINT))

        def read() -> list[Check]:
            from engine import doctor

            return doctor.report()

        self.in_thread(read, self._show, exclusive=True)

    def _show(self, checks: list[Check]) -> None:
        lines = [
            CheckLine(f"{index} {check.name}", safe(check.name), check.level, safe(check.detail), safe(check.fix))
            for index, check in enumerate(checks)
        ]
        lines.sort(key=lambda line: _ORDER.index(line.level))  # what there is to know is never below the fold
        bad = sum(line.level == "bad" for line in lines)
        limits = sum(line.level == "warning" for line in lines)
        if bad:
            words = Content.styled(f"{bad} of {len(lines)} checks failed", BAD)
        elif limits:
            words = Content.styled(f"Ready to train, with {limits} thing{'s' if limits > 1 else ''} to know", "bold")
        else:
            words = Content.styled("Ready to train", "bold")
        self.query_one("#verdict", Static).update(words)
        self.query_one(Rule).display = True
        rows = self.query_one("#checks", Rows)
        rows.show(lines)
        rows.focus()
        if lines:
            rows.put_cursor(lines[0].key)

    def on_rows_moved(self, event: Rows.Moved) -> None:
        item = event.item
        if isinstance(item, CheckLine):
            fix = Content.assemble(("→ ", FOCUS), item.fix) if item.fix else Content.styled("nothing to do", FAINT)
            self.query_one("#fix", Static).update(Content.assemble((item.detail, ""), "\n", fix))
