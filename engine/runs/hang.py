"""Whether a training that lives hangs, and where: concluded by a reader, like "lost".

The journal is the heartbeat: each optimizer step is a line. What lies between two steps and may last (an evaluation, a
checkpoint, a sample, an answer in chat) is announced in it by a `progress` line.
"""

from __future__ import annotations

import os
import re
import signal
import site
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.runs import processes
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Progress, Start, Step
from engine.text import duration

FACTOR = 5.0  # a step that takes longer than so many of the slowest (99th percentile) is not merely slow
FLOOR = 120.0  # seconds; a busy machine or disk delays short steps by more than their own length
UNKNOWN = 1800.0  # seconds for what nobody can foretell: the first step, and what was announced
ASKED = signal.SIGUSR1  # on which a worker writes its stack into the run folder
STACK = "stack.txt"
_ANSWERS_WITHIN = 0.2  # seconds
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (\S+)')


class Hang(Struct, frozen=True):
    """`seconds` without a line since step `step`; `where` in the code, or what else is known, may be empty."""

    seconds: float
    step: int
    where: str

    @property
    def words(self) -> str:
        return f"hung: nothing for {duration(self.seconds).removeprefix('about ')}, after step {self.step}"


def patience(newest: AnyEvent, steps: Sequence[float], floor: float | None = None) -> float:
    """Seconds that may pass after the journal's `newest` line before a living training counts as hung.

    steps  seconds between the last steps of this attempt, whatever lay between them included
    """
    if isinstance(newest, Progress) or not steps:
        return UNKNOWN
    slowest = sorted(steps)[-1 - len(steps) // 100]
    return max(FACTOR * slowest, FLOOR if floor is None else floor)


def between(events: Sequence[AnyEvent]) -> list[float]:
    """Seconds between the steps in `events` since the last start, the first step's own included."""
    times: list[float] = []
    for event in events:
        if isinstance(event, Start):
            times = [event.time]
        elif isinstance(event, Step):
            times.append(event.time)
    # A clock that was put back says nothing about a step.
    return [later - earlier for earlier, later in pairwise(times) if later >= earlier]


def look(run: RunDir, record: dict[str, Any], events: Sequence[AnyEvent], now: float) -> Hang | None:
    """Whether the training of supervisor.json's `record` hangs; None while it may still be at work.

    events  the end of the journal, a few hundred lines; now  seconds since 1970
    Asks the worker once for its stack.
    """
    worker = processes.parse(record.get("worker"))
    if not events or worker is None:
        return None
    silent = now - events[-1].time
    step = next((event.step for event in reversed(events) if isinstance(event, Step)), 0)
    if processes.alive(worker):
        if silent <= patience(events[-1], between(events)):
            return None
        return Hang(silent, step, where(worker, run.path / STACK, events[-1].time))
    supervisor = processes.parse(record.get("supervisor"))
    if silent <= FLOOR or supervisor is None:
        return None
    return Hang(silent, step, f"its worker has ended, and its supervisor (process {supervisor.pid}) does not notice")


def where(worker: processes.Identity, file: Path, since: float) -> str:
    """What the silent worker does, in one line; "" where that cannot be told.

    file   where it writes its stack, as Python's faulthandler does
    since  time of the journal's last line: a stack that is older tells of something else
    """
    if processes.state(worker.pid) in ("T", "t"):
        return f"its process is halted: kill -CONT {worker.pid} lets it go on"
    written = _written(file)
    if written <= since and processes.catches(worker.pid, ASKED) and processes.send(worker, ASKED):
        until = time.monotonic() + _ANSWERS_WITHIN
        while _written(file) == written and time.monotonic() < until:
            time.sleep(0.01)
    if _written(file) <= since:
        return "it waits for a disk or a network" if processes.state(worker.pid) == "D" else ""
    with suppress(OSError):
        return innermost(file.read_text(errors="replace"))
    return ""


def _written(file: Path) -> float:
    """When the stack was written, seconds since 1970; 0 when there is none."""
    with suppress(OSError):
        found = file.stat()
        return found.st_mtime if found.st_size else 0.0
    return 0.0


def innermost(stack: str) -> str:
    """ "hangs in generate (engine/worker/generate.py, line 80)": the innermost frame that is ours or a library's.

    stack  what faulthandler wrote, innermost frame first; of several the last one counts
    """
    frames = _FRAME.findall(stack.rpartition("(most recent call first):")[2])
    standard = sysconfig.get_paths()["stdlib"]
    libraries = [*site.getsitepackages(), sysconfig.get_paths()["purelib"]]
    for path, line, name in frames:
        library = next((folder for folder in libraries if path.startswith(folder + os.sep)), None)
        if library is None and (path.startswith(("<", standard + os.sep))):
            continue
        home = library or str(processes.PACKAGE_PARENT)
        return f"hangs in {name} ({path.removeprefix(home + os.sep)}, line {line})"
    return ""
