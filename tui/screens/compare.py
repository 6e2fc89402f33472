"""Compare: rows with known answers, given to the base model and to the tuned one, or to two runs. The worker measures; here
it is asked for and read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from msgspec import Struct
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from engine.choice import absolute
from engine.errors import FtuiError
from engine.runs import control, directory, measured, measuring, scoreboard, silence, status
from engine.runs.events import Progress
from engine.runs.measured import Asked
from engine.runs.scoreboard import Compared
from engine.text import safe, shorten
from tui.frame import BASE, FAINT, FOCUS, TUNED, WARN, Frame
from tui.listing import pad
from tui.widgets.field import Field

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

Part = Literal["form", "progress", "found", "nothing"]
LONGEST_NAME = 16  # cells of a run's name over its column


class Found(Struct):
    """What there is of a run when its screen opens.

    nothing  why there is nothing to measure
    bare     it has no rows of its own
    going    what a worker is asked at the moment
    """

    handle: str
    nothing: str = ""
    bare: bool = False
    going: Asked | None = None
    results: list[Compared] = []


class CompareScreen(Frame):
    """What one run has learned, in numbers and in answers."""

    TITLE = "Compare"
    CSS_PATH = "compare.tcss"
    AUTO_FOCUS = ""  # what is focused depends on what there is
    HELP = (
        "Rows whose answers are known are given to the base model and to the tuned one; against another run, to both. "
        "Loss: how unlikely the known answer is, in nats a token. ROUGE and BLEU: how near the model's own answer comes. "
        "General: plain questions that are always the same, so that forgetting shows. 95 % within: the range that the "
        "difference keeps to in 95 of 100 draws from these rows; where 0 lies outside, they tell the models apart. Answers "
        "shows each prompt with what both said; Rate blind hides whose answer is whose."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+e", "measure", "Measure", key_display="enter", priority=True, id="compare.measure"),
        Binding("s", "stop", "Stop", id="compare.stop", tooltip="End the measuring that goes on"),
        Binding("a,enter", "answers", "Answers", id="compare.answers", tooltip="Each prompt with both answers"),
        Binding("b", "blind", "Rate blind", id="compare.blind", tooltip="Say which answer is better, names hidden"),
        Binding("n", "again", "Measure others", id="compare.again", tooltip="Other rows, or against another run"),
        Binding("escape", "back", "Back", id="compare.back"),
    ]

    part: reactive[Part] = reactive("nothing", init=False)

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.results: list[Compared] = []
        self._handle = run.name
        self._asked = Asked()
        self._other: RunDir | None = None
        self._at = run  # whose worker is at work
        self._far: tuple[str, Progress] | None = None

    def body(self) -> ComposeResult:
        yield Static(id="nothing", markup=False)
        with Vertical(id="form"):
            for name, value, hint in (
                ("rows", "50", "so many at most, drawn by the run's seed"),
                ("tokens", "128", "longest answer in new tokens"),
                ("data", "", "file of rows; empty: held-out rows"),
                ("against", "", "other run; empty: base against tuned"),
            ):
                with Horizontal(classes="field"):
                    yield Static(name, classes="label", markup=False)
                    yield Field(value, id=name)
                    yield Static(hint, classes="hint", id=f"hint-{name}", markup=False)
            yield Static(id="promise", markup=False)
        yield Static(id="progress", markup=False)
        with VerticalScroll(id="found"):
            yield Static(id="table", markup=False)

    def on_mount(self) -> None:
        self._show_parts()
        self.query_one("#promise", Static).update(
            Content.styled("Enter starts. It goes on in the background if you leave this screen.", FAINT)
        )
        self.in_thread(self._look, self._begin)

    # what there is ------------------------------------------------------------------------------------------------

    def _look(self) -> Found:
        """In a thread: what there is of this run, or why there is nothing."""
        now, handle = status.read(self.run), directory.handle(self.run)
        if self.run.result is None:
            return Found(handle, nothing=f"{handle} has nothing to compare yet: it is {now.state}")
        recipe = self.run.recipe()
        if recipe.stage == "reward":
            return Found(handle, results=[scoreboard.ranked(self.run)])
        bare = bool(measured.without_rows(recipe)) and not silence.fills(recipe)
        job = measuring.under_way(self.run)
        if job is not None:
            given = {name: value for name, value in job.options.items() if name != "key"}
            return Found(handle, bare=bare, going=msgspec.convert(given, Asked))
        kept = measured.newest(self.run)
        return Found(handle, bare=bare, results=[scoreboard.of(self.run, kept)] if kept else [])

    def _begin(self, found: Found) -> None:
        self._handle, self.results = found.handle, found.results
        self.heading = Content.assemble((shorten(safe(directory.title(self.run)), 40), "bold"), "   compare")
        if found.nothing:
            self.query_one("#nothing", Static).update(
                Content.styled(f"{safe(found.nothing)}\nEscape goes back.", FAINT)
            )
            self.command = f"ftui attach {self._handle}"
            return
        if found.bare:
            self.query_one("#hint-data", Static).update("file of rows; empty: questions alone")
        if found.going is not None:
            self._start(found.going, None, again=False)
        elif found.results:
            self._arrived(found.results)
        else:
            self.part = "form"

    # the form -----------------------------------------------------------------------------------------------------

    def watch_part(self) -> None:
        self._show_parts()
        if self.part == "form":
            self.query_one("#rows", Input).focus()
        elif self.part == "found":
            self.query_one("#found").focus()
        self._say_command()
        self.refresh_bindings()

    def _show_parts(self) -> None:
        for part in ("nothing", "form", "progress", "found"):
            self.query_one(f"#{part}").display = part == self.part
        self.query_one("#form").disabled = self.part != "form"

    def on_input_changed(self) -> None:
        self._say_command()

    def on_input_submitted(self) -> None:
        self.action_measure()

    def _given(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _words(self) -> dict[str, str]:
        """What was asked last, as the form has it."""
        asked, other = self._asked, directory.handle(self._other) if self._other else ""
        return {
            "rows": str(asked.rows or 50),
            "tokens": str(asked.max_tokens),
            "data": asked.data or "",
            "against": other,
        }

    def _say_command(self) -> None:
        if self.part == "nothing":
            return
        here = self.part == "form"
        asked = {name: self._given(name) if here else value for name, value in self._words().items()}
        parts = ["ftui evaluate", shlex.quote(self._handle)]
        for name, option, usual in (
            ("data", "--data", ""),
            ("rows", "--rows", "50"),
            ("tokens", "--max-tokens", "128"),
            ("against", "--against", ""),
        ):
            if asked[name] not in ("", usual):
                parts.append(f"{option} {shlex.quote(asked[name])}")
        self.command = " ".join(parts)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "measure":
                return self.part == "form"
            case "stop":
                return self.part == "progress"
            case "answers" | "blind":
                some = scoreboard.pairs if action == "answers" else scoreboard.to_rate
                return self.part == "found" and bool(some(self.results))
            case "again":
                return self.part == "found" and self.results[0].found is not None
        return True

    def action_again(self) -> None:
        """The form, with what was asked last."""
        for name, value in self._words().items():
            self.query_one(f"#{name}", Input).value = value
        self.part = "form"

    def action_back(self) -> None:
        """Escape leaves the form for what was measured, else the screen."""
        if self.part == "form" and self.results:
            self.part = "found"
        else:
            super().action_back()

    def action_measure(self) -> None:
        """Start it, or say what is wrong with the form where it is wrong."""
        if self.part != "form":
            return
        for name in ("rows", "tokens"):
            if not self._given(name).isdecimal() or int(self._given(name)) < 1:
                self.query_one(f"#{name}").focus()
                self.notice(f"{name} is a whole number from 1 on", "warning")
                return
        data = self._given("data")
        asked = Asked(
            data=absolute(data) if data else None, rows=int(self._given("rows")), max_tokens=int(self._given("tokens"))
        )
        self.notice("")
        self._start(asked, self._given("against") or None, again=False)

    # the work -----------------------------------------------------------------------------------------------------

    def _start(self, asked: Asked, against: str | None, *, again: bool) -> None:
        self._asked, self._far, self._other, self._at = asked, None, None, self.run
        self.part = "progress"
        self._draw_progress()
        self.run_worker(partial(self._measure, asked, against, again), thread=True, group="measure", exclusive=True)

    def _measure(self, asked: Asked, against: str | None, again: bool) -> None:
        """In a thread: follow the worker until it is done, or nobody looks any more."""
        worker = get_current_worker()

        def tell(what: object, *given: object) -> None:
            if not worker.is_cancelled:
                self.app.call_from_thread(lambda: self.is_attached and what(*given))  # type: ignore[operator]

        try:
            self._other = directory.find(against) if against else None
            steps = measuring.compare(self.run, asked, self._other, again=again)
            said = None
            while not worker.is_cancelled:
                try:
                    far = next(steps)
                except StopIteration as done:
                    tell(self._arrived, done.value)
                    return
                if far != said:
                    said = far
                    tell(self._moved, far)
        except Exception as problem:  # whatever it is, the screen must say it: nobody sees a thread's traceback
            tell(self._failed, problem)

    def _moved(self, far: tuple[str, Progress]) -> None:
        self._far = far
        self._at = self._other if self._other and far[0] != self._handle else self.run
        self._draw_progress()
        self._say_command()

    def _failed(self, error: Exception) -> None:
        self.part = "form"
        self.error(error)
        if isinstance(error, FtuiError) and error.where and error.where == self._asked.data:
            self.query_one("#data").focus()

    def _arrived(self, results: list[Compared]) -> None:
        self.results = results
        if results[0].found is not None:
            self._asked = results[0].found.asked
        self._draw_found()
        self.part = "found"

    def action_stop(self) -> None:
        """It ends after the part it is at; its last word comes through the journal."""
        at = self._at
        self.in_thread(
            lambda: control.stop(at), lambda _: self.notice("it stops after the part it is at"), group="control"
        )

    # drawing ------------------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._draw_found()

    def on_screen_resume(self) -> None:
        self._draw_found()  # more may be rated by now

    def _draw_progress(self) -> None:
        name, far = self._far or (self._handle, Progress(what="starting", done=0, total=0))
        of = f"   {far.done} of {far.total}" if far.total else ""
        self.query_one("#progress", Static).update(
            Content.assemble(
                ("● ", f"bold {FOCUS}"),
                (f"{safe(name)}: {safe(far.what)}", f"bold {FOCUS}"),
                of,
                ("\n\n  It goes on if you leave this screen.", FAINT),
            )
        )

    def _draw_found(self) -> None:
        if not self.results or not self.is_mounted:
            return
        results, width = self.results, self.query_one("#body").content_size.width - 1
        parts: list[Content] = []
        if (found := results[0].found) is not None:
            parts += [Content.styled(safe(scoreboard.basis(found)), FAINT), Content("")]
        parts += [_table(results, width), Content("")]
        if verdict := scoreboard.verdict(results):
            parts.append(Content.styled(safe(verdict), "bold"))
        if (tally := scoreboard.tally(results)) is not None:
            parts.append(Content(safe(scoreboard.told(tally, *scoreboard.heads(results)[-2:]))))
        parts += [Content.styled(f"! {safe(line)}", WARN) for line in scoreboard.remarks(results)]
        if where := scoreboard.noted_where(results):
            parts.append(Content.styled(safe(where), FAINT))
        if found is not None and found.bleu:
            parts.append(Content.styled(f"ROUGE from 0 to 1, BLEU from 0 to 100 ({safe(found.bleu)})", FAINT))
        self.query_one("#table", Static).update(Content("\n").join(parts))

    # what follows -------------------------------------------------------------------------------------------------

    def action_answers(self) -> None:
        from tui.screens.compare_answers import AnswersScreen

        self.app.push_screen(AnswersScreen(self.results, self.command))

    def action_blind(self) -> None:
        from tui.screens.compare_blind import BlindScreen

        self.app.push_screen(BlindScreen(self.results, self.command))


def _table(results: Sequence[Compared], width: int) -> Content:
    """Names at the left, numbers right-aligned; the interval only where there is room for it."""
    lines = scoreboard.table(results)
    heads = [shorten(safe(head), LONGEST_NAME) for head in scoreboard.heads(results)]
    columns = [[head, *(line.cells[at] for line in lines)] for at, head in enumerate(heads)]
    columns.append(["difference", *(line.difference for line in lines)])
    if any(line.interval for line in lines):
        columns.append(["95 % within", *(line.interval for line in lines)])
    names = ["", *(line.name for line in lines)]
    wide = [max(map(cell_len, column)) for column in columns]
    first = max(map(cell_len, names))
    while len(columns) > 2 and first + sum(wide) + 2 * len(wide) > width:
        columns.pop()
        wide.pop()
    styles = [BASE, *[TUNED] * (len(heads) - 1), "", FAINT]
    rows = []
    for at, name in enumerate(names):
        row = Content(pad(name, first))
        for column, room, style in zip(columns, wide, styles, strict=False):
            kind = f"bold {style}".strip() if at == 0 and column is not columns[-1] else style
            row += Content.assemble("  ", (pad(column[at], room, right=True), kind or "none"))
        rows.append(row)
    return Content("\n").join(rows)
