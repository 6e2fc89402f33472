"""Who trains where, and the line before it: one training at a time on the processor, and one on each GPU.

    $XDG_STATE_HOME/ftui/slots/HOST/     0700; a folder a machine, because a home folder may be shared by several
      cpu.lock, gpu-0.lock               locked (flock) by the run that trains there: a killed one lets go by itself
      000012.json                        a ticket: a run that waits or trains; the lowest number came first
      line                               locked while tickets are looked at and changed

A run goes on when a place it wants is free and nobody with a lower number wants it. Tickets are numbered under the lock, so
that a clock that jumps changes no order; one whose processes are gone is passed over. Only runs of this user are seen here;
what others do on a GPU is seen through the driver (engine.hardware).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine import hardware, paths
from engine.errors import Exit, FtuiError
from engine.hardware import GpuUser, Hardware
from engine.recipe import slug
from engine.runs import directory, processes, status
from engine.runs.directory import RunDir

POLL = 0.25  # seconds between two looks at the line
LOOK = 3.0  # seconds between two looks at a card that others use
CPU = "cpu"
_TICKET = re.compile(r"\d{6,}\.json")


class Ticket(Struct, kw_only=True):
    """A run that waits for a place or has one.

    number  its place in the order of coming
    run     the run's folder; `name` is what the verbs call it
    wanted  slots that it may take ("cpu", "gpu-0"), the best first
    slot    the one that it has, "" while it waits
    """

    number: int
    run: str
    name: str
    wanted: list[str]
    slot: str = ""
    worker: dict[str, Any] | None = None
    supervisor: dict[str, Any] | None = None

    @property
    def living(self) -> bool:
        """The supervisor counts too: it may start another worker for the same run, which keeps the place."""
        return any(processes.alive(processes.parse(who)) for who in (self.worker, self.supervisor))

    def before(self, number: int, slot: str) -> bool:
        """Whether a run with ticket `number` has to let this one go first at `slot`."""
        return slot == self.slot if self.slot else slot in self.wanted and self.number < number


def place_name(slot: str) -> str:
    """ "the CPU", "GPU 0"."""
    return "the CPU" if slot == CPU else f"GPU {slot.removeprefix('gpu-')}"


def _ordinal(number: int) -> str:
    """ "1st", "2nd", "3rd", "11th"."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def choices(machine: Hardware, gpu: int | None = None, need: int = 0) -> list[str]:
    """The slots that a run may take, best first: the chosen card, else every card that is large enough.

    need  bytes that the plan takes
    """
    if machine.device == "cpu":
        return [CPU]
    if gpu is not None:
        return [f"gpu-{gpu}"]
    large = [card for card in machine.gpus if card.memory_total >= need] or machine.gpus
    return [f"gpu-{card.index}" for card in sorted(large, key=lambda card: (-card.memory_free, card.index))]


def need(run: RunDir) -> int:
    """Bytes that the run's plan takes, 0 where that is not known."""
    parts = status.read_json(run.plan_path).get("memory")
    return sum(part for part in parts.values() if isinstance(part, int)) if isinstance(parts, dict) else 0


def tickets() -> list[Ticket]:
    """Every run of this user on this machine that trains or waits, in the order in which they came."""
    try:
        folder = _folder(make=False)
        names = [entry.name for entry in os.scandir(folder) if _TICKET.fullmatch(entry.name)]
    except (OSError, FtuiError):
        return []
    found = [ticket for name in names if (ticket := _read(folder / name)) is not None and ticket.living]
    return sorted(found, key=lambda ticket: ticket.number)


def has(run: RunDir) -> bool:
    """Whether the run has its place already."""
    return any(ticket.run == str(run.path) and ticket.slot for ticket in tickets())


def asked_for(slot: str) -> bool:
    """Whether a run trains at `slot` or waits for it: one that only lingers should make room."""
    return any(slot == ticket.slot or (not ticket.slot and slot in ticket.wanted) for ticket in tickets())


def strangers(machine: Hardware, seen: Mapping[int, list[GpuUser]] | None = None) -> dict[str, str]:
    """The cards that others compute on, as slots, each with who: "python of alice uses 20 GB".

    seen  who uses each card, where that was asked already (hardware.users)
    """
    if not any(card.occupied for card in machine.gpus):
        return {}
    seen = hardware.users() if seen is None else seen
    found = {}
    for card in machine.gpus:
        if card.occupied:
            others = [user for user in seen.get(card.index, []) if not user.ours]
            held = others[0].memory if others and others[0].memory else card.memory_of_others
            amount = f"{max(1, round(held / 1e9))} GB"
            more = f", and {len(others) - 1} more" if len(others) > 1 else ""
            found[f"gpu-{card.index}"] = f"{others[0].who} uses {amount}{more}" if others else f"others use {amount}"
    return found


