"""Having rows measured: what was kept, else a worker in the background that is followed. The same for the verb and the screen."""

from __future__ import annotations

import time
from collections.abc import Generator

import msgspec

from engine.errors import Exit, FtuiError
from engine.runs import control, directory, journal, measured, scoreboard, silence, status
from engine.runs.directory import RunDir
from engine.runs.events import Failure, Measured, Progress
from engine.runs.job import Job
from engine.runs.measured import Asked, Measurement
from engine.runs.scoreboard import Compared

POLL = 0.25  # seconds between looks at the journal
WHAT = "evaluate: "  # before what a worker says of how far it is

Far = tuple[str, Progress]  # the run that is measured, and how far that is


def compare(
    run: RunDir, asked: Asked, other: RunDir | None = None, *, again: bool = False
) -> Generator[Far, None, list[Compared]]:
    """One run, or two on the same rows. Yields how far it is several times a second, also while nothing is new.

    again  measure whatever was kept
    Of a run that has no rows of its own, and where no others are given, the plain questions alone (`asked.rows` 0), which
    only a model that fills gaps cannot answer.
    Of reward models only what their own curves tell: they give scores, not answers.
    Raises FtuiError as `measured.ready`, USAGE for a run against itself, what the worker failed with, and RUN_FAILED where
    it ended without a word. Whoever stops listening leaves the worker at work.
    """
    if other == run:
        raise FtuiError(Exit.USAGE, "a run against itself differs in nothing", run.name, "name another run")
    runs = [run] if other is None else [run, other]
    if asked.data is None and all(one.recipe().stage == "reward" for one in runs):
        return [scoreboard.ranked(one) for one in runs]
    if asked.data is None and measured.without_rows(run.recipe()) and not silence.fills(run.recipe()):
        asked = msgspec.structs.replace(asked, rows=0)
    found = [scoreboard.of(run, (yield from follow(run, asked, again=again)))]
    if other is not None:
        assert found[0].found is not None
        only = [row.row for row in found[0].found.rows]
        theirs = msgspec.structs.replace(asked, of=str(run.path), only=only) if asked.rows else asked
        found.append(scoreboard.of(other, (yield from follow(other, theirs, again=again))))
    return found


def follow(run: RunDir, asked: Asked, *, again: bool = False) -> Generator[Far, None, Measurement]:
    """What was kept for the same rows and weights, else what a worker finds now; one that is at it already is joined."""
    key = measured.ready(run, asked)
    reader, name = journal.Reader(run.journal_path), directory.handle(run)
    begun = under_way(run)
    if begun is not None and begun.options.get("key") == key:
        reader.offset = int(status.read_json(run.supervisor_path).get("journal", 0))
    else:
        kept = None if again else measured.read(run, key)
        if kept is not None:
            return kept
        reader.offset = run.journal_path.stat().st_size if run.journal_path.exists() else 0
        control.start(run, Job("evaluate", str(run.path), {**msgspec.to_builtins(asked), "key": key}))
    far, done = Progress(what="starting", done=0, total=0), False
    while True:
        alive = status.read(run).worker_alive  # before the journal: its last words must still be read
        for event in (event for events in reader.chunks() for event in events):
            if isinstance(event, Progress) and event.what.startswith(WHAT):
                far = msgspec.structs.replace(event, what=event.what.removeprefix(WHAT))
            elif isinstance(event, Failure):
                code = Exit(event.code) if event.code in set(Exit) else Exit.RUN_FAILED
                raise FtuiError(code, event.cause, event.where, event.next_step)
            done = done or isinstance(event, Measured)
        if not alive:
            break
        yield name, far
        time.sleep(POLL)
    found = measured.read(run, key) if done else None
    if found is None:
        cause = "what was measured cannot be read" if done else "the evaluation ended without a result"
        raise FtuiError(Exit.RUN_FAILED, cause, status.last_words(run.log_path), f"see `ftui logs {name}`")
    return found


def under_way(run: RunDir) -> Job | None:
    """The evaluation that a living worker of the run is at."""
    now = status.read(run)
    if now.job != "evaluate" or not now.worker_alive:
        return None
    try:
        return msgspec.convert(status.read_json(run.supervisor_path).get("job"), Job)
    except msgspec.ValidationError:
        return None
