"""Data: what is in the rows. Token lengths with a movable cutoff, findings with their fixes, and the exact text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from engine.errors import Exit, FtuiError
from engine.text import plural, safe
from tui import inspection
from tui.ask import Ask
from tui.frame import BAD, FAINT
from tui.inspection import FindingLine, Of
from tui.rows import Rows
from tui.screens import fixing
from tui.screens.reading import Reading
from tui.screens.source import short
from tui.spoken import spoken
from tui.widgets.histogram import Histogram
from tui.wizard import Step

if TYPE_CHECKING:
    from engine.data.findings import Finding
    from engine.draft import Draft

CALM = 0.3  # seconds that the cutoff rests before findings follow it
CUTOFF_STEP = 8  # tokens; a multiple of 8 keeps tensor shapes that GPUs like


class DataScreen(Step):
    """Second step of a new run, second half: what is in the rows."""

    TITLE = "Data"
    STEP = "data"
    CSS_PATH = "data.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (34, "-tall")]
    HELP = (
        "Lengths are counted on whole rows as the model will see them, chat template included. Rows longer than the cutoff "
        "are cut; a row that loses its end token teaches the model never to stop. Findings have a fix: f applies it, to "
        "a cleaned copy where rows change, never to your file. Bold text in the preview is trained."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "plan", "Plan", id="data.plan", tooltip="Go on to the plan"),
        Binding("f", "fix", "Fix", id="data.fix", tooltip="Fix what was found: leave out, write a cleaned copy"),
        Binding("f", "fill", "Fill in", id="data.fill", tooltip="Say what stands in for placeholders"),
        Binding("space", "mark", "Mark", id="data.mark", tooltip="Mark a finding for the cleaned copy"),
        Binding("s", "bad_rows('skip')", "Skip bad rows", id="data.skip", tooltip="Leave out rows that cannot be used"),
        Binding("r", "bad_rows('repair')", "Repair", id="data.repair", tooltip="Mend rows whose meaning is plain"),
        Binding("p", "read", "Read", id="data.read", tooltip="Give the whole screen to the text, and take it back"),
        Binding("m", "mapping", "Mapping", id="data.mapping", tooltip="Say which column plays which role"),
        Binding(
            "t", "view", "Row, prompt, answer", show=False, id="data.view", tooltip="Lengths of row, prompt, answer"
        ),
        Binding("l", "log", "Log counts", show=False, id="data.log", tooltip="Logarithmic or linear counts"),
        Binding("o", "text('tokens')", "Tokens", show=False, id="data.tokens", tooltip="Show where each token begins"),
        Binding(
            "a", "text('answer')", "Answer", show=False, id="data.answer", tooltip="Begin the preview at the answer"
        ),
        Binding("n", "row(1)", "Next row", show=False, id="data.next-row", tooltip="Preview the next row"),
        Binding("b", "row(-1)", "Row before", show=False, id="data.row-before", tooltip="Preview the row before"),
        Binding("g", "go_to_row", "Go to row", show=False, id="data.go-to-row", tooltip="Preview a row by its number"),
        Binding("d", "other", "Other rows", id="data.other", tooltip="Choose other rows, or mix more in"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: Draft | None = None
        self._drawn: object = None  # the lengths that the histogram shows, and how
        self._of: Of = "whole"
        self._log = False
        self._found: tuple[object, int] = ((), 0)  # which findings are shown: those of a draft, for a cutoff
        self._calm: Timer | None = None
        self.findings: list[Finding] = []
        self.marked: set[str] = set()  # actions that go into the cleaned copy

    def body(self) -> ComposeResult:
        yield Static("", id="summary", markup=False)
        yield Static("", id="progress", markup=False)
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
            yield Reading(id="reading")
        yield Ask(id="ask")

    def on_mount(self) -> None:
        if self.wizard.making or self.wizard.draft is not None:
            return
        if not self.wizard.has_rows:
            self.call_after_refresh(self.go, "source")
        else:
            self.wizard.begin(self.wizard.picked())

    def before(self) -> str:
        return "source"

    def on_resize(self, event: events.Resize) -> None:
        self._drawn = None
        self.call_after_refresh(self._again)

    # showing ----------------------------------------------------------------------------------------------------

    def drafted(self) -> None:
        draft, problem = self.wizard.draft, self.wizard.error
        self.query_one("#columns").display = draft is not None
        self.query_one("#stats").display = draft is not None and not self.has_class("-reading")
        if draft is None:
            self.set_focus(None)  # what has the focus is not there to be seen
        error = self.query_one("#error", Static)
        error.display = problem is not None and draft is None
        progress = self.query_one("#progress", Static)
        progress.display = self.wizard.making
        progress.update(inspection.going_on(self.wizard.progress, self.wizard.rate))
        if draft is None:
            self.query_one("#summary", Static).update(Content.styled(self._source(), "bold"))
            if problem is not None:
                error.update(_problem(problem))
        elif draft is not self._shown:  # else only the progress has changed
            self._show(draft)
        self._shown = draft
        self.refresh_bindings()

    def _again(self) -> None:
        """Show the draft anew: something about how it is shown has changed."""
        if self.query("#columns"):  # else the person has gone on in the meantime, and it is being taken down
            self._shown = None
            self.drafted()

    def _source(self) -> str:
        choice = self.wizard.choice
        if choice is None:
            return ""
        name = short(choice.data) if choice.data else f"preset {safe(choice.preset)}"
        return name + (f" + {len(choice.more)} more" if choice.more else "")

    def _show(self, draft: Draft) -> None:
        self.query_one("#summary", Static).update(self._summary(draft))
        counted = draft.lengths
        histogram = self.query_one(Histogram)
        if self._drawn != (now := (counted, self._of, self._log)):
            self._drawn = now
            width = self.query_one("#body").content_size.width - 2
            self.query_one("#stats", Static).update(inspection.stats(counted, self._of, self._log, width))
            histogram.buckets = inspection.buckets(counted, bars(self.app.size.height), self._of)
            histogram.logarithmic = self._log
            histogram.most = draft.facts.context
            if self.focused is None:
                histogram.focus()
        costs = inspection.costs(draft)
        histogram.cutoff = draft.plan.settings.max_length
        histogram.beyond = counted.distribution(self._of).count_over(draft.plan.settings.max_length)
        roomy = self.has_class("-wide") and self.has_class("-tall")
        histogram.captions = (costs.short,) if roomy else (costs.cut, costs.brief)
        self.query_one("#costs", Static).update(costs.block() if roomy else costs.line())
        self._find(draft)
        self.query_one(Reading).show(draft)

    def _summary(self, draft: Draft) -> Content:
        rows = len(draft.dataset.examples)
        first = "first " if draft.partial else ""
        bad = len(draft.dataset.skipped)
        left = ""
        if bad:
            left = f", {bad:,} {'cannot be used' if draft.choice.on_bad_row == 'abort' else 'left out'}"
        counted = "exact tokens" if draft.lengths.exact else "tokens estimated"
        return Content.assemble(
            (self._source(), "bold"),
            f"   {first}{plural(rows, 'row')}, {draft.dataset.shape.name}{left}",
            (f"   {counted} by {safe(draft.facts.name)}", FAINT),
        )

    def _find(self, draft: Draft) -> None:
        """The findings. Those about the cutoff follow a moment after it has come to rest."""
        cutoff = draft.plan.settings.max_length
        if self._found[0] is not draft.findings:
            self._found, self.findings = (draft.findings, cutoff), inspection.findings_at(draft, cutoff)
        elif self._found[1] != cutoff:
            if self._calm is not None:
                self._calm.stop()
            self._calm = self.set_timer(CALM, self._find_again)
        findings = self.query_one("#findings", Rows)
        findings.show(inspection.finding_lines(self.findings, self.marked))
        findings.display = bool(self.findings)
        self._detail()

    def _find_again(self) -> None:
        if self.wizard.draft is not None:
            self._found = ((), 0)
            self._find(self.wizard.draft)

    def _detail(self) -> None:
        """Example and fix of the finding under the cursor, while the list has the focus."""
        findings, detail = self.query_one("#findings", Rows), self.query_one("#detail", Static)
        item = findings.current
        detail.display = self.focused is findings and isinstance(item, FindingLine)
        if isinstance(item, FindingLine):
            detail.update(item.detail(max(20, findings.size.width - 4), 0 if self.has_class("-tall") else 2))

    # moving -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        draft, error = self.wizard.draft, self.wizard.error
        match action:
            case "plan" | "row" | "go_to_row" | "read" | "log" | "view" | "text":
                return draft is not None
            case "mark":
                return fixing.current(self) is not None
            case "fix":
                return draft is not None and bool(self.findings) and not fixing.fills(self)
            case "fill":
                return fixing.fills(self)
            case "bad_rows":
                if draft is not None:
                    return bool(draft.dataset.skipped) and draft.choice.on_bad_row != parameters[0]
                mendable = error is not None and error.code in (Exit.DATA_ROW, Exit.DATA_SYNTAX)
                return mendable and parameters[0] == "repair" and self.wizard.picked().on_bad_row != "repair"
            case "mapping":
                return draft is not None or (error is not None and error.code in (Exit.DATA_SHAPE, Exit.DATA_ROW))
        return True

    def action_plan(self) -> None:
        if self.wizard.draft is not None and self.wizard.draft.partial:
            self.notice("the plan waits until every row is counted", seconds=5)
        else:
            self.go("plan")

    def action_other(self) -> None:
        self.go("source")

    def action_previous(self) -> None:
        """Escape: out of the large preview, out of a finding's rows, then a step back."""
        if self.has_class("-reading"):
            self.action_read()
        elif not self.query_one(Reading).leave():
            super().action_previous()

    def action_view(self) -> None:
        if (draft := self.wizard.draft) is not None:
            names = [name for name, _ in inspection.views(draft.lengths)]
            self._of = names[(names.index(self._of) + 1) % len(names)] if self._of in names else names[0]
            self._again()

    def action_log(self) -> None:
        self._log = not self._log
        self._again()

    def action_text(self, what: str) -> None:
        """Of the text: "tokens" told apart, or from the "answer" on."""
        reading = self.query_one(Reading)
        setattr(reading, what, not getattr(reading, what))
        self._again()

    def action_read(self) -> None:
        self.toggle_class("-reading")
        self._again()
        self.query_one("#preview" if self.has_class("-reading") else "#histogram").focus()

    def action_row(self, step: int) -> None:
        self.query_one(Reading).step(step)

    def action_go_to_row(self) -> None:
        def take(text: str) -> None:
            number = text.replace(",", "")
            if not number.isdecimal():
                raise ValueError("type the number of a row")
            self.query_one(Reading).go_to(int(number))

        self.query_one(Ask).ask("row", "", take, "its number", short=True)

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
        self.refresh_bindings()

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
            try:
                self.query_one(Reading).go_through(item.key, self.findings[item.index].rows)
            except ValueError as error:
                self.notice(str(error), "warning", seconds=5)

    def action_mark(self) -> None:
        item = fixing.current(self)
        if item is not None:
            self.marked ^= {item.action}
            self._again()

    def action_fix(self) -> None:
        fixing.fix(self)

    def action_fill(self) -> None:
        fixing.fill_in(self)

    def action_bad_rows(self, what: str) -> None:
        fixing.bad_rows(self, what)

    def action_mapping(self) -> None:
        from tui.screens.mapping import MappingScreen

        self.app.push_screen(MappingScreen(self))


def bars(height: int) -> int:
    """Bars of the histogram on a screen of so many lines: the text below wants its part."""
    return max(3, min(12, (height - 14) // 2))


def _problem(problem: FtuiError) -> Content:
    """What is wrong with the rows, and which key mends it (in place of the option that the command line has for it)."""
    keys = {
        Exit.DATA_ROW: "r mends what can be mended, m says which column is what; escape chooses other rows",
        Exit.DATA_SYNTAX: "r mends what can be mended; escape chooses other rows",
        Exit.DATA_SHAPE: "m says which column is what; escape chooses other rows",
    }
    lines = [Content.styled(f"✗ {safe(problem.cause)}", BAD)]
    lines += [Content(f"  {safe(problem.where)}")] if problem.where else []
    lines += [Content(f"  {safe(spoken(problem.next_step))}")] if problem.next_step and problem.code not in keys else []
    lines.append(Content.styled("  " + keys.get(problem.code, "escape chooses other rows"), FAINT))
    return Content("\n").join(lines)
