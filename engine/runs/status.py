"""How a run stands, concluded from its journal, its processes and how they ended.

    1. an ended state in the journal (ready, stopped, failed) holds, whatever became of the worker afterwards
    2. else, while the supervisor or the worker lives, the journal's state; where a training has been silent for too long
       it is said to hang (engine.runs.hang)
    3. else, when exit.json belongs to this attempt: failed, with how the worker ended; stopped when a stop was asked for
       before the next try began
    4. else lost: the machine went down, or the supervisor was killed

A journal can be long (1 M steps are 240 MB), so it is not read: the wanted lines are looked for from its end. State,
step, start and failure are found wherever they are; the last evaluation only within the last 4 MB.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from engine.errors import FtuiError
from engine.runs import hang, journal, links, processes, recovery
from engine.runs.directory import RunDir, handle, title
from engine.runs.events import ENDED, AnyEvent, Evaluated, Failure, Retry, Start, State, StateName, Step
from engine.runs.supervisor import TRIES
from engine.text import size

WINDOW = 64 * 1024  # bytes of the journal's end that are read at once
EVALUATION_WINDOW = 4 << 20
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})


class Status(Struct, kw_only=True):
    """One run now. Losses are of the last logged step, times in seconds since 1970, seconds_left in seconds.

    name          the recipe's name; the folder's is the last part of `dir`
    detail        a word on the state: "killed", "try 2 of 4", "on HOST" for a run of another machine
    cause, where, next_step   why it failed, was lost or hangs, else empty
    offer         settings with which a failed run may go on, if the person agrees: `resume` takes them
    hung          it says that it trains and lives, but no step has come for too long
    worker_alive  whether a process of the run lives on this machine, be it only to chat
    job           what that process was started for: "train", "serve", "export", "evaluate"; empty when none was ever started
    result        folder of the complete adapter or model, else None
    after         what it begins from or is rewarded by, where that is an earlier run of the same chain: ["congyu (sft)"]
    """

    name: str
    dir: str
    state: StateName
    detail: str = ""
    cause: str = ""
    where: str = ""
    next_step: str = ""
    offer: dict[str, Any] = field(default_factory=dict)
    hung: bool = False
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    epoch: float = 0.0
    epochs: float = 0.0
    seconds_left: float | None = None
    worker_alive: bool = False
    job: str = ""
    started: float | None = None
    updated: float | None = None
    model: str = ""
    method: str = ""
    preset: str | None = None
    result: str | None = None
    after: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether training is over, well or not."""
        return self.state in ENDED


def read(run: RunDir) -> Status:
    """How the run stands. Never raises for what is in the folder; a damaged file counts as missing."""
    for _ in range(3):
        record = read_json(run.supervisor_path)
        # In this order: what is written before a process ends is seen once it is known to have ended.
        living = lives(run, record)
        ended = last_exit(run, record)
        with Tail(run.journal_path) as tail:
            status = _conclude(run, record, living, ended, tail)
        if read_json(run.supervisor_path).get("attempt") == record.get("attempt"):
            break  # else a new attempt began meanwhile
    return status


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object of the run directory, empty when it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def lives(run: RunDir, record: dict[str, Any]) -> bool:
    """Whether the supervisor or the worker of the attempt in `record` (supervisor.json) lives on this machine."""
    if last_exit(run, record):
        return False
    return any(processes.alive(processes.parse(record.get(who))) for who in ("supervisor", "worker"))


def last_exit(run: RunDir, record: dict[str, Any]) -> dict[str, Any]:
    """exit.json if it tells of the attempt in `record`, else empty: an earlier attempt's says nothing of this one."""
    ended = read_json(run.exit_path)
    return ended if ended and ended.get("attempt") == record.get("attempt") else {}


def failure_of(run: RunDir, record: dict[str, Any]) -> Failure:
    """Why the processes of the attempt in `record` ended: the journal's Failure, else exit.json, else a loss."""
    with Tail(run.journal_path) as tail:
        found = tail.last("failure", int(record.get("journal", 0)))
    if isinstance(found, Failure):
        return found
    return _explain(run, record, last_exit(run, record))[1]


