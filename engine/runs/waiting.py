"""How a later run of a chain waits for those it needs: in its worker, before anything heavy is imported.

It goes on once all of them are ready and their results are whole. When one of them has stopped, failed or is lost, it stops,
too, and takes no memory while nobody is at work; `control.resume_chain` of either wakes both.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from engine import paths
from engine.runs import links, status
from engine.runs.directory import RunDir, handle
from engine.runs.events import Failure, Result, State, StateName
from engine.runs.journal import Writer
from engine.runs.status import Status

LOOK = 1.0  # seconds between two looks at the runs before
_OVER = {"stopped": "was stopped", "failed": "failed", "lost": "is lost"}


def wait(run: RunDir, journal: Writer, say: Callable[[str], None], idle: Callable[[float], bool]) -> bool:
    """Whether `run` may go on: at once where it needs no other. False where `idle` ended the wait, or where the journal says
    why it cannot.

    say   told what it waits for
    idle  sleeps up to so many seconds; False when the run is not to start any more
    """
    needed = links.needs(run)
    said = ""
    while True:
        if gone := [one for one in needed if not one.recipe_path.exists()]:
            end(
                journal,
                "failed",
                Failure(
                    cause=f"the run it begins from is gone: {gone[0].name}",
                    where=str(gone[0].path),
                    next_step=_anew(run),
                ),
            )
            return False
        open_ = [(one, now) for one in needed if (now := status.read(one)).state != "ready"]
        if not open_:
            break
        over = next(((one, now) for one, now in open_ if now.ended), None)
        if over is not None and _leaves(run, journal, *over):
            return False
        if (words := f"waits for {links.labels([one for one, _ in open_])}") != said:
            say(words)
            said = words
        if not idle(LOOK):
            return False
    for one in needed:
        if why := damage(one):
            end(
                journal,
                "failed",
                Failure(
                    cause=f"the result of {handle(one)} is not whole: {why}", where=str(one.path), next_step=_anew(run)
                ),
            )
            return False
    return True


def _leaves(run: RunDir, journal: Writer, one: RunDir, now: Status) -> bool:
    """Stop because `one` has: under its lock, so that whoever resumes it either has done so before, and this run goes on
    waiting, or finds this run stopped and resumes it as well."""
    try:
        lock = os.open(one.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = status.read(one)
        if not now.ended or now.state == "ready":
            return False
        end(
            journal,
            "stopped",
            Failure(
                cause=f"it waits for {links.label(one)}, which {_OVER[now.state]}",
                where=now.cause,
                next_step=f"ftui resume {handle(run)}: goes on with both",
            ),
        )
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _anew(run: RunDir) -> str:
    first = links.members(run)[0]
    return (
        f"`ftui train {first.recipe_path}` begins the chain anew"
        if first.recipe_path.exists()
        else "begin the chain anew"
    )


def end(journal: Writer, state: StateName, why: Failure) -> None:
    journal.write(why)
    journal.write(State(state=state, detail=why.cause))


def damage(run: RunDir) -> str:
    """What of the run's result is not as it was written; empty where all is. Results of older versions have no sums."""
    with status.Tail(run.journal_path) as tail:
        told = tail.last("result")
    if run.result is None:
        return "its weights are missing"
    files = told.files if isinstance(told, Result) else {}
    for name, expected in files.items():
        try:
            if paths.sha256(run.result / name) != expected:
                return f"{name} has changed"
        except OSError:
            return f"{name} is missing"
    return ""
