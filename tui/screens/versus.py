"""Two plans side by side: this one against what is advised, a preset, or an earlier run, on the same rows and machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import Struct
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import FtuiError
from engine.text import safe, shorten
from tui.frame import FAINT, FOCUS, Frame
from tui.listing import pad
from tui.plan_lines import words
from tui.rows import Rows
from tui.wizard import command, edits

if TYPE_CHECKING:
    from engine.advice.compare import Change
    from engine.advice.kinds import Plan
    from tui.screens.plan import PlanScreen

ADVICE = "what is advised"
MOST_RUNS = 8
NAME, LONGEST = 19, 20  # cells of a setting's name, and of a value at most


class ChangeLine(Struct, frozen=True):
    """One thing that differs. `theirs` is the other plan's, `ours` this one's."""

    key: str
    name: str
    theirs: str
    ours: str
    effect: str

    def line(self, width: int) -> Content:
        value = value_width(width)
        # A long value also takes the room beside it: that of a short name, or of the effect.
        theirs = max(0, NAME + value - cell_len(self.name) - 1)
        ours = max(value, min(LONGEST, cell_len(self.ours)))
        effect = max(0, width - NAME - value - ours - 4)
        return Content.assemble(
            f"{self.name} ",
            pad(self.theirs, theirs, right=True),
            "  ",
            (pad(self.ours, ours, right=True), f"bold {FOCUS}"),
            "  ",
            (shorten(self.effect, effect), FAINT),
        )


def value_width(width: int) -> int:
    """Cells of each plan's values, in a line of `width`."""
    return 17 if width >= 100 else 12


def heads(theirs: str, width: int) -> Content:
    """The names over the two columns; that of the other plan, which may be long, also takes the room over the settings."""
    value = value_width(width)
    return Content.assemble(
        pad(theirs, NAME + value, right=True), "  ", (pad("this plan", value, right=True), f"bold {FOCUS}")
    )


def change_lines(changes: list[Change]) -> list[ChangeLine]:
    """Changes as lines; a warning is a sentence, which stands where the effect does."""
    lines = []
    for index, change in enumerate(changes):
        theirs, ours = (safe(text) for text in change.words())
        effect = safe(change.effect)
        if change.kind in ("warning", "refusal"):
            theirs, ours, effect = "!" if theirs else "", "!" if ours else "", ours or theirs
        name = f"  {change.name}" if change.kind == "part" else words(change.name)
        lines.append(ChangeLine(f"{index} {change.name}", safe(name), theirs, ours, effect))
    return lines


class VersusScreen(Frame):
    """What differs between this plan and another; left and right choose the other."""

    TITLE = "Compare"
    CSS_PATH = "plan.tcss"
    HELP = (
        "This plan beside another one on the same rows and machine: settings that differ, then what follows from them in steps, "
        "time, memory and warnings. ← and → choose what it is compared with: the advice without your edits, a preset, or an "
        "earlier run."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "other(-1)", "Against", key_display="←→", id="versus.before", tooltip="Compare with another"),
        Binding("right", "other(1)", "Against", show=False, id="versus.after"),
        Binding("escape", "back", "Back", id="versus.back"),
    ]

    def __init__(self, plan: PlanScreen) -> None:
        super().__init__()
        self._plan = plan
        self._others: list[tuple[str, Plan]] = []
        self._at = 0
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), ("compare", "bold"))
        self.command = command(plan.wizard.choice, "plan")

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="columns", markup=False)
        yield Rows(id="changes", verb="")
        yield Static("", id="effect", markup=False)

    def on_mount(self) -> None:
        draft = self._plan.wizard.draft
        if draft is not None:
            self.query_one("#changes").focus()
            self.in_thread(lambda: others(draft), self._found)

    def _found(self, found: list[tuple[str, Plan]]) -> None:
        self._others = found
        self._show()

    def _show(self) -> None:
        from engine.advice import compare

        draft = self._plan.wizard.draft
        if draft is None or not self._others:
            return
        name, other = self._others[self._at]
        changes = compare.compare(other, draft.plan)
        lines = change_lines(changes)
        place = f"{self._at + 1} of {len(self._others)}"
        self.query_one("#sentence", Static).update(
            Content.assemble(("this plan against ", ""), (safe(name), "bold"), (f"   {place}", FAINT))
        )
        head = Content("  ") + heads(safe(name), self.size.width - 6)
        self.query_one("#columns", Static).update(head if lines else Content.styled("Nothing differs.", FAINT))
        rows = self.query_one("#changes", Rows)
        rows.show(lines)
        rows.styles.max_height = len(lines)  # less where the effect below, which is told whole, needs the room
        self.query_one("#effect", Static).update("")
        choice = draft.choice
        if name != ADVICE:
            self.command = command(choice, "plan", "--against", name.partition(" ")[2])
        else:
            advised = msgspec.structs.replace(choice, edits={})
            self.command = command(advised, "plan", "--what-if", ",".join(edits(choice.edits)))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        item = event.item
        if isinstance(item, ChangeLine):
            self.query_one("#effect", Static).update(Content.styled(item.effect, FAINT))

    def action_other(self, step: int) -> None:
        if self._others:
            self._at = (self._at + step) % len(self._others)
            self._show()


def others(draft: object) -> list[tuple[str, Plan]]:
    """What a plan can be compared with: (name, the plan that it would be here). Those that cannot be are left out."""
    from engine import draft as drafts
    from engine import presets
    from engine.recipe import SETTING_FIELDS
    from engine.runs import directory

    assert isinstance(draft, drafts.Draft)
    found = [(ADVICE, drafts.replan(draft, {}).plan)]
    for name in presets.names():
        try:
            found.append((f"preset {name}", drafts.under_preset(draft, name).plan))
        except FtuiError:
            continue
    for run in directory.all_runs()[:MOST_RUNS]:
        try:
            settings = run.recipe().settings
            edits = {name: getattr(settings, name) for name in SETTING_FIELDS}
            found.append((f"run {directory.title(run)}", drafts.replan(draft, edits).plan))
        except FtuiError:
            continue
    return found
