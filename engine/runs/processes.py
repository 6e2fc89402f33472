"""Processes that outlive the face: who they are, whether they live, how they are started and signalled.

Standard library only: the supervisor imports this. A process is known by host, boot id, pid and start time, since a
pid alone is given again to another process sooner or later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import site
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class Identity(NamedTuple):
    """`start` is field 22 of /proc/PID/stat: clock ticks between the machine's boot and the process's start."""

    host: str
    boot_id: str
    pid: int
    start: int


def host() -> str:
    return os.uname().nodename


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """The start time of a living process, None when there is none (a zombie does not live)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name stands in brackets and may itself hold brackets and blanks.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZXx" else int(fields[19])


def state(pid: int) -> str:
    """The letter that the kernel has for it: R runs, S sleeps, D waits for a device, T is halted; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether process `pid` has a handler of its own for this signal: without one it would end it."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def identity(pid: int | None = None) -> Identity | None:
    """The identity of process `pid` of this machine (of this very process by default), None when it is gone."""
    pid = os.getpid() if pid is None else pid
    start = _start_time(pid)
    return None if start is None else Identity(host(), boot_id(), pid, start)


def parse(value: object) -> Identity | None:
    """An identity as it stands in a JSON file, None when it is not one."""
    if not isinstance(value, Mapping):
        return None
    try:
        return Identity(str(value["host"]), str(value["boot_id"]), int(value["pid"]), int(value["start"]))
    except (KeyError, TypeError, ValueError):
        return None


def plain(who: Identity | None) -> dict[str, Any] | None:
    """An identity as it is written into a JSON file."""
    return None if who is None else who._asdict()


def alive(who: Identity | None) -> bool:
    """Whether this very process still lives on this machine. The host's name does not count: it may be changed."""
    return who is not None and who.boot_id == boot_id() and who.start == _start_time(who.pid)


def elsewhere(who: Identity | None) -> bool:
    """Whether the process belongs to another machine or container, where nothing can be said about it from here."""
    return who is not None and who.host != host() and not alive(who)


def send(who: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False when it is gone. Never reaches another process with its pid."""
    try:
        handle = os.pidfd_open(who.pid)
    except OSError:
        return False
    try:
        # The handle is held, so the pid cannot change hands between this check and the signal.
        if not alive(who):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


# glibc's heap loses what a processor's tensors give back: the small rests that an aligned block leaves stay in its caches
# for tiny blocks, so that the freed block is never whole again. Without those caches a training process needs 15 to 20 %
# less memory, at the same speed (docs/forecasts.md).
_HEAP = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"


def environment() -> dict[str, str]:
    """This process's environment, with which `python -m engine…` is found from any folder.

    A source tree is put on PYTHONPATH. An installed package is not: its folder would then come before the standard
    library. Relative entries are made absolute because the child has another working folder.
    """
    result = {"GLIBC_TUNABLES": _HEAP, **os.environ}
    entries = [os.path.abspath(entry) for entry in result.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100
    installed = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    if PACKAGE_PARENT not in installed and str(PACKAGE_PARENT) not in entries:
        entries.insert(0, str(PACKAGE_PARENT))
    if entries:
        result["PYTHONPATH"] = os.pathsep.join(entries)
    return result


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours. -P: no file of the current folder can stand in for a library."""
    return [sys.executable, "-P", "-m", module, *arguments]


def detach(module: str, *arguments: str, log: Path, keep: Sequence[int] = ()) -> bool:
    """Start a module that forks itself off, and wait for the first half to end. True when it reports success.

    It gets a session of its own, no terminal and no pipe to this process; stderr goes to `log`. `keep` are file
    descriptors it inherits.
    """
    with open_log(log) as stderr:
        done = subprocess.run(
            python(module, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=tuple(keep),
            start_new_session=True,
            env=environment(),
            check=False,
        )
    return done.returncode == 0


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A private file, opened to append, as a descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
