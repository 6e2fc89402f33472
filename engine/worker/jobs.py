"""What a worker can be told to do, and how each job ends in the journal."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import sys
from pathlib import Path

from engine import hardware
from engine.errors import Exit, FtuiError
from engine.runs import hang, silence, slots, waiting
from engine.runs.directory import RunDir
from engine.runs.events import State
from engine.runs.job import Job
from engine.runs.journal import Writer
from engine.worker import imports
from engine.worker.service import Service


def run(job: Job, linger: float, first: float) -> int:
    """Do the job and return the process's exit code.

    linger  seconds to keep the model for the next question when nobody is connected
    first   seconds that a worker started for chat waits for its first client
    """
    kind, options, where = job.kind, job.options, RunDir(Path(job.run))
    journal = Writer(where.journal_path)
    status = {"run": where.path.name, "state": kind}
    service = Service(where.socket_path, lambda: status)
    _tell_stack(where)
    recipe = None
    place = None
    room_needed = None
    try:
        if kind == "train":  # chat, export and evaluation wait for nobody
            place = _place(job, where, journal)
            if place is None:
                return 0
        elif "gpu" not in options and (card := hardware.read().emptiest) is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(card.index)
        with imports.quietly():
            from engine.worker.session import Session

        now = Session(where)
        recipe = now.recipe
        service.silent = silence.reason(recipe) or service.silent
        if kind == "train":
            from engine.worker import answer, retries, train

            service.open()
            retries.same_device(job)
            if not train.run(now, options.get("resume"), job.attempt, service):
                return 0  # who stops a run wants the memory back
            assert place is not None
            slot = place.slot
            place.leave()  # the next in line goes on; this one lingers only as long as nobody needs the room
            room_needed = lambda: slots.asked_for(slot)  # noqa: E731
        elif kind == "serve":
            if recipe.stage == "reward":
                raise FtuiError(
                    Exit.RUN_STATE,
                    "a reward model gives scores, not answers",
                    where.name,
                    f"train with it: --stage grpo --reward {where.name}",
                )
            if why := silence.reason(recipe):
                raise FtuiError(
                    Exit.RUN_STATE,
                    why,
                    where.name,
                    "`ftui attach` shows what it filled in while it learned; export it to go on with it",
                )
            from engine.worker import answer, build

            now.model = build.for_chat(recipe, now.folder, _result(where, options.get("checkpoint")))
            service.answer = lambda client, ask: answer.reply(now, client, ask)
            service.open()
        elif kind == "evaluate":
            from engine.worker import measure

            measure.run(now, options)
            return 0
        else:
            from engine.worker import export

            export.run(now, options)
            return 0
        status["state"] = "ready"
        service.idle = lambda: answer.ready(now)
        service.serve(linger, first if kind == "serve" else 0.0, room_needed)
        return 0
    except BaseException as error:
        from engine.worker import failures, retries

        if kind == "train":
            code = retries.after(error, recipe, job, journal)
            if place is not None:
                place.leave(keep=code == os.EX_TEMPFAIL)
            return code
        journal.write(failures.describe(error, recipe, where.name))
        return 1
    finally:
        if place is not None:
            place.leave()
        service.close()


def _place(job: Job, where: RunDir, journal: Writer) -> slots.Place | None:
    """A place to train, waited for before anything heavy is imported, once the runs are ready that this one begins from. None
    when they will not be, when it was stopped in line, or its supervisor is gone: nobody would note how it ends."""
    queued = False

    def say(words: str) -> None:
        nonlocal queued
        queued = True
        journal.write(State(state="queued", detail=words))

    def idle(seconds: float) -> bool:
        # The supervisor has nothing more to say: what comes through its pipe is the end of it.
        gone, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
        return not gone and not where.stop_path.exists()

    place = None
    if waiting.wait(where, journal, say, idle):
        place = slots.wait(where, job.options.get("gpu"), bool(job.options.get("now")), say, idle)
    if place is None:
        if where.stop_path.exists():
            where.stop_path.unlink(missing_ok=True)
            journal.write(State(state="stopped", detail="before its turn came"))
        return None
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place.gpu)
    if queued or len(place.ticket.wanted) > 1:
        journal.write(State(state="preparing", detail=f"on {slots.place_name(place.slot)}"))
    return place


def _tell_stack(where: RunDir) -> None:
    """From now on this process writes where it is when it is asked (engine.runs.hang); C code below Python does not stop
    that."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):  # a full disk takes nothing more
        faulthandler.register(hang.ASKED, os.open(where.path / hang.STACK, flags, 0o600), all_threads=False)


def _result(where: RunDir, checkpoint: str | None) -> Path:
    """What answers: the result, or a checkpoint of a run that has none yet."""
    if checkpoint:
        return where.path / checkpoint
    if where.result is None:
        raise FtuiError(Exit.RUN_STATE, "this run has no result to chat with yet", where.name, "let it train first")
    return where.result