class Place:
    """A run's place in line, and at the slot once `take` gave it one.

    wanted  see `choices`
    """

    def __init__(self, run: RunDir, wanted: Sequence[str]) -> None:
        self._folder = _folder()
        self._lock = -1
        self._left = False
        me, record = processes.plain(processes.identity()), status.read_json(run.supervisor_path)
        with self._line():
            there = tickets()
            mine = next((ticket for ticket in there if ticket.run == str(run.path)), None)  # from the try before
            number = 1 + max((ticket.number for ticket in there), default=0) if mine is None else mine.number
            self.ticket = Ticket(
                number=number,
                run=str(run.path),
                name=directory.handle(run),
                wanted=sorted(wanted, key=lambda slot: mine is not None and slot != mine.slot),
                slot="" if mine is None else mine.slot,
                worker=me,
                supervisor=record.get("supervisor"),
            )
            self._sweep()
            self._write()

    @property
    def slot(self) -> str:
        return self.ticket.slot if self._lock >= 0 else ""

    @property
    def gpu(self) -> int | None:
        """Index of the card that was taken, None on the processor."""
        return int(self.slot.removeprefix("gpu-")) if self.slot.startswith("gpu-") else None

    def take(self, blocked: Mapping[str, str], now: bool = False) -> bool:
        """Take a slot if it is this run's turn.

        blocked  slots that others use, with who (see `strangers`)
        now      take the best one, whoever is there; the line then waits for this run as well
        """
        with self._line():
            others = [ticket for ticket in tickets() if ticket.number != self.ticket.number]
            for slot in self.ticket.wanted:
                first = not any(ticket.before(self.ticket.number, slot) for ticket in others)
                if first and slot not in blocked and self._take(slot):
                    return True
            return now and self._take(self.ticket.wanted[0], beside=True)

    def _take(self, slot: str, beside: bool = False) -> bool:
        lock = _open(self._folder / f"{slot}.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not beside:
                os.close(lock)
                return False
        self._lock, self.ticket.slot = lock, slot
        self._write()
        return True

    def waits(self, blocked: Mapping[str, str]) -> str:
        """What it waits for: "behind first on GPU 0, 2nd in line", "waits for GPU 0: python of alice uses 20 GB"."""
        mine, wanted = self.ticket.number, self.ticket.wanted
        others = [ticket for ticket in tickets() if ticket.number != mine]
        held = [(ticket.name, ticket.slot) for ticket in others if ticket.slot in wanted]
        ahead = sum(not ticket.slot and any(ticket.before(mine, slot) for slot in wanted) for ticket in others)
        parts = []
        if held:
            parts.append("behind " + " and ".join(f"{name} on {place_name(slot)}" for name, slot in held[:2]))
            parts[0] += f" and {len(held) - 2} more" if len(held) > 2 else ""
        strange = [slot for slot in wanted if slot in blocked and slot not in dict(held).values()]
        parts += [f"waits for {place_name(slot)}: {blocked[slot]}" for slot in strange[:1]]
        parts = parts or [f"waits for {' or '.join(map(place_name, wanted))}"]
        if held or ahead:
            parts.append(f"{_ordinal(ahead + 1)} in line")
        return ", ".join(parts)

    def leave(self, keep: bool = False) -> None:
        """Let the next one go on. A second call does nothing.

        keep  the same run is tried again at once, by another worker: its place stays while the supervisor lives
        """
        if self._left:
            return
        self._left = True
        if self._lock >= 0:
            # Not only closed: a child may still hold a copy of the descriptor, and with it the lock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1
        if not keep:
            with contextlib.suppress(OSError):
                self._path(self.ticket).unlink()

    def _path(self, ticket: Ticket) -> Path:
        return self._folder / f"{ticket.number:06}.json"

    def _write(self) -> None:
        with directory.writing(self._folder):
            paths.write_private(self._path(self.ticket), msgspec.json.encode(self.ticket))

    def _sweep(self) -> None:
        """Throw away tickets of the dead."""
        for entry in os.scandir(self._folder):
            if _TICKET.fullmatch(entry.name) and ((ticket := _read(Path(entry.path))) is None or not ticket.living):
                Path(entry.path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _line(self) -> Iterator[None]:
        lock = _open(self._folder / "line")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def wait(
    run: RunDir, gpu: int | None, now: bool, say: Callable[[str], None], idle: Callable[[float], bool]
) -> Place | None:
    """Wait until `run` may train, and hold its place; None when `idle` ended the wait.

    gpu   the card that was chosen, None for any
    now   do not wait
    say   told what it waits for, each time that changes
    idle  sleeps up to so many seconds; False when the run is not to start any more
    """
    place = Place(run, choices(hardware.read(), gpu, need(run)))
    blocked: dict[str, str] = {}
    looked = -LOOK
    said = ""
    try:
        while True:
            # Outside the line: a driver that hangs must not hold up the others.
            if place.ticket.wanted != [CPU] and time.monotonic() - looked >= LOOK:
                blocked, looked = strangers(hardware.read()), time.monotonic()
            if place.take(blocked, now):
                return place
            if (words := place.waits(blocked)) != said:
                say(words)
                said = words
            if not idle(POLL):
                place.leave()
                return None
    except BaseException:
        place.leave()
        raise


def _folder(make: bool = True) -> Path:
    """The folder of this machine, made private. FtuiError(PERMISSION) when something else is in its place."""
    path = paths.state_dir()
    for part in ("slots", slug(processes.host())):
        path = path / part
        with directory.writing(path), contextlib.suppress(FileExistsError):
            if make:
                path.mkdir(mode=0o700)
        if not make and not os.path.lexists(path):
            raise FileNotFoundError(path)
        found = path.lstat()
        if path.is_symlink() or not path.is_dir() or found.st_uid != os.geteuid():
            raise FtuiError(Exit.PERMISSION, "the folder of slots is not a folder of yours", str(path), "move it away")
        if found.st_mode & 0o077:
            path.chmod(0o700)
    return path


def _open(path: Path) -> int:
    with directory.writing(path.parent):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(path: Path) -> Ticket | None:
    """A ticket, None when it is gone or damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return msgspec.json.decode(file.read(), type=Ticket)
    except (OSError, msgspec.MsgspecError):
        return None
