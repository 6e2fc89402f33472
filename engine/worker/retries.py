"""How a training that failed goes on: another try with a recipe that asks for less, or the end.

The rules are in engine.runs.recovery; the next try is a new process, which the supervisor starts from the newest whole
checkpoint when this one ends with EX_TEMPFAIL.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.runs import directory, recovery
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Retry, Start, State
from engine.runs.job import Job
from engine.runs.journal import Reader, Writer
from engine.runs.supervisor import TRIES
from engine.worker import failures, session


def after(error: BaseException, recipe: Recipe | None, job: Job, journal: Writer) -> int:
    """Write down what becomes of a training that raised `error`; returns the worker's exit code."""
    run = RunDir(Path(job.run))
    told = _told(run)
    tries = recovery.tries_before(told, job.attempt)
    failure = failures.describe(error, recipe, directory.handle(run), tries)
    change = None if recipe is None else _next(error, recipe, run, told, tries)
    if recipe is not None and change is not None:
        try:
            settings = msgspec.structs.replace(recipe.settings, **change.settings)
            directory.change_settings(run, recipe, settings, "retry")
        except OSError:
            change = None  # no room or no right to write: then there is none for a checkpoint either
    if change is None:
        journal.write(failure)
        journal.write(State(state="failed", detail=failure.cause))
        return 1
    journal.write(State(state="preparing", detail=f"try {len(tries) + 2} of {TRIES}"))
    journal.write(
        Retry(
            attempt=job.attempt + 1,
            kind=str(failures.kind(error)),
            cause=failure.cause,
            change=change.text,
            settings=change.settings,
        )
    )
    return os.EX_TEMPFAIL


def same_device(job: Job) -> None:
    """FtuiError(RUN_FAILED) when the card of the last try has gone: torch would train on the processor without a word."""
    run = RunDir(Path(job.run))
    told = _told(run)
    tries = recovery.tries_before(told, job.attempt)
    before = next((event.device for event in reversed(told) if isinstance(event, Start)), "")
    now = session.device_name()
    if tries and tries[0].kind == "gpu" and before not in ("", now):
        raise FtuiError(
            Exit.RUN_FAILED,
            f"the GPU is lost: {before} does not answer any more",
            f"after {tries[0].cause}",
            f"restart the machine (or reset the card), then `ftui resume {directory.handle(run)}`",
        )


def _next(
    error: BaseException, recipe: Recipe, run: RunDir, told: list[AnyEvent], tries: list[Retry]
) -> recovery.Change | None:
    """What the next try changes; None where none may help, or the person has asked the run to stop."""
    kind = failures.kind(error)
    states = [event.state for event in told if isinstance(event, State)]
    # What loading and the checks need does not depend on what a try changes.
    if run.stop_path.exists() or states[-1:] != ["training"]:
        return None
    return recovery.next_try(recipe.settings, kind, tries) if kind in ("memory", "nan", "gpu") else None


def _told(run: RunDir) -> list[AnyEvent]:
    """The few lines of the journal that matter here."""
    return [
        event
        for events in Reader(run.journal_path).chunks()
        for event in events
        if isinstance(event, (Retry, Start, State))
    ]
