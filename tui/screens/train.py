"""Train: the loss falls, and the model is heard to learn. Everything on it comes from the run's journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from time import time as clock
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from engine.errors import FtuiError
from engine.runs import directory, status
from engine.runs.events import ENDED, AnyEvent, Point, State
from engine.runs.journal import Reader
from engine.runs.view import RunView
from engine.text import safe, shorten
from tui.frame import BAD, FAINT, FOCUS, GOOD, MARKS, WARN, Frame
from tui.widgets import readout
from tui.widgets.chart import Curve, LossChart
from tui.widgets.meters import Meters
from tui.widgets.phases import Phase, Phases
from tui.widgets.said import Said
from tui.widgets.tail import Tail

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

POLL = 0.25  # seconds between looks at the journal
_STYLES = {"ready": GOOD, "stopped": WARN, "failed": BAD, "lost": BAD}


class TrainScreen(Frame):
    """One run, live or over."""

    TITLE = "Train"
    CSS_PATH = "train.tcss"
    AUTO_FOCUS = ""  # the log takes the focus while it is shown
    HELP = (
        "The loss of each optimizer step (dots), its smoothed course (line) and the loss on held-out rows (◆). "
        "Below it the same prompt answered as training goes on: the latest answer is the last one. "
        "Stop keeps a checkpoint, and resume goes on from it. Leaving ftui does not stop the run."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "Stop and save", id="train.stop", tooltip="Stop after this step and keep a checkpoint"),
        Binding("r", "resume", "Resume", id="train.resume", tooltip="Go on from the newest checkpoint"),
        Binding("n", "now", "Start now", id="train.now", tooltip="Do not wait in line, whatever else runs"),
        Binding("o", "offer", "Go on as offered", id="train.offer", tooltip="Go on with what the last line offers"),
        Binding("c", "chat", "Chat", id="train.chat", tooltip="Talk to the tuned model beside its base"),
        Binding("e", "export", "Export", id="train.export", tooltip="Write the result where other programs load it"),
        Binding("m", "compare", "Compare", id="train.compare", tooltip="Measure the result against its base"),
        Binding("l", "journal", "Log", id="train.log", tooltip="What the libraries printed"),
        Binding("y", "axis", "Log axis", id="train.axis", tooltip="Change the y axis between linear and logarithmic"),
        Binding("q", "leave", "Leave it running", id="train.leave", tooltip="Leave ftui; the run goes on"),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.view = RunView()
        self.status: status.Status | None = None
        self._handle = ""  # the shortest name that finds this run
        self._plan: list[str] = []
        self._reader = Reader(run.journal_path)
        self._phases: list[State] = []
        self._drawn: object = None
        self._sure = False  # the person was told what ending a run that hangs means

    def body(self) -> ComposeResult:
        yield Static(id="outcome", markup=False)
        with Vertical(id="curve"):
            with Horizontal(id="top"):
                yield LossChart(id="chart")
                yield Meters(id="meters")
            yield Said(id="said")
        with Vertical(id="before"):
            yield Phases(id="phases")
            yield Static(id="plan", markup=False)
        yield Tail(self.run.log_path, id="tail")

    def on_mount(self) -> None:
        self.heading = directory.title(self.run)
        self.query_one("#tail").display = False
        self._catch_up()

    @work(thread=True, exclusive=True, group="journal")
    def _catch_up(self) -> None:
        """A long journal takes seconds to read; the screen is on before that, and polls once it is done."""
        self._handle = directory.handle(self.run)
        with suppress(FtuiError):  # the journal tells enough without the recipe
            self._plan = readout.recipe_lines(self.run.recipe())
        first = RunView()
        if first.fold(self._reader.glimpse()):
            self.status = status.read(self.run)
            self.app.call_from_thread(self._glimpsed, first)
        whole = RunView()
        for events in self._reader.points():
            self._fold(events, whole)
        self.status = status.read(self.run)
        self.app.call_from_thread(self._begin, whole)

    def _glimpsed(self, first: RunView) -> None:
        """What a long journal looks like from afar, until all of it is read."""
        self.view = first
        self._draw()

    def _begin(self, whole: RunView) -> None:
        self.view = whole
        self.command = f"ftui attach {self._handle}"
        self.query_one("#plan", Static).update(Content("\n".join(map(safe, self._plan))))
        self._draw()
        self.set_interval(POLL, self._poll)
        self.set_interval(1, self._ask_status)

    def _fold(self, events: Iterable[AnyEvent | Point], view: RunView) -> bool:
        events = list(events)
        for event in events:
            if isinstance(event, State):
                last = self._phases[-1] if self._phases else None
                if event.state == "queued" and last is not None and last.state == "queued":
                    event = msgspec.structs.replace(event, time=last.time)  # still in line, behind others
                    self._phases.pop()
                elif event.state == "preparing" and (last is None or last.state != "queued"):
                    self._phases.clear()
                self._phases.append(event)
        return view.fold(events)

    def _poll(self) -> None:
        changed = self._fold(self._reader.poll(), self.view)
        if not self.is_current:
            return
        if self.query_one("#tail").display:
            self.query_one("#tail", Tail).poll()
        waiting = self.query_one("#before").display and self._state not in ENDED
        if changed or waiting or self._drawn is None:
            self._draw()

    @work(thread=True, exclusive=True, group="status")
    def _ask_status(self) -> None:
        found = status.read(self.run)
        before, self.status = self.status, found
        same = before is not None and (before.worker_alive, before.hung) == (found.worker_alive, found.hung)
        if found.state != self._state or not same or found.hung:  # how long it hangs grows
            self.app.call_from_thread(self._draw)

    # drawing ----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        return readout.state_of(self.view, self.status)

    @property
    def _hung(self) -> bool:
        return self.status is not None and self.status.hung

    @property
    def _ended(self) -> bool:
        return self._state in ENDED

    def on_resize(self) -> None:
        self._draw()

    def on_screen_resume(self) -> None:
        self._draw()

    def _draw(self) -> None:
        """Bring every widget up to date; each one draws again only if its part changed."""
        if not self.is_mounted:
            return
        view, state = self.view, self._state
        body = self.query_one("#body").content_size
        started = bool(len(view.steps)) or (view.start is not None and state == "training")
        tail = self.query_one("#tail").display
        self.query_one("#curve").display = started and not tail
        self.query_one("#before").display = not started and not tail and not self._ended
        self._draw_heading(state)
        lines = readout.outcome(view, self.status, state)
        outcome = self.query_one("#outcome", Static)
        outcome.display = bool(lines)
        outcome.update(Content("\n").join(_line(level, text) for level, text in lines))
        if started:
            wide = body.width >= 100
            self.set_class(wide, "-wide")
            total = view.start.total_steps if view.start else view.steps.step[-1]
            smooth = view.smoothed(readout.alpha(total))
            evaluated = [(event.step, event.loss) for event in view.evaluated]
            chart = self.query_one("#chart", LossChart)
            chart.show(Curve(view.steps.step, view.steps.loss, smooth, evaluated, total))
            last = smooth[-1] if smooth else None
            self.query_one("#meters", Meters).show(
                readout.meters(view, last, ended=self._ended or self._hung, wide=wide)
            )
            said = self.query_one("#said", Said)
            said.display = bool(view.samples)
            if view.samples:
                answers = [(sample.step, sample.answer) for sample in view.samples]
                most = max(4, min(12, (body.height - len(lines)) // 3))
                said.show(view.samples[-1].prompt, answers, most)
        else:
            self.query_one("#phases", Phases).show(self._rows())
        self._drawn = (state, view.seq)
        self.refresh_bindings()

    def _draw_heading(self, state: str) -> None:
        first, *more = readout.heading(self.view, state, self._hung)
        style = WARN if self._hung else _STYLES.get(state, FOCUS)
        name = shorten(safe(directory.title(self.run)), 24)  # a long one must not push the state off the line
        text = Content.assemble((name, "bold"), "   ", (first, style))
        for part in more:
            text += Content(f"   {safe(part)}")
        self.heading = text

    def _rows(self) -> list[Phase]:
        """The phases so far with their times; the last one goes on."""
        found = []
        now = clock()
        for index, event in enumerate(self._phases):
            later = self._phases[index + 1].time if index + 1 < len(self._phases) else now
            phase = Phase(event.state, max(0.0, later - event.time), event.detail)
            found.append(phase)
        progress = self.view.progress
        if found and progress is not None:
            share = progress.done / progress.total if progress.total else None
            words = f"{progress.done:,} of {progress.total:,} {progress.what}" if progress.total else progress.what
            found[-1] = Phase(found[-1].state, found[-1].seconds, words, share)
        return found or [Phase("preparing", 0.0)]

    # acting -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop" | "leave":
                return not self._ended
            case "resume":
                return self._state in ("stopped", "failed", "lost") or self._hung
            case "offer":
                return self._ended and self.status is not None and bool(self.status.offer)
            case "now":
                after = self.status.after if self.status is not None else []
                return self._state == "queued" and not any(name in self.view.detail for name in after)
            case "chat":
                # While it trains the worker answers between two steps.
                kept = self.view.result is not None or bool(self.view.checkpoints)
                return kept if self._ended else bool(len(self.view.steps)) and self._state != "queued"
            case "export" | "compare":
                return self.view.result is not None and self._ended
            case "axis":
                return bool(len(self.view.steps))
        return True

    def action_stop(self) -> None:
        from engine.runs import control

        queued = self._state == "queued"
        done = "out of the line; r puts it back" if queued else "stopping after this step; a checkpoint is kept"
        self._control(control.stop, done)

    def action_resume(self) -> None:
        from engine.runs import control

        going = "going on from the newest checkpoint"
        if not self._hung:
            self._control(control.resume_chain, going)
        elif self._sure:
            self._control(partial(control.resume_chain, force=True), going)
        else:
            kept = f"step {self.view.checkpoints[-1].step}" if self.view.checkpoints else "step 0"
            self.notice(f"r again ends its worker; what came after {kept} is done again", "warning")
        self._sure = self._hung and not self._sure

    def action_now(self) -> None:
        from engine.runs import control

        self._control(partial(control.resume, now=True), "starting at once")

    def action_offer(self) -> None:
        from engine.runs import control

        offer = self.status.offer if self.status is not None else {}
        words = ", ".join(f"{name} {value}" for name, value in offer.items())
        self._control(partial(control.resume_chain, edits=offer), f"going on from the newest checkpoint with {words}")

    @work(thread=True, group="control")
    def _control(self, act: Callable[[RunDir], object], done: str) -> None:
        try:
            act(self.run)
        except (FtuiError, OSError) as error:
            self.app.call_from_thread(self.error, error)
        else:
            self.status = status.read(self.run)
            self.app.call_from_thread(self.notice, done, "good")

    def action_chat(self) -> None:
        self.ftui.show_chat(self.run)

    def action_export(self) -> None:
        self.ftui.show_export(self.run)

    def action_compare(self) -> None:
        self.ftui.show_compare(self.run)

    def action_journal(self) -> None:
        tail = self.query_one("#tail", Tail)
        tail.display = not tail.display
        if tail.display:
            tail.poll()
            tail.focus()
            self.command = f"ftui logs {self._handle}"
        else:
            self.set_focus(None)
            self.command = f"ftui attach {self._handle}"
        self._draw()

    def action_axis(self) -> None:
        chart = self.query_one("#chart", LossChart)
        chart.log_axis = not chart.log_axis

    async def action_leave(self) -> None:
        await self.ftui.action_quit()

    def action_back(self) -> None:
        """Escape closes the log first."""
        if self.query_one("#tail").display:
            self.action_journal()
        else:
            super().action_back()


def _line(level: str, text: str) -> Content:
    """A line of the outcome: glyph and words; what follows a problem is indented below it."""
    if level == "more":
        return Content.assemble("  ", (safe(text), FAINT))
    glyph, style = MARKS[level]
    return Content.assemble((glyph, style), " ", (safe(text), style))
