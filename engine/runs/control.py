"""Starting, stopping and going on with runs. Each function is one verb; all of them return soon.

A run is changed only by whoever holds the lock in its folder. A face takes the lock, checks, writes down the new
attempt, and passes the lock itself on to the supervisor, so that no two attempts of one run can overlap.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from engine import __version__
from engine.errors import Exit, FtuiError
from engine.paths import write_private
from engine.recipe import Recipe, Settings
from engine.runs import chat, checkpoints, directory, links, processes, recovery, slots, status
from engine.runs.directory import RunDir, handle, writing
from engine.runs.events import Note, State
from engine.runs.job import Job
from engine.runs.journal import Writer
from engine.runs.status import Status
from engine.runs.warm import Warm, prewarm

__all__ = ["Job", "Warm", "extend", "prewarm", "release", "resume", "resume_chain", "serve", "start", "stop"]

POLITE = 3.0  # seconds a worker that only chats has to quit by itself before it gets SIGTERM
PATIENCE = 20.0  # seconds until processes that should end are reported as stuck

RESUMABLE = ("stopped", "failed", "lost")
ERRANDS = ("export", "evaluate")  # jobs of a finished run that end by themselves, and are not to be disturbed

Gpu = int | Literal["auto"]  # index of a card in bus order, or the first that is free


def start(run: RunDir, job: Job, gpu: Gpu | None = None, warm: Warm | None = None) -> None:
    """Start a worker for `job`, supervised and detached. Returns once it has its job; it loads long after that.

    A training waits for its turn first (engine.runs.slots), unless the job's option "now" is set.
    A worker that lingers only to chat is sent away first. FtuiError(RUN_STATE) when the run is at work; to serve, one that
    serves already is at work too.
    """
    with _claim(run, to_serve=job.kind == "serve") as lock:
        _launch(run, job, gpu, warm, lock)


def stop(run: RunDir, wait: bool = False) -> Status:
    """Ask the worker to save a checkpoint and stop after the optimizer step it is in; returns how the run stands.

    wait  return only when it has stopped
    A worker that lingers only to chat is ended; one that exports or evaluates ends after the part it is at, and leaves
    nothing half.
    FtuiError(RUN_STATE) when nothing of the run is alive.
    """
    now = status.read(run)
    if now.ended:
        if not now.worker_alive:
            raise FtuiError(Exit.RUN_STATE, f"{now.name} is not running: it is {now.state}", run.name)
        if now.job not in ERRANDS:
            release(run)
            return status.read(run)
    with writing(run.path):
        write_private(run.stop_path, b"")
    while wait:
        now = status.read(run)
        if now.ended and not (now.job in ERRANDS and now.worker_alive):
            break
        time.sleep(0.1)
    return now


def resume(
    run: RunDir,
    gpu: Gpu | None = None,
    warm: Warm | None = None,
    now: bool = False,
    edits: Mapping[str, Any] | None = None,
    force: bool = False,
) -> int:
    """Go on from the newest whole checkpoint, or from step 0 when there is none; returns that step.

    gpu  as in the last attempt when None
    now  do not wait in line; a run that does is taken out of it first
    edits  typed settings that are other than they were from now on (recovery.edited says which may be)
    force  a run that hangs is ended first: what it did after its newest checkpoint is done again
    FtuiError(RUN_STATE) unless the run is stopped, failed or lost,
    FtuiError(RECIPE_INVALID) when another version of ftui wrote a recipe that this one cannot follow.
    """
    if force:
        _end_hung(run)
    if now and status.read(run).state == "queued":
        stop(run, wait=True)
    _need(run, *RESUMABLE)
    notes = [_begun_by_another(run)]
    recipe = run.recipe()
    settings = recovery.edited(recipe.settings, edits or {})
    notes += [f"{name} is {value} from here on" for name, value in (edits or {}).items()]
    with _claim(run) as lock:
        _need(run, *RESUMABLE)
        step, options = _from_checkpoint(run)
        job = Job("train", str(run.path), options | _hurried(now))
        with _changed(run, recipe, settings, "resume"):
            _launch(run, job, gpu, warm, lock, "; ".join(note for note in notes if note))
    return step


def resume_chain(
    run: RunDir,
    gpu: Gpu | None = None,
    now: bool = False,
    edits: Mapping[str, Any] | None = None,
    force: bool = False,
) -> list[tuple[RunDir, int]]:
    """`resume` for a run and for what is not finished of its chain, each with the step it goes on from, in their order.

    edits, force  for `run` itself, which is left alone where it is ready or at work and another one can go on
    FtuiError as `resume`.
    """
    done = []
    # The earlier ones first, and each is looked at after them: a later one stops when it finds them at rest.
    for one in links.members(run):
        stands = status.read(one)
        own = one == run and (edits or force or (now and stands.state == "queued"))
        if own:
            done.append((one, resume(one, gpu=gpu, now=now, edits=edits, force=force)))
        elif stands.state in RESUMABLE and one.recipe_path.exists():
            done.append((one, resume(one, gpu=gpu, now=now)))
    return done or [(run, resume(run, gpu=gpu, now=now))]  # which says why it cannot


@contextlib.contextmanager
def _changed(run: RunDir, recipe: Recipe, settings: Settings, why: str) -> Iterator[None]:
    """Write `settings` into the run's recipe; as it was again when what follows fails."""
    if settings == recipe.settings:
        yield
        return
    with writing(run.path):
        kept = directory.change_settings(run, recipe, settings, why)
    try:
        yield
    except BaseException:
        kept.replace(run.recipe_path)
        raise


