"""Following a run from the command line: live on a terminal, lines in a pipe, events with --json."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from engine.cli import show
from engine.errors import Exit, FtuiError
from engine.runs.events import (
    ENDED,
    AnyEvent,
    Evaluated,
    Evaluation,
    Exported,
    Failure,
    Note,
    Progress,
    Pushed,
    Retry,
    Sample,
    Start,
    State,
    Step,
)

if TYPE_CHECKING:
    from engine.runs.directory import RunDir
    from engine.runs.status import Status
    from engine.runs.view import RunView

POLL = 0.25  # seconds
_PATIENCE = 20.0  # seconds for a worker to end
_LINE_EVERY = 30.0  # seconds between two step lines at least, unless a twentieth of the steps has gone
E = TypeVar("E", Exported, Pushed)
Look = Callable[[list[AnyEvent], "RunView"], None]


def wait(run: RunDir, as_json: bool = False, curve: bool = False, seen: int = 0) -> int:
    """Follow `run` until it ends; the exit code of the verb.

    curve  print the whole curve so far before following
    Raises FtuiError(RUN_FAILED) when the run failed.
    """
    from engine.runs import directory
    from engine.runs.view import RunView

    name = directory.handle(run)
    view = RunView()
    try:
        end = follow(run, view, as_json, curve, seen)
    except KeyboardInterrupt:
        if not as_json:
            show.say()
            show.say(f"the run goes on without you: `ftui attach {name}` comes back, `ftui stop {name}` ends it")
        return int(Exit.INTERRUPTED)
    if end.state in ("failed", "lost"):
        raise _failed(end)
    if end.state == "stopped":
        if not as_json:
            why = f": {end.cause}" if end.cause else f" at step {end.step}"
            show.say(f"{name} stopped{why}: `ftui resume {name}` goes on")
        return int(Exit.INTERRUPTED)
    if not as_json:
        _finished(run, view)
    return int(Exit.OK)


def follow(run: RunDir, view: RunView, as_json: bool = False, curve: bool = False, seen: int = 0) -> Status:
    """Show what happens until the run has ended; `view` holds the whole picture afterwards. KeyboardInterrupt passes."""
    from engine.runs import directory, journal, status

    reader = journal.Reader(run.journal_path)
    screen = not as_json and show.redraws()
    display = _events() if as_json else _screen(directory.title(run)) if screen else _lines()
    begin = curve and not as_json and not screen  # a screen shows the curve anyway
    hung = False
    with display as look:
        while True:
            now = status.read(run)  # before the journal: what was written before the end must still be shown
            pieces: Iterator[list[Any]] = reader.points() if screen else reader.chunks()
            events: list[Any] = []
            for events in pieces:
                view.fold(events)
                if not screen and not begin:
                    look([event for event in events if event.seq > seen], view)
            if begin:
                for line in (*picture(view), *(f"tried again: {tried(one)}" for one in view.retries)):
                    show.say(line)
            if now.hung or hung:
                view.detail = now.detail if now.hung else ""
                if now.hung and not hung and not as_json and not screen:
                    for line in filter(None, (now.cause, now.where, now.next_step)):
                        show.say(line)
                hung = now.hung
            if screen or begin:
                look(events if screen else [], view)
            begin = False
            if now.state in ENDED:
                return now
            time.sleep(POLL)


def mark(run: RunDir) -> int:
    """The journal's newest sequence number, so that what comes after it can be told apart."""
    from engine.runs import status

    with status.Tail(run.journal_path) as tail:
        newest = tail.newest()
    return 0 if newest is None else newest.seq


def exported(run: RunDir, after: int, quiet: bool = False, kind: type[E] = Exported, last: bool = True) -> E:  # type: ignore[assignment]
    """Wait for the export that was started after journal entry `after`, or with another `kind` for its way to the hub.

    last  nothing follows it: wait for the worker's end as well
    Raises FtuiError(EXPORT_FAILED) with the reason when there will be none.
    """
    from engine.runs import directory, journal, status

    reader = journal.Reader(run.journal_path)
    while True:
        now = status.read(run)
        for event in itertools.chain.from_iterable(reader.chunks()):
            if event.seq <= after:
                continue
            if isinstance(event, kind):
                if last:
                    _until_gone(run)
                return event
            if isinstance(event, Failure):
                _until_gone(run)
                known = event.code in set(Exit) and event.code != Exit.RUN_FAILED
                code = Exit(event.code) if known else Exit.EXPORT_FAILED
                raise FtuiError(code, event.cause, event.where, event.next_step)
            if isinstance(event, Progress) and event.what.startswith("export: ") and not quiet:
                show.say(f"{event.done + 1}/{event.total} {event.what.removeprefix('export: ')}", "dim")
            if isinstance(event, State) and not quiet:
                show.say(event.state + (f": {event.detail}" if event.detail else ""), "dim")
        if not now.worker_alive:
            raise FtuiError(
                Exit.EXPORT_FAILED,
                "the export ended without a result",
                str(run.log_path),
                f"see `ftui logs {directory.handle(run)}`",
            )
        time.sleep(POLL)