def _conclude(run: RunDir, record: dict[str, Any], living: bool, ended: dict[str, Any], tail: Tail) -> Status:
    since = int(record.get("journal", 0))
    status = Status(name=title(run), dir=str(run.path), state="preparing", worker_alive=living)
    job = record.get("job")
    status.job = str(job.get("kind", "")) if isinstance(job, dict) else ""
    _fill(status, run, tail, since, record)
    before = record.get("before")
    if isinstance(before, dict):
        # A worker that only serves, exports or evaluates: the state is the one that training left.
        for name in ("state", "detail", "cause", "where", "next_step"):
            setattr(status, name, before.get(name, ""))
        status.seconds_left = None
        return status
    state = tail.state()
    if state is not None:
        status.state, status.detail = state.state, state.detail
    where = processes.parse(record.get("supervisor"))
    if status.state in ENDED:
        if status.state in ("failed", "stopped"):  # a run of a chain stops because one that it waits for has
            failure = tail.last("failure", since)
            if isinstance(failure, Failure):
                _tell(status, failure)
    elif living:
        _doubt(status, run, record, tail)
    elif ended.get("code") == os.EX_TEMPFAIL and run.stop_path.exists():
        status.state, status.detail = "stopped", "before the next try"
    elif not ended and where is not None and processes.elsewhere(where) and locked(run):
        status.detail = f"on {where.host}"
    else:
        status.state = "failed" if ended else "lost"
        status.detail, failure = _explain(run, record, ended)
        told = tail.last("failure", since)
        if ended.get("code") == os.EX_TEMPFAIL and isinstance(again := tail.last("retry", since), Retry):
            failure = Failure(cause=again.cause, next_step=f"ftui resume {handle(run)}")
        failure = told if isinstance(told, Failure) else failure
        _tell(status, failure)
    if status.state in ENDED:
        status.seconds_left = None
    return status


def _tell(status: Status, failure: Failure) -> None:
    status.cause, status.where, status.next_step = failure.cause, failure.where, failure.next_step
    status.offer = failure.offer


def _doubt(status: Status, run: RunDir, record: dict[str, Any], tail: Tail) -> None:
    """A living run: which try it is, and whether it hangs."""
    if (number := int(record.get("try", 1))) > 1:
        status.detail = status.detail or f"try {number} of {TRIES}"
    if status.state == "training" and status.job == "train":
        now = time.time()
        silent = now - status.updated if status.updated else 0.0
        found = hang.look(run, record, tail.recent(), now) if silent > min(hang.FLOOR, hang.UNKNOWN) else None
        if found is not None:
            status.hung, status.detail, status.seconds_left = True, found.words, None
            status.cause, status.where = found.words, found.where
            status.next_step = f"ftui resume {handle(run)} --force: ends it and goes on from the checkpoint"