def _end_hung(run: RunDir) -> None:
    """Kill the processes of a run that hangs. Does nothing to one that does not."""
    if not status.read(run).hung:
        return
    record = status.read_json(run.supervisor_path)
    # The worker first: a supervisor that is well notes how it ended. Both may be halted, which only this signal ends.
    for who in ("worker", "supervisor"):
        identity = processes.parse(record.get(who))
        if identity is not None:
            processes.send(identity, signal.SIGKILL)
            until = time.monotonic() + POLITE
            while status.lives(run, record) and time.monotonic() < until:
                time.sleep(0.02)


def extend(run: RunDir, epochs: float, gpu: Gpu | None = None, warm: Warm | None = None, now: bool = False) -> int:
    """Train a finished run for `epochs` more, from its last whole checkpoint; returns that checkpoint's step.

    gpu, now  as for `resume`
    The recipe in the folder says the new total; the one before is kept as recipe.before-extend-K.yaml.
    FtuiError(RUN_STATE) unless the run is ready and a checkpoint of it is whole.
    """
    if not epochs > 0:
        raise FtuiError(Exit.USAGE, f"cannot extend by {epochs:g} epochs", next_step="give a number above 0")
    _need(run, "ready")
    note = _begun_by_another(run)
    recipe = run.recipe()
    with _claim(run) as lock:
        _need(run, "ready")
        step, options = _from_checkpoint(run)
        if options["resume"] is None:
            raise FtuiError(
                Exit.RUN_STATE,
                "no whole checkpoint is left to go on from",
                str(run.checkpoints),
                "start a new run from the adapter",
            )
        settings = msgspec.structs.replace(recipe.settings, epochs=recipe.settings.epochs + epochs)
        options |= {"extend": epochs} | _hurried(now)
        with _changed(run, recipe, settings, "extend"):
            _launch(run, Job("train", str(run.path), options), gpu, warm, lock, note)
    return step


def serve(run: RunDir, gpu: Gpu | None = None, warm: Warm | None = None) -> None:
    """See to it that a worker answers on run.socket_path; waits for one to load where none does yet.

    FtuiError(RUN_STATE) while the run trains or has nothing to talk to; the worker's own failure when it fails.
    """
    patience = time.monotonic() + PATIENCE
    started = False
    while not chat.answers(run.socket_path):
        now = status.read(run)
        if now.worker_alive and not now.ended:
            raise FtuiError(Exit.RUN_STATE, f"{now.name} is still {now.state}", run.name, "chat when it is ready")
        if now.worker_alive and (started or now.job == "serve" or time.monotonic() < patience):
            # Loading for us or for another face, or about to listen or to end after its training.
            time.sleep(0.05)
            continue
        if started:
            record = status.read_json(run.supervisor_path)
            failure = status.failure_of(run, record)
            next_step = failure.next_step if failure.seq else f"the log says more: {run.log_path}"
            known = failure.code in set(Exit)
            raise FtuiError(Exit(failure.code) if known else Exit.RUN_FAILED, failure.cause, failure.where, next_step)
        options: dict[str, object] = {}
        if run.result is None:
            _, found = _from_checkpoint(run)
            if found["resume"] is None:
                raise FtuiError(Exit.RUN_STATE, f"{now.name} has nothing to talk to yet: it is {now.state}", run.name)
            options["checkpoint"] = found["resume"]
        try:
            start(run, Job("serve", str(run.path), options), gpu, warm)
        except FtuiError as error:
            # Another face may have been quicker: then its worker is ours too.
            if error.code != Exit.RUN_STATE or status.read(run).job != "serve":
                raise
        started = True


def release(run: RunDir) -> None:
    """End a worker that is alive only to chat, and wait until it is gone; its memory is free then.

    FtuiError(RUN_STATE) when the run is at work.
    """
    with _claim(run):
        pass


def _need(run: RunDir, *states: str) -> None:
    now = status.read(run)
    if now.state in states:
        return
    name = handle(run)
    if now.state == "ready":
        raise FtuiError(
            Exit.RUN_STATE, f"{now.name} is finished", run.name, f"train it longer: ftui extend {name} --epochs N"
        )
    if now.ended:
        raise FtuiError(Exit.RUN_STATE, f"{now.name} is {now.state}", run.name, f"go on with it: ftui resume {name}")
    raise _busy(now, run)