def _until_gone(run: RunDir) -> None:
    """Wait for the worker to end after its last word, so that the next verb does not find the run at work."""
    from engine.runs import status

    until = time.monotonic() + _PATIENCE
    while status.read(run).worker_alive and time.monotonic() < until:
        time.sleep(POLL)


def picture(view: RunView, width: int = 64, height: int = 8) -> list[str]:
    """The loss so far as a small chart, ◆ where held-out rows were measured; [] before the first step."""
    from engine.cli import chart

    marks = [(e.step, e.loss) for e in view.evaluated]
    last = view.start.total_steps if view.start else None
    return chart.curve(view.steps.step, view.steps.loss, marks, last=last, width=width, height=height)


def headline(view: RunView) -> str:
    """ "training  step 96/115  epoch 4.2/5  loss 0.41  about 20 s left"."""
    from engine.text import duration

    parts = [str(view.state)]
    if view.detail:
        parts.append(view.detail)
    progress = view.progress
    if view.state == "training" and view.start and view.last:
        last = view.last
        parts.append(f"step {last.step}/{view.start.total_steps}")
        parts.append(f"epoch {last.epoch:.1f}/{view.start.epochs:g}")
        parts.append(learned(last))
        if last.seconds_left > 0:
            parts.append(f"{duration(last.seconds_left)} left")
    elif progress is not None and progress.total and view.state not in ENDED:
        parts.append(f"{progress.done}/{progress.total} {progress.what}")
    return "  ".join(parts)


@contextmanager
def _events() -> Iterator[Look]:
    def look(events: list[AnyEvent], view: RunView) -> None:
        for event in events:
            show.emit(event)

    yield look


