"""Runs: home. What ran and what runs, and under it the presets a run can start from."""

from __future__ import annotations

from collections.abc import Callable
from time import time as now
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, Rule, Static

from tui.frame import FAINT, Frame
from tui.listing import Columns, Listing, PresetLine, RunLine, presets
from tui.rows import GUTTER, Rows
from tui.widgets.chart import LossChart
from tui.widgets.field import Field

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

DETAIL_FROM = 34  # lines of terminal from which on there is room for a chart
EMPTY = "No runs yet. Choose a preset and press enter, or n for a run of your own."


class RunsScreen(Frame):
    """Home."""

    TITLE = "ftui"
    HELP = (
        "Every run on this machine, newest first: ● runs now, ○ waits in line, ✓ ready to talk to, ■ stopped, ! went wrong. "
        "Enter opens a run, or starts one from the preset under the cursor. "
        "Runs go on without ftui: close the terminal, come back, and they are here."
    )
    CSS_PATH = "runs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New", id="runs.new", tooltip="New run: pick model and data yourself"),
        Binding("p", "presets", "Presets", id="runs.presets", tooltip="Go to the presets"),
        Binding("s", "stop", "Stop", id="runs.stop", tooltip="Stop the run after this step, with a checkpoint"),
        Binding("r", "resume", "Resume", id="runs.resume", tooltip="Go on from the newest checkpoint"),
        Binding("c", "chat", "Chat", id="runs.chat", tooltip="Talk to the tuned model"),
        Binding("x", "export", "Export", show=False, id="runs.export", tooltip="Export the result"),
        Binding(
            "m", "compare", "Compare", show=False, id="runs.compare", tooltip="Measure the result against its base"
        ),
        Binding("slash", "filter", "Filter", key_display="/", id="runs.filter", tooltip="Show only runs that match"),
        Binding("escape", "unfilter", "Show all", show=False, id="runs.unfilter"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.command = "ftui runs"
        self.listing = Listing()
        self._all: list[RunLine] | None = None
        self._reading = False

    def body(self) -> ComposeResult:
        # Disabled while hidden, else it would have the focus until the runs are read, and swallow the first key.
        yield Field(placeholder="part of a name, model or state", id="filter", disabled=True)
        yield Static("", id="columns", markup=False)
        yield Rows(id="runs", verb="Open")
        yield Static("", id="empty", markup=False)
        yield Rule(line_style="solid")
        yield Static("New run from a preset", id="from", classes="faint", markup=False)
        yield Rows(
            id="presets",
            verb="Plan it",
            help="Presets: runs that work as they come. Enter shows the plan; enter again starts it.",
        )
        # Where there is room, what the line under the cursor has no room for.
        yield Rule(line_style="solid", id="detail-rule")
        yield Static("", id="when", markup=False)
        yield LossChart(id="chart")

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one("#columns").display = False
        self.in_thread(presets, self.query_one("#presets", Rows).show)
        self.poll()
        self.set_interval(1, self.poll)

    def on_screen_resume(self) -> None:
        self._return()
        self.poll()

    # reading ----------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Read the runs in a thread, unless that is going on or nobody looks."""
        if not self._reading and self.is_current:
            self._reading = True
            self.in_thread(self._read, self.show_runs, group="listing")

    def _read(self) -> list[RunLine]:
        try:
            return self.listing.read(now())
        finally:
            self._reading = False

    def show_runs(self, lines: list[RunLine]) -> None:
        """Show what was read; draws only what changed."""
        if lines == self._all:
            return
        first = self._all is None
        self._all = lines
        self._draw()
        self._detail()
        if first:
            self.query_one("#runs" if lines else "#presets", Rows).focus()
        self._return()
        self.refresh_bindings()

    def _return(self) -> None:
        """Put the cursor on the run that the person comes from, once it is in the list."""
        run = self.ftui.visited
        if run is not None and any(line.key == run.name for line in self._all or []):
            self.ftui.visited = None
            rows = self.query_one("#runs", Rows)
            rows.put_cursor(run.name)
            rows.focus()

    def _draw(self) -> None:
        words = self.query_one("#filter", Input).value.lower().split()
        lines = [line for line in self._all or [] if all(word in line.words() for word in words)]
        self.query_one("#runs", Rows).show(lines)
        self.query_one("#columns").display = bool(lines)
        empty = self.query_one("#empty", Static)
        empty.display = not lines
        empty.update(Content.styled("No run matches. Escape shows all." if self._all else EMPTY, FAINT))

    def on_resize(self) -> None:
        body = self.query_one("#body")
        width = body.content_size.width
        self.query_one("#columns", Static).update(
            Content.styled(" " * GUTTER + Columns.of(width - GUTTER).heading(), FAINT)
        )
        # The presets keep their place at the bottom; a long list of runs scrolls above them.
        self.query_one("#runs").styles.max_height = max(3, body.content_size.height - (6 if self._short else 22))
        self._detail()

    @property
    def _short(self) -> bool:
        return self.app.size.height < DETAIL_FROM

    def _detail(self) -> None:
        """The curve of the run under the cursor, or when to use the preset."""
        rows = self.focused if isinstance(self.focused, Rows) else None
        item = None if self._short or rows is None else rows.current
        curve = self.listing.curve(item.key) if isinstance(item, RunLine) else None
        chart, when = self.query_one(LossChart), self.query_one("#when", Static)
        chart.display = curve is not None
        when.display = isinstance(item, PresetLine)
        self.query_one("#detail-rule").display = chart.display or when.display
        if curve is not None:
            chart.show(curve)
        if isinstance(item, PresetLine):
            when.update(item.when)

    # acting -----------------------------------------------------------------------------------------------------

    @property
    def line(self) -> RunLine | None:
        """The run under the cursor, while the list of runs has the focus."""
        rows = self.query_one("#runs", Rows)
        return rows.current if rows.has_focus and isinstance(rows.current, RunLine) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not self.is_mounted:
            return True
        line = self.line
        match action:
            case "stop":
                return line is not None and line.alive
            case "resume":
                return line is not None and line.resumable
            case "chat" | "export" | "compare":
                return line is not None and line.answers
            case "presets":
                return not self.query_one("#presets").has_focus
            case "filter":
                return bool(self._all)
            case "unfilter":
                return self.query_one("#filter").display
        return True

    def on_rows_moved(self, event: Rows.Moved) -> None:
        item = event.item
        if not event.rows.has_focus:
            return
        if isinstance(item, RunLine):
            self.command = f"ftui attach {item.name}" if item.alive else "ftui runs"
        elif isinstance(item, PresetLine):
            self.command = f"ftui train --preset {item.key}" + ("" if item.brings_rows else " --data FILE")
        self._detail()
        self.refresh_bindings()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        if not self.is_current:  # typed ahead: this enter was meant for the screen that stands here by now
            self.app.simulate_key("enter")
            return
        if isinstance(event.item, PresetLine):
            self.ftui.new_from_preset(event.item.key, event.item.brings_rows)
        elif (run := self.listing.run(event.item.key)) is not None:
            self.ftui.show_train(run)

    def action_new(self) -> None:
        self.ftui.wizard.reset()
        self.ftui.new_run("model")

    def action_presets(self) -> None:
        self.query_one("#presets").focus()

    def action_chat(self) -> None:
        if self.line and (run := self.listing.run(self.line.key)):
            self.ftui.show_chat(run)

    def action_export(self) -> None:
        if self.line and (run := self.listing.run(self.line.key)):
            self.ftui.show_export(run)

    def action_compare(self) -> None:
        if self.line and (run := self.listing.run(self.line.key)):
            self.ftui.show_compare(run)

    def action_stop(self) -> None:
        from engine.runs import control

        if line := self.line:
            done = f"{line.name} stops after this step and keeps a checkpoint; r goes on from there"
            if line.state == "queued":
                done = f"{line.name} leaves the line; r puts it back"
            self._control(line.key, control.stop, done)

    def action_resume(self) -> None:
        from engine.runs import control

        if line := self.line:
            self._control(
                line.key, control.resume_chain, f"{line.name} goes on from its newest checkpoint; enter watches it"
            )

    def _control(self, key: str, act: Callable[[RunDir], object], done: str) -> None:
        run = self.listing.run(key)
        if run is None:
            return

        self.in_thread(lambda: act(run), lambda _: self.notice(done, "good"), group="control")

    # filter -----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.disabled = False
        field.focus()

    def action_unfilter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        field.disabled = True
        self.query_one("#runs" if self._all else "#presets").focus()

    def on_input_changed(self) -> None:
        self._draw()

    def on_input_submitted(self) -> None:
        self.query_one("#runs").focus()