def _busy(now: Status, run: RunDir) -> FtuiError:
    if now.hung:
        return FtuiError(Exit.RUN_STATE, f"{now.name} is {now.cause}", now.where, now.next_step)
    doing = {"export": "exporting", "evaluate": "being evaluated", "serve": "answering"}.get(now.job, now.state)
    place = f" {now.detail}" if now.detail.startswith("on ") else ""
    return FtuiError(
        Exit.RUN_STATE,
        f"{now.name} is already at work: it is {doing}{place}",
        run.name,
        f"watch it: ftui attach {handle(run)}",
    )


def _hurried(now: bool) -> dict[str, object]:
    return {"now": True} if now else {}


def _from_checkpoint(run: RunDir) -> tuple[int, dict[str, object]]:
    found = checkpoints.newest_verified(run)
    if found is None:
        return 0, {"resume": None}
    return found[0], {"resume": str(found[1].relative_to(run.path))}


@contextlib.contextmanager
def _claim(run: RunDir, to_serve: bool = False) -> Iterator[int]:
    """Hold the run's lock, with no process of the run alive; yields the lock's descriptor.

    A worker that is alive only to chat is sent away, except `to_serve`: then another that was started for that stays.
    Closing the descriptor lets go of the lock only where it was not passed on.
    """
    with writing(run.path):
        lock = os.open(run.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stays = (*ERRANDS, "serve") if to_serve else ERRANDS
    try:
        begun = time.monotonic()
        asked = terminated = False
        while True:
            held = _try_lock(lock)
            record = status.read_json(run.supervisor_path)
            living = status.lives(run, record)
            if held and not living:
                break
            if held:
                fcntl.flock(lock, fcntl.LOCK_UN)
            now = status.read(run)
            waited = time.monotonic() - begun
            remote = not now.ended and now.detail.startswith("on ")
            if remote or (now.worker_alive and (not now.ended or now.job in stays)):
                raise _busy(now, run)
            if waited > PATIENCE:
                raise FtuiError(Exit.RUN_STATE, f"the processes of {now.name} do not end", run.name)
            if now.worker_alive and not asked:
                asked = True
                chat.quit_worker(run.socket_path)
            if now.worker_alive and waited > POLITE and not terminated:
                terminated = True
                for who in ("supervisor", "worker"):
                    identity = processes.parse(record.get(who))
                    if identity is not None:
                        processes.send(identity, signal.SIGTERM)
            time.sleep(0.02)
        yield lock
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _begun_by_another(run: RunDir) -> str:
    """A sentence when another version of ftui made the run, else empty.

    FtuiError(RECIPE_INVALID) when the recipe cannot be followed.
    """
    begun = directory.made_by(run)
    try:
        run.recipe()
    except FtuiError as error:
        if begun == __version__:
            raise
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"ftui {begun} made this run, and {__version__} cannot follow its recipe: {error.cause}",
            str(run.recipe_path),
            f"go on with ftui {begun}, or mend the recipe",
        ) from None
    return "" if begun == __version__ else f"begun with ftui {begun}, going on with {__version__}"


def _launch(run: RunDir, job: Job, gpu: Gpu | None, warm: Warm | None, lock: int, note: str = "") -> None:
    """Write down a new attempt, with a `note` where there is one, and start its processes. The caller holds the lock."""
    last = status.read_json(run.supervisor_path)
    gpu = last.get("gpu") if gpu is None else None if gpu == "auto" else gpu
    attempt = int(last.get("attempt", 0)) + 1
    options = job.options if gpu is None else {**job.options, "gpu": gpu}
    job = Job(job.kind, str(run.path), options, attempt)
    before = None
    if job.kind != "train":
        now = status.read(run)
        before = {name: getattr(now, name) for name in ("state", "detail", "cause", "where", "next_step")}
    record = {
        "attempt": attempt,
        "try": 1,
        "job": msgspec.to_builtins(job),
        "gpu": gpu,
        "time": time.time(),
        "journal": run.journal_path.stat().st_size if run.journal_path.exists() else 0,
        "before": before,
        # This face stands in until the supervisor has written itself down here.
        "supervisor": processes.plain(processes.identity()),
        "worker": None,
    }
    with writing(run.path):
        write_private(run.supervisor_path, json.dumps(record, indent=1))
        run.stop_path.unlink(missing_ok=True)
        if job.kind == "train":
            writer = Writer(run.journal_path)
            writer.write(State(state="preparing"))
            if note:
                writer.write(Note(text=note))
            writer.close()
        if warm is not None and job.kind == "train" and not job.options.get("now") and slots.tickets():
            # It would wait with everything imported, and would be in line only once that is done.
            warm.cancel()
            warm = None
        if warm is not None and warm.hand_over(run, attempt, lock):
            return
        arguments = (str(run.path), "--lock", str(lock))
        if processes.detach("engine.runs.supervisor", *arguments, log=run.log_path, keep=[lock]):
            return
        write_private(run.supervisor_path, json.dumps({**record, "supervisor": None}, indent=1))
    raise FtuiError(Exit.RUN_FAILED, "the supervisor could not be started", status.last_words(run.log_path))