@contextmanager
def _lines() -> Iterator[Look]:
    """Every change of state, every new answer, and a step line now and then."""
    from engine.text import plural

    said_step, said_at, said_answer = -1, 0.0, ""

    def look(events: list[AnyEvent], view: RunView) -> None:
        nonlocal said_step, said_at, said_answer
        for event in events:
            match event:
                case State():
                    said_at = time.monotonic()
                    show.say(event.state + (f": {event.detail}" if event.detail else ""))
                case Start():
                    said_step = event.from_step
                    show.say(
                        f"{plural(event.total_steps, 'step')} over {plural(event.rows, 'row')} on {event.device}, "
                        f"{event.trained_parameters:,} of {event.parameters:,} parameters trained"
                    )
                case Step() if view.start:
                    far = event.step - said_step >= max(1, view.start.total_steps // 20)
                    if far or time.monotonic() - said_at > _LINE_EVERY or event.step == view.start.total_steps:
                        said_step, said_at = event.step, time.monotonic()
                        show.say(step_line(event, view.start.total_steps))
                case Progress() if event.total and time.monotonic() - said_at > _LINE_EVERY:
                    said_at = time.monotonic()
                    show.say(f"{event.done}/{event.total} {event.what}")
                case Evaluated():
                    show.say(f"step {event.step}  {held_out(event)}")
                case Sample() if event.answer != said_answer:
                    said_answer = event.answer
                    show.say(f"step {event.step}  “{_one_line(event.prompt, 40)}” → {_one_line(event.answer, 100)}")
                case Retry():
                    show.say(f"tried again: {tried(event)}")
                case Note():
                    show.say(f"note: {event.text}")
                case _:
                    pass
        sys.stdout.flush()

    yield look


def tried(again: Retry) -> str:
    """ "2 instead of 4 rows at once, still 4 a step, after out of memory at 4 rows of up to 64 tokens"."""
    return f"{again.change}, after {again.cause}"


def held_out(event: Evaluated) -> str:
    """ "loss on held-out rows 0.512", and how well better and worse answers are told apart."""
    parts = [f"loss on held-out rows {event.loss:.3f}"]
    if event.accuracy is not None and event.margin is not None:
        parts.append(f"{event.accuracy:.0%} ranked right  margin {event.margin:+.2f}")
    if event.likelier is not None:
        parts.append(f"better answer likelier in {event.likelier:.0%}")
    return "  ".join(parts)


def step_line(step: Step, total: int) -> str:
    from engine.text import duration

    left = f"  {duration(step.seconds_left)} left" if step.seconds_left > 0 else ""
    return f"step {step.step}/{total}  epoch {step.epoch:.1f}  {learned(step)}{left}"


def learned(step: Step) -> str:
    """What a step is judged by: "loss 0.412", or "reward 0.412" where it learns from rewards."""
    return f"loss {step.loss:.3f}" if step.reward is None else f"reward {step.reward:.3f}"


@contextmanager
def _screen(name: str) -> Iterator[Look]:
    """One picture that is redrawn when something changed."""
    from rich.console import Group
    from rich.live import Live

    console = show.console()

    def draw(view: RunView) -> Group:
        width = max(20, min(console.width - 10, 90))
        lines = [show.styled(f"{name}  {headline(view)}", "bold")]
        lines += [show.styled(line, "cyan") for line in picture(view, width, 6)]
        answers = _changes(view)
        if answers:
            lines.append(show.styled(f"“{_one_line(view.samples[-1].prompt, console.width - 2)}”", "dim"))
        lines += [show.styled(f"{step:>6}  {_one_line(answer, console.width - 9)}") for step, answer in answers[-4:]]
        lines += [show.styled(f"tried again: {tried(one)}", "yellow") for one in view.retries]
        lines += [show.styled(f"note: {note.text}", "yellow") for note in view.notes[-2:]]
        return Group(*lines)

    with Live(console=console, auto_refresh=False) as live:
        shown = ""

        def look(events: list[AnyEvent], view: RunView) -> None:
            nonlocal shown
            now = headline(view)
            if events or now != shown:
                shown = now
                live.update(draw(view), refresh=True)

        yield look


def _changes(view: RunView) -> list[tuple[int, str]]:
    """The answers to the probe, each only when it differs from the one before."""
    found: list[tuple[int, str]] = []
    for sample in view.samples:
        if not found or found[-1][1] != sample.answer:
            found.append((sample.step, sample.answer))
    return found


def _one_line(text: str, width: int) -> str:
    from engine.text import safe, shorten

    return shorten(safe(" ".join(text.split())), width)


def _failed(end: Status) -> FtuiError:
    cause = end.cause or f"the run is {end.state}" + (f": {end.detail}" if end.detail else "")
    hint = end.next_step or f"`ftui logs {end.name}` shows what happened; `ftui resume {end.name}` goes on"
    return FtuiError(Exit.RUN_FAILED, cause, end.where, hint)


def _finished(run: RunDir, view: RunView) -> None:
    from engine.runs import checks, directory, export, silence

    name = directory.handle(run)
    if view.evaluation is not None:
        compare(view.evaluation)
    if len(view.evaluated) > 1 and view.evaluated[-1].accuracy is not None:
        for word, event in (("before", view.evaluated[0]), ("after", view.evaluated[-1])):
            show.say(f"{word:>6}: {held_out(event)}")
    show.say(f"{name} is ready, in {run.result or run.path}", "bold")
    recipe = run.recipe()
    chat = "" if silence.reason(recipe) else f"`ftui chat {name}`, "
    merged = "" if recipe.settings.method in export.UNMERGED else " --merged"
    again = ""
    if view.evaluation is not None and not checks.learned(view.evaluation.identity):
        again = f"`ftui extend {name} --epochs {recipe.settings.epochs:g}` for what it has not learned, "
    show.say(f"next: {again}{chat}`ftui export {name}{merged}`")


def compare(evaluation: Evaluation) -> None:
    """The same questions before and after, and the two scores."""
    from engine.runs import checks

    answers = [*evaluation.identity, *evaluation.general]
    if not answers:
        return
    marks = {True: "✓", False: "✗"}
    rows = [
        (
            _one_line(a.ask, 36),
            f"{marks[a.before_right]} {_one_line(a.before, 46)}",
            f"{marks[a.after_right]} {_one_line(a.after, 46)}",
        )
        for a in answers
    ]
    show.console().print(show.table(("question", "before", "after"), rows))
    if evaluation.identity:
        before, after, total = checks.score(evaluation.identity)
        show.say(f"identity score {before}/{total} → {after}/{total}", "bold")
    known = [a for a in evaluation.general if a.before_right]
    if known:
        held = sum(a.after_right for a in known)
        show.say(f"general questions held {held}/{len(known)} of those it could answer before")
