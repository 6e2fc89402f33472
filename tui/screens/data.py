"""Data: what is in the rows. Token lengths with a movable cutoff, findings, and the exact text the model will see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from engine.errors import Exit, FtuiError
from engine.text import safe, shorten
from tui.ask import Ask
from tui.frame import BAD, FAINT, WARN
from tui.rows import Rows
from tui.widgets.histogram import Histogram
from tui.widgets.preview import MaskedPreview
from tui.wizard import Step, progress_words

if TYPE_CHECKING:
    from engine.data.lengths import Lengths
    from engine.draft import Draft

CUTOFF_STEP = 8  # tokens; a multiple of 8 keeps tensor shapes that GPUs like
ROWS_SHOWN = 6  # row numbers named in a finding before "…"


class FindingLine(Struct, frozen=True):
    key: str
    level: str
    message: str
    fix: str
    rows: tuple[int, ...]

    def line(self, width: int) -> Content:
        glyph, colour = ("!", WARN) if self.level == "problem" else ("·", FAINT)
        numbers = ", ".join(map(str, self.rows[:ROWS_SHOWN])) + (" …" if len(self.rows) > ROWS_SHOWN else "")
        detail = f"  rows {numbers}" if numbers else ""
        message = shorten(self.message, width - 2)
        return Content.assemble(
            (glyph, colour), " ", message, (shorten(detail, max(0, width - 2 - len(message))), FAINT)
        )


class DataScreen(Step):
    """Second step of a new run, second half: what is in the rows."""

    STEP = "data"
    CSS_PATH = "data.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    HELP = (
        "Lengths are counted on whole rows as the model will see them, chat template included. Rows longer than the cutoff "
        "are cut; a row that loses its end token teaches the model never to stop. Bold text in the preview is trained."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "plan", "Plan", id="data.plan", tooltip="Go on to the plan"),
        Binding("f", "fill", "Fill in", id="data.fill", tooltip="Say what stands in for {{placeholders}}"),
        Binding("k", "skip", "Leave bad rows out", id="data.skip", tooltip="Leave out rows that cannot be used"),
        Binding("n", "row(1)", "Next row", id="data.next-row", tooltip="Preview the next row"),
        Binding("b", "row(-1)", "Row before", show=False, id="data.row-before"),
        Binding("g", "go_to_row", "Go to row", show=False, id="data.go-to-row"),
        Binding("m", "mapping", "Mapping", id="data.mapping", tooltip="Say how columns become prompt and answer"),
        Binding("d", "other", "Other rows", id="data.other", tooltip="Choose other rows"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: object = None  # the lengths that the histogram shows
        self._row = 0  # index of the example in the preview

    def body(self) -> ComposeResult:
        yield Static("", id="summary", markup=False)
        yield Static("", id="error", markup=False)
        yield Static("", id="stats", markup=False)
        with Horizontal(id="columns"):
            with Vertical(id="left"):
                yield Histogram(step=CUTOFF_STEP, id="histogram")
                yield Rows(
                    id="findings",
                    verb="Look",
                    help="What was found in the rows. Enter shows its rows one after the other.",
                )
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

    # showing ----------------------------------------------------------------------------------------------------

    def drafted(self) -> None:
        draft, problem = self.wizard.draft, self.wizard.error
        for part in ("#columns", "#stats"):
            self.query_one(part).display = draft is not None
        if draft is None:
            self.set_focus(None)  # what has the focus is not there to be seen
        error = self.query_one("#error", Static)
        error.display = problem is not None
        summary = self.query_one("#summary", Static)
        if problem is not None:
            summary.update(Content.styled(self._source(), "bold"))
            error.update(self._problem(problem))
        elif draft is None:
            summary.update(
                Content.assemble((self._source(), "bold"), (f"   {progress_words(self.wizard.progress)}", FAINT))
            )
        else:
            self._show(draft)
        self.refresh_bindings()

    def _problem(self, problem: FtuiError) -> Content:
        lines = [Content.styled(f"✗ {safe(problem.cause)}", BAD)]
        lines += [Content(f"  {safe(line)}") for line in (problem.where, problem.next_step) if line]
        if problem.code == Exit.DATA_ROW:
            lines.append(Content.styled("  k leaves such rows out and counts them; escape chooses other rows", FAINT))
        elif problem.code == Exit.DATA_SHAPE:
            lines.append(
                Content.styled("  m says how columns become prompt and answer; escape chooses other rows", FAINT)
            )
        else:
            lines.append(Content.styled("  escape goes back", FAINT))
        return Content("\n").join(lines)

    def _source(self) -> str:
        choice = self.wizard.choice
        if choice is None:
            return ""
        return safe(Path(choice.data).name if choice.data else f"preset {choice.preset}")

    def _show(self, draft: Draft) -> None:
        rows = len(draft.dataset.examples)
        skipped = f", {len(draft.dataset.skipped)} left out" if draft.dataset.skipped else ""
        exact = "exact" if draft.lengths.exact else "an estimate"
        self.query_one("#summary", Static).update(
            Content.assemble(
                (self._source(), "bold"),
                f"   {rows:,} rows, {draft.dataset.shape.name}{skipped}",
                (f"   tokens by {shorten(safe(draft.facts.name), 24)}, {exact}", FAINT),
            )
        )
        cutoff = draft.plan.settings.max_length
        counted = draft.lengths
        histogram = self.query_one(Histogram)
        if self._drawn is not counted:
            self._drawn = counted
            self.query_one("#stats", Static).update(stats(counted))
            histogram.buckets = buckets(counted, 6 if self.app.size.height < 30 else 12)
            histogram.most = draft.facts.context
            if self.focused is None:
                histogram.focus()
        histogram.cutoff = cutoff
        histogram.caption = caption(counted, cutoff, draft.plan.settings.micro_batch)
        findings = [
            FindingLine(f"{index} {f.kind}", f.level, safe(f.message), safe(f.fix), tuple(f.rows))
            for index, f in enumerate(draft.findings)
        ]
        self.query_one("#findings", Rows).show(findings)
        self._preview(draft)

    def _preview(self, draft: Draft) -> None:
        from engine.data import preview

        examples = draft.dataset.examples
        if not examples:
            return
        self._row %= len(examples)
        example = examples[self._row]
        self.query_one("#row", Static).update(
            Content.assemble(
                (f"row {example.row:,}", "bold"),
                (f" of {len(examples):,}, as the model sees it; bold is trained", FAINT),
            )
        )
        self.query_one(MaskedPreview).show(preview.pieces(example, draft.tokenizer))

    # acting -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        wizard = self.wizard
        match action:
            case "plan" | "row" | "go_to_row":
                return wizard.draft is not None
            case "fill":
                return wizard.draft is not None and bool(
                    wizard.draft.dataset.placeholders or wizard.draft.dataset.filled
                )
            case "skip":
                return wizard.error is not None and wizard.error.code == Exit.DATA_ROW
            case "mapping":
                return wizard.draft is not None or (wizard.error is not None and wizard.error.code == Exit.DATA_SHAPE)
        return True

    def action_plan(self) -> None:
        self.go("plan")

    def action_other(self) -> None:
        self.go("source")

    def action_row(self, step: int) -> None:
        if self.wizard.draft is not None:
            self._row += step
            self._preview(self.wizard.draft)

    def action_go_to_row(self) -> None:
        self.query_one(Ask).ask("row", "", lambda text: self._look_at(int(text)))

    def _look_at(self, number: int) -> None:
        """Preview the row with this number. Raises ValueError where there is none."""
        draft = self.wizard.draft
        rows = [example.row for example in draft.dataset.examples] if draft else []
        if number not in rows or draft is None:
            raise ValueError(f"there is no row {number}")
        self._row = rows.index(number)
        self._preview(draft)

    def on_histogram_cutoff_changed(self, event: Histogram.CutoffChanged) -> None:
        if (draft := self.wizard.draft) is None:
            return
        try:
            self.wizard.edit({**draft.choice.edits, "max_length": event.cutoff})
        except FtuiError as error:
            self.error(error)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        item = event.item
        if isinstance(item, FindingLine) and item.rows:
            draft = self.wizard.draft
            shown = draft.dataset.examples[self._row].row if draft else 0
            # Enter again walks through the rows of a finding.
            after = item.rows.index(shown) + 1 if shown in item.rows else 0
            try:
                self._look_at(item.rows[after % len(item.rows)])
            except ValueError as error:
                self.notice(str(error), "warning", seconds=5)
        elif isinstance(item, FindingLine):
            self.notice(item.fix or item.message)

    def action_skip(self) -> None:
        self.wizard.begin(msgspec.structs.replace(self.wizard.picked(), on_bad_row="skip"))

    def action_fill(self) -> None:
        """Ask for the value of each placeholder, one after the other."""
        if (draft := self.wizard.draft) is not None:
            names = sorted({**draft.dataset.placeholders, **draft.dataset.filled})
            fill_values(self, names, dict(draft.recipe.data.values))

    def action_mapping(self) -> None:
        ask = self.query_one(Ask)
        choice = self.wizard.picked()

        def completion(prompt: str) -> None:
            if not prompt:
                self.wizard.begin(msgspec.structs.replace(choice, prompt=None, completion=None))
                return
            ask.ask("answer", choice.completion or "", lambda text: done(prompt, text), "as in {summary}")

        def done(prompt: str, text: str) -> None:
            if not text:
                raise ValueError("the answer needs a template too")
            self.wizard.begin(msgspec.structs.replace(choice, prompt=prompt, completion=text))

        ask.ask("prompt", choice.prompt or "", completion, "as in Summarise: {dialogue}")


def fill_values(screen: Step, names: list[str], values: dict[str, str]) -> None:
    """Ask for each placeholder's value, then make the draft anew."""
    ask = screen.query_one(Ask)

    def take(text: str) -> None:
        if not text:
            raise ValueError("this cannot be empty")
        values[names[0]] = text
        rest = names[1:]
        if rest:
            fill_values(screen, rest, values)
        else:
            screen.wizard.begin(msgspec.structs.replace(screen.wizard.picked(), values=values))

    ask.ask(names[0], values.get(names[0], ""), take)


