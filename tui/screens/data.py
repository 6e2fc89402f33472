"""Data: what is in the rows. Token lengths with a movable cutoff, findings with their fixes, and the exact text."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from engine.errors import Exit, FtuiError
from engine.text import safe
from tui import inspection
from tui.ask import Ask
from tui.frame import BAD, FAINT
from tui.inspection import FindingLine, Of, Walk
from tui.rows import Rows
from tui.screens import fixing
from tui.widgets.histogram import Histogram
from tui.widgets.preview import MaskedPreview
from tui.wizard import Step, progress_words

if TYPE_CHECKING:
    from engine.draft import Draft

CUTOFF_STEP = 8  # tokens; a multiple of 8 keeps tensor shapes that GPUs like
FEW_BARS, MANY_BARS, TALL = 5, 12, 30  # bars of the histogram on a low and on a tall screen, and where tall begins


class DataScreen(Step):
    """Second step of a new run, second half: what is in the rows."""

    STEP = "data"
    CSS_PATH = "data.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    HELP = (
        "Lengths are counted on whole rows as the model will see them, chat template included. Rows longer than the cutoff "
        "are cut; a row that loses its end token teaches the model never to stop. Findings have a fix: f applies it, to "
        "a cleaned copy where rows change, never to your file. Bold text in the preview is trained."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "plan", "Plan", id="data.plan", tooltip="Go on to the plan"),
        Binding(
            "f", "fix", "Fix", id="data.fix", tooltip="Fix what was found: fill in, leave out, write a cleaned copy"
        ),
        Binding("space", "mark", "Mark", show=False, id="data.mark", tooltip="Mark a finding for the cleaned copy"),
        Binding("s", "bad_rows('skip')", "Skip bad rows", id="data.skip", tooltip="Leave out rows that cannot be used"),
        Binding("r", "bad_rows('repair')", "Repair", id="data.repair", tooltip="Mend rows whose meaning is plain"),
        Binding("p", "read", "Read", id="data.read", tooltip="Give the whole screen to the text, and take it back"),
        Binding("m", "mapping", "Mapping", id="data.mapping", tooltip="Say which column plays which role"),
        Binding(
            "t", "view", "Row, prompt, answer", show=False, id="data.view", tooltip="Lengths of row, prompt, answer"
        ),
        Binding("l", "log", "Log counts", show=False, id="data.log", tooltip="Logarithmic or linear counts"),
        Binding("o", "tokens", "Tokens", show=False, id="data.tokens", tooltip="Show where each token begins"),
        Binding("n", "row(1)", "Next row", show=False, id="data.next-row", tooltip="Preview the next row"),
        Binding("b", "row(-1)", "Row before", show=False, id="data.row-before", tooltip="Preview the row before"),
        Binding("g", "go_to_row", "Go to row", show=False, id="data.go-to-row", tooltip="Preview a row by its number"),
        Binding("d", "other", "Other rows", show=False, id="data.other", tooltip="Choose other rows, or mix more in"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: object = None  # the lengths that the histogram shows
        self._read: object = None  # what the preview shows
        self._of: Of = "whole"
        self._log = False
        self._tokens = False
        self._index = 0  # of the example in the preview
        self._walk: Walk | None = None  # through the rows of a finding
        self.marked: set[str] = set()  # actions that go into the cleaned copy

    def body(self) -> ComposeResult:
        yield Static("", id="summary", markup=False)
        yield Static("", id="error", markup=False)
        yield Static("", id="stats", markup=False)
        with Horizontal(id="columns"):
            with Vertical(id="left"):
                yield Histogram(step=CUTOFF_STEP, id="histogram")
                yield Static("", id="costs", markup=False)
                yield Rows(
                    id="findings",
                    verb="Look",
                    help="What was found in the rows. Enter goes through its rows, n and b step, f fixes it, space marks it.",
                )
                yield Static("", id="detail", markup=False)
            with Vertical(id="right"):
                yield Static("", id="row", markup=False)
                yield MaskedPreview(id="preview")
        yield Ask(id="ask")

    def on_mount(self) -> None:
        if not self.wizard.has_rows:
            self.call_after_refresh(self.go, "source")
        elif self.wizard.draft is None and not self.wizard.making:
            self.wizard.begin(self.wizard.picked())

    def before(self) -> str:
        return "source"

    def on_resize(self, event: events.Resize) -> None:
        self._drawn = None
        self.call_after_refresh(self.drafted)

    # showing ----------------------------------------------------------------------------------------------------

    def drafted(self) -> None:
        draft, problem = self.wizard.draft, self.wizard.error
        self.query_one("#columns").display = draft is not None
        self.query_one("#stats").display = draft is not None and not self.has_class("-reading")
        if draft is None:
            self.set_focus(None)  # what has the focus is not there to be seen
            self._walk = None
        error = self.query_one("#error", Static)
        error.display = problem is not None and draft is None
        summary = self.query_one("#summary", Static)
        if draft is not None:
            self._show(draft)
        elif problem is not None:
            summary.update(Content.styled(self._source(), "bold"))
            error.update(_problem(problem))
        else:
            summary.update(
                Content.assemble((self._source(), "bold"), (f"   {progress_words(self.wizard.progress)}", FAINT))
            )
        self.refresh_bindings()

    def _source(self) -> str:
        choice = self.wizard.choice
        if choice is None:
            return ""
        name = safe(Path(choice.data).name or choice.data) if choice.data else f"preset {safe(choice.preset)}"
        return name + (f" + {len(choice.more)} more" if choice.more else "")

    def _show(self, draft: Draft) -> None:
        self.query_one("#summary", Static).update(self._summary(draft))
        counted = draft.lengths
        histogram = self.query_one(Histogram)
        if self._drawn != (id(counted), self._of, self._log):
            self._drawn = (id(counted), self._of, self._log)
            self.query_one("#stats", Static).update(inspection.stats(counted, self._of, self._log))
            bars = FEW_BARS if self.app.size.height < TALL else MANY_BARS
            histogram.buckets = inspection.buckets(counted, bars, self._of)
            histogram.logarithmic = self._log
            histogram.most = draft.facts.context
            if self.focused is None:
                histogram.focus()
        costs = inspection.costs(draft)
        histogram.cutoff = draft.plan.settings.max_length
        wide = self.has_class("-wide")
        histogram.caption = costs.short if wide else costs.caption(histogram.caption_room)
        self.query_one("#costs", Static).update(costs.block() if wide else costs.line())
        findings = self.query_one("#findings", Rows)
        findings.show(inspection.finding_lines(draft.findings, self.marked))
        findings.display = bool(draft.findings)
        self._detail()
        self._preview(draft)

    def _summary(self, draft: Draft) -> Content:
        rows = len(draft.dataset.examples)
        if inspection.partial(draft):
            words = f"   first {rows:,} rows; {progress_words(self.wizard.progress)}"
            return Content.assemble((self._source(), "bold"), words)
        bad = len(draft.dataset.skipped)
        left = f", {bad:,} left out" if bad else ""
        counted = "exact tokens" if draft.lengths.exact else "tokens estimated"
        return Content.assemble(
            (self._source(), "bold"),
            f"   {rows:,} rows, {draft.dataset.shape.name}{left}",
            (f"   {counted} by {safe(draft.facts.name)}", FAINT),
        )

    def _detail(self) -> None:
        """Example and fix of the finding under the cursor, while the list has the focus."""
        findings, detail = self.query_one("#findings", Rows), self.query_one("#detail", Static)
        item = findings.current
        detail.display = findings.has_focus and isinstance(item, FindingLine)
        if isinstance(item, FindingLine):
            detail.update(item.detail(max(20, findings.size.width - 4), 0 if self.has_class("-wide") else 2))

    def _preview(self, draft: Draft) -> None:
        examples = draft.dataset.examples
        if not examples:
            return
        self._index %= len(examples)
        now = (id(examples), self._index, self._tokens, draft.plan.settings.max_length, self._walk, self.size)
        if self._read == now:
            return
        example = examples[self._index]
        self.query_one("#row", Static).update(inspection.row_words(draft, self._index, example, self._walk))
        preview = self.query_one(MaskedPreview)
        try:
            sides = inspection.sides(draft, example, self._tokens)
        except FtuiError as error:
            sides = [("", [(safe(error.cause), "cut")])]
        preview.show(sides, stay=isinstance(self._read, tuple) and self._read[:2] == now[:2])
        self._read = now

    # moving -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        draft, error = self.wizard.draft, self.wizard.error
        match action:
            case "plan" | "row" | "go_to_row" | "read" | "log" | "view" | "tokens":
                return draft is not None
            case "mark":
                return fixing.current(self) is not None
            case "fix":
                return draft is not None and bool(draft.findings or draft.dataset.filled)
            case "bad_rows":
                bad = draft is not None and bool(draft.dataset.skipped) and draft.choice.on_bad_row != parameters[0]
                return bad or (draft is None and error is not None and error.code == Exit.DATA_ROW)
            case "mapping":
                return draft is not None or (error is not None and error.code in (Exit.DATA_SHAPE, Exit.DATA_ROW))
        return True

    def action_plan(self) -> None:
        if self.wizard.draft is not None and inspection.partial(self.wizard.draft):
            self.notice("the plan waits until every row is counted", seconds=5)
        else:
            self.go("plan")

    def action_other(self) -> None:
        self.go("source")

    def action_previous(self) -> None:
        """Escape: out of the large preview, out of a finding's rows, then a step back."""
        if self.has_class("-reading"):
            self.action_read()
        elif self._walk is not None:
            self._walk = None
            self.drafted()
        else:
            super().action_previous()

    def action_view(self) -> None:
        if (draft := self.wizard.draft) is not None:
            names = [name for name, _ in inspection.views(draft.lengths)]
            self._of = names[(names.index(self._of) + 1) % len(names)] if self._of in names else names[0]
            self._show(draft)

    def action_log(self) -> None:
        self._log = not self._log
        self.drafted()

    def action_tokens(self) -> None:
        self._tokens = not self._tokens
        self.drafted()

    def action_read(self) -> None:
        self.toggle_class("-reading")
        self.drafted()
        self.query_one("#preview" if self.has_class("-reading") else "#histogram").focus()

    def action_row(self, step: int) -> None:
        draft = self.wizard.draft
        if draft is None:
            return
        if self._walk is None:
            self._index += step
        else:
            self._walk = self._walk.step(step)
            self._index = self._at(self._walk.row)
        self._preview(draft)

    def action_go_to_row(self) -> None:
        self.query_one(Ask).ask("row", "", self._look_at_typed, "its number", short=True)

    def _look_at_typed(self, text: str) -> None:
        if not text.replace(",", "").isdecimal():
            raise ValueError("type the number of a row")
        self._index = self._at(int(text.replace(",", "")))
        self._walk = None
        self.drafted()

    def _at(self, number: int) -> int:
        """The index of the example with this row number. Raises ValueError where there is none."""
        draft = self.wizard.draft
        examples = draft.dataset.examples if draft is not None else []
        index = bisect_left(examples, number, key=lambda example: example.row)
        if index == len(examples) or examples[index].row != number:
            raise ValueError(f"there is no row {number:,} among those that are used")
        return index

    def on_histogram_cutoff_changed(self, event: Histogram.CutoffChanged) -> None:
        if (draft := self.wizard.draft) is None:
            return
        try:
            self.wizard.edit({**draft.choice.edits, "max_length": event.cutoff})
        except FtuiError as error:
            self.error(error)

    # findings ---------------------------------------------------------------------------------------------------

    def on_rows_moved(self, event: Rows.Moved) -> None:
        self._detail()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self._detail()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter goes to the first row of a finding, and then from one to the next."""
        item, draft = event.item, self.wizard.draft
        if not isinstance(item, FindingLine) or draft is None:
            return
        if item.kind in fixing.BAD_ROWS:
            fixing.show_bad_rows(self, draft)
        elif not item.count or not item.rows:
            self.notice(item.fix or item.message)
        else:
            if self._walk is not None and self._walk.key == item.key:
                self._walk = self._walk.step(1)
            else:
                found = draft.findings[int(item.key.partition(" ")[0])]
                self._walk = Walk(item.key, found.rows, 0)
            try:
                self._index = self._at(self._walk.row)
            except ValueError as error:
                self._walk = None
                self.notice(str(error), "warning", seconds=5)
            self._preview(draft)

    def action_mark(self) -> None:
        item = fixing.current(self)
        if item is not None:
            self.marked ^= {item.action}
            self.drafted()

    def action_fix(self) -> None:
        fixing.fix(self)

    def action_bad_rows(self, what: str) -> None:
        fixing.bad_rows(self, what)

    def action_mapping(self) -> None:
        from tui.screens.mapping import MappingScreen

        self.app.push_screen(MappingScreen(self))


def _problem(problem: FtuiError) -> Content:
    """What is wrong with the rows, and which key mends it (in place of the option that the command line has for it)."""
    keys = {
        Exit.DATA_ROW: "s leaves such rows out and counts them, r mends what can be mended; escape chooses other rows",
        Exit.DATA_SHAPE: "m says which column is what; escape chooses other rows",
    }
    lines = [Content.styled(f"✗ {safe(problem.cause)}", BAD)]
    lines += [Content(f"  {safe(problem.where)}")] if problem.where else []
    lines += [Content(f"  {safe(problem.next_step)}")] if problem.next_step and problem.code not in keys else []
    lines.append(Content.styled("  " + keys.get(problem.code, "escape chooses other rows"), FAINT))
    return Content("\n").join(lines)