def locked(run: RunDir) -> bool:
    """Whether a supervisor holds the run's lock, be it on another machine that shares the folder.

    Takes the lock for a moment, so it is asked only where identities say nothing.
    """
    try:
        descriptor = os.open(run.lock_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _fill(status: Status, run: RunDir, tail: Tail, since: int, record: dict[str, Any]) -> None:
    """Everything but the state."""
    try:
        recipe = run.recipe()
        status.model, status.method, status.preset = recipe.model.source, recipe.settings.method, recipe.preset
        status.epochs = recipe.settings.epochs
    except FtuiError:
        pass  # a damaged recipe does not hide how the run stands
    result = run.result
    status.result = None if result is None else str(result)
    status.after = [links.label(one) for one in links.needs(run)]
    start = tail.start(since)
    if start is not None:
        status.total_steps, status.epochs, status.step = start.total_steps, start.epochs, start.from_step
    step = tail.last("step")
    if isinstance(step, Step) and (start is None or step.seq > start.seq or step.step <= start.from_step):
        status.step, status.loss, status.epoch, status.seconds_left = (
            step.step,
            step.loss,
            step.epoch,
            step.seconds_left,
        )
        evaluated = tail.last("evaluated", max(0, tail.size - EVALUATION_WINDOW))
        status.eval_loss = evaluated.loss if isinstance(evaluated, Evaluated) else None
    status.started = tail.first_time() or record.get("time")
    newest = tail.newest()
    # The clock may have been put back meanwhile; a run does not end before it began.
    status.updated = status.started if newest is None else max(newest.time, status.started or 0.0)


def _explain(run: RunDir, record: dict[str, Any], ended: dict[str, Any]) -> tuple[str, Failure]:
    """(detail, failure) of processes that ended without a word in the journal."""
    again = f"ftui resume {handle(run)}"
    if not record:
        return "", Failure(cause="the run was never started", next_step=again)
    if not ended:
        who = processes.parse(record.get("supervisor"))
        restarted = who is not None and who.boot_id != processes.boot_id()
        cause = "the machine was restarted while the run went on" if restarted else "the run's processes are gone"
        return "", Failure(cause=cause, next_step=again)
    number = ended.get("signal")
    if number == signal.SIGKILL and ended.get("oom_killed"):
        return "killed for memory", _killed_for_memory(run, int(ended.get("memory") or 0), again)
    if number == signal.SIGKILL:
        return "killed", Failure(cause="the worker was killed (signal 9)", next_step=again)
    if isinstance(number, int):
        try:
            label = signal.Signals(number).name
        except ValueError:
            label = "unknown"
        detail = "crashed" if number in _CRASHES else "killed"
        return detail, Failure(
            cause=f"the worker ended on signal {number} ({label})", where=last_words(run.log_path), next_step=again
        )
    code = ended.get("code")
    cause = "the worker ended without a result" if code == 0 else f"the worker ended with exit code {code}"
    return "", Failure(cause=cause, where=last_words(run.log_path), next_step=again)


def _killed_for_memory(run: RunDir, held: int, again: str) -> Failure:
    """The kernel took the worker, which held at most `held` bytes (0: unknown), because memory had run out."""
    from engine import hardware  # with psutil it takes longer to load than a status to conclude

    total = hardware.read().memory_total
    much = f": it held {size(held)} of {size(total)}" if held and total else ""
    failure = Failure(cause=f"the kernel killed the worker for memory{much}")
    try:
        less = recovery.less_memory(run.recipe().settings)
    except FtuiError:
        less = None
    failure.next_step = f"end other programs, then `{again}`"
    if less is not None:
        failure.offer = less.settings
        failure.next_step += f"; or `{again} {less.options}`: {less.text}"
    return failure


def last_words(path: Path) -> str:
    """The last line of a log that is not blank, at most 300 characters; foreign text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - WINDOW))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


class Tail:
    """A journal searched from its end. Line feeds within a text are escaped in JSON, so that a line can be told by its
    beginning; the writer puts the kind there."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self.size = os.fstat(self._descriptor).st_size
        except OSError:
            self._descriptor, self.size = -1, 0
        length = WINDOW
        while True:
            self._low = max(0, self.size - length)
            self._window = self._read(self._low, self.size)
            if self._low == 0 or b"\n" in self._window[:-1]:
                break
            length *= 4  # one line longer than the window
        # A torn line at the end is not there.
        self.size = self._low + self._window.rfind(b"\n") + 1 if b"\n" in self._window else 0
        self._window = self._window[: self.size - self._low] if self.size else b""

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _read(self, low: int, high: int) -> bytes:
        return os.pread(self._descriptor, high - low, low) if self._descriptor >= 0 and high > low else b""

    def last(self, kind: str, low: int = 0) -> Any:
        """The last event of `kind` at or after byte `low`, None when there is none."""
        mark = f'{{"event":"{kind}",'.encode()
        block, start = self._window, self._low
        while True:
            end = len(block)
            while (at := block.rfind(mark, 0, end)) >= 0:
                if (at == 0 and start == 0) or block[at - 1 : at] == b"\n":
                    if start + at < low:
                        return None
                    event = journal.decode(self._line(start + at))
                    if event is not None:
                        return event
                end = at
            if start <= low:
                return None
            # The next block overlaps this one by a mark, which may lie across the border.
            high = start + len(mark) + 1
            start = max(0, start - journal.CHUNK)
            block = self._read(start, min(high, self.size))

    def _line(self, at: int) -> bytes:
        size = WINDOW
        while True:
            block = self._read(at, min(at + size, self.size))
            end = block.find(b"\n")
            if end >= 0 or at + size >= self.size:
                return block[: end if end >= 0 else len(block)]
            size *= 4

    def state(self) -> State | None:
        """The state that the run entered last. Where many steps followed it, that is known without looking for it."""
        found = self.last("state", self._low)
        if found is None and self._low > 0:
            found = self.last("step", self._low) and State(state="training")
            found = found or self.last("state")
        return found if isinstance(found, State) else None

    def start(self, since: int) -> Start | None:
        """The last Start: near the end, else the first one of this attempt, which began at byte `since`."""
        found = self.last("start", self._low)
        if found is None and self._low > since:
            block = self._read(since, min(since + journal.CHUNK, self.size))
            at = (b"\n" + block).find(b'\n{"event":"start",')
            found = journal.decode(self._line(since + at)) if at >= 0 else None
        if found is None:
            found = self.last("start")
        return found if isinstance(found, Start) else None

    def first_time(self) -> float | None:
        event = journal.decode(self._line(0)) if self.size else None
        return None if event is None else event.time

    def recent(self) -> list[AnyEvent]:
        """The events of the window: the last few hundred lines."""
        return [event for line in self._window.split(b"\n") if line and (event := journal.decode(line)) is not None]

    def newest(self) -> AnyEvent | None:
        """The last event of any kind within the window, which holds at least one whole line."""
        for line in reversed(self._window.split(b"\n")):
            event = journal.decode(line) if line else None
            if event is not None:
                return event
        return None