def buckets(lengths: Lengths, most: int) -> tuple[tuple[int, int, int], ...]:
    """At most `most` buckets (from, to, rows) of a round width, from the shortest row on.

    A few very long rows do not flatten all others into one bar: the last bucket then holds what is longer.
    """
    longest = lengths.max if lengths.max <= 3 * lengths.percentile(99) else lengths.percentile(99) * 5 // 4
    shortest = min(lengths.total, default=0)
    width = 2
    while longest // width - shortest // width >= most:
        width *= 2
    count = longest // width + 1
    return tuple(lengths.histogram(count, width * count - 1)[shortest // width :])


def stats(lengths: Lengths) -> Content:
    """The spread of lengths in one line: whole rows, and the part of them that is trained."""
    parts: list[str | tuple[str, str]] = [("tokens a row", FAINT)]
    for name, value in (
        ("p50", lengths.percentile(50)),
        ("p95", lengths.percentile(95)),
        ("p99", lengths.percentile(99)),
        ("max", lengths.max),
    ):
        parts += [(f"  {name} ", FAINT), (f"{value:,}", "bold")]
    trained = sorted(lengths.completion)
    if trained:
        parts += [("   trained  p50 ", FAINT), (f"{trained[(len(trained) - 1) // 2]:,}", "bold")]
        parts += [("  max ", FAINT), (f"{trained[-1]:,}", "bold")]
    return Content.assemble(*parts)


def caption(lengths: Lengths, cutoff: int, micro_batch: int) -> str:
    """What the cutoff costs, in words."""
    cut = lengths.at(cutoff)
    if cut.rows_cut:
        words = f"{cut.rows_cut:,} row{'s' if cut.rows_cut != 1 else ''} cut"
        if cut.lose_end:
            words += f", {cut.lose_end:,} lose{'s' if cut.lose_end == 1 else ''} the end token"
        if cut.untrained:
            words += f", {cut.untrained:,} with nothing left to train"
        elif cut.trained_lost_fraction >= 0.0005:
            words += f", {cut.trained_lost_fraction:.1%} of trained tokens"
    else:
        words = "nothing is cut"
    padding = cut.padding_fraction(micro_batch)
    return words + (f"; {padding:.0%} padding in batches of {micro_batch}" if micro_batch > 1 else "")
