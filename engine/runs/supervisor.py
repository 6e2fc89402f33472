"""The process that starts a worker, waits for it, and writes down how it ended.

    python -m engine.runs.supervisor RUN [--lock FD]    the run's supervisor.json says what to do
    python -m engine.runs.supervisor --warm DIR         start a worker first, be told the run later

Standard library only and small, because it must outlive everything: the terminal, the face, the worker. It lives in a
session of its own, ignores SIGHUP, passes SIGTERM on, and holds the lock of the run as long as it lives. A worker that
ends with exit code 75 (EX_TEMPFAIL) has failed and changed the recipe so that another try may succeed: it gets one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.paths import write_private
from engine.runs import checkpoints, processes

TRIES = 4  # workers at most for one training that a person started, each after the failure of the one before
POLL = 0.05  # seconds between two looks into the warm folder
LOCK_PATIENCE = 3.0  # seconds to wait for the face to let go of the lock
EXIT_SIZE = 256  # bytes of exit.json, padded with blanks
READY_PATIENCE = 60.0  # seconds a handed-over worker has to finish its imports before its warm folder goes


class Supervisor:
    def __init__(self) -> None:
        self.worker: subprocess.Popen[bytes] | None = None
        self.terminated = False
        self.oom_before = _oom_kills()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._pass_on)

    def _pass_on(self, number: int, _frame: object) -> None:
        self.terminated = True
        # Not Popen.send_signal: that would reap the worker behind the back of `wait`.
        if self.worker is not None and self.worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.worker.pid, number)

    def spawn(self, folder: Path, log: Path, gpu: int | None, warm: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a worker that waits for its job on standard input."""
        environment = processes.environment()
        environment.pop("FTUI_WARM_DIR", None)
        environment |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
        # NVML counts cards in bus order and CUDA by speed; the index that a person chose is NVML's.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        if warm is not None:
            environment["FTUI_WARM_DIR"] = str(warm)
        # For the tests only: another module in the worker's place.
        module = environment.get("FTUI_WORKER_MODULE", "engine.worker")
        with processes.open_log(log) as output:
            self.worker = subprocess.Popen(
                processes.python(module),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
                process_group=0,
            )
        if self.terminated:
            self.worker.terminate()
        return self.worker

    def wait(self, worker: subprocess.Popen[bytes]) -> tuple[int, int]:
        """Wait until the worker ends. Its return code, negative for a signal, and the most memory it held (bytes of RAM,
        0 where that is not known). What it started ends with it."""
        if worker.returncode is not None:
            return worker.returncode, 0
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        # Not reaped yet, so its pid still names this group and no other.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        _, status, usage = os.wait4(worker.pid, 0)
        worker.returncode = os.waitstatus_to_exitcode(status)
        return worker.returncode, 1024 * usage.ru_maxrss

    def serve_run(self, run: Path, worker: subprocess.Popen[bytes] | None, started: Callable[[], None]) -> None:
        """Give the job to `worker` or to a new one, and stay until it ends for good. The lock is held by the caller."""
        record: dict[str, Any] = json.loads((run / "supervisor.json").read_text())
        record["supervisor"] = processes.plain(processes.identity())

        def note(current: subprocess.Popen[bytes]) -> None:
            record["worker"] = processes.plain(processes.identity(current.pid))
            write_private(run / "supervisor.json", json.dumps(record, indent=1))

        def begin(ready: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
            self.oom_before = _oom_kills()
            line = json.dumps(record["job"]).encode() + b"\n"
            if ready is None or not _hand(ready, line, note):
                ready = self.spawn(run, run / "worker.log", record.get("gpu"))
                _hand(ready, line, note)
            return ready

        worker = begin(worker)
        _reserve(run)
        started()
        code, memory = self.wait(worker)
        # A worker decides itself when to give up; that it cannot go on for ever is seen to here.
        while code == os.EX_TEMPFAIL and record["try"] < TRIES and not (self.terminated or (run / "stop").exists()):
            _next_try(run, record)
            code, memory = self.wait(begin(None))
        number = -code if code < 0 else None
        oom = number == signal.SIGKILL and _oom_kills() > self.oom_before
        ended = {
            "attempt": record["attempt"],
            "code": code if code >= 0 else None,
            "signal": number,
            "oom_killed": oom,
            "memory": memory,
            "time": time.time(),
        }
        _write_exit(run, json.dumps(ended))

    def keep_warm(self, folder: Path, started: Callable[[], None]) -> None:
        """Start a worker, wait for an assignment, and carry it out. Ends without one when the face is gone."""
        order: dict[str, Any] = json.loads((folder / "face.json").read_text())
        face = processes.parse(order["face"])
        until = time.monotonic() + float(order["seconds"])
        write_private(folder / "supervisor.json", json.dumps(processes.plain(processes.identity())))
        worker = self.spawn(folder.parent, folder / "worker.log", None, folder)
        started()
        taken = folder / "taken.json"
        try:
            while not _take(folder / "assign.json", taken):
                cancelled = (folder / "cancel").exists() or not processes.alive(face)
                if cancelled or self.terminated or time.monotonic() > until:
                    return
                time.sleep(POLL)
            run = Path(json.loads(taken.read_text())["run"])
            lock = _lock(run, LOCK_PATIENCE)
            if lock is None:
                return  # another start was quicker; the face sees the folder vanish
            with processes.open_log(run / "worker.log") as log:
                os.write(log, (folder / "worker.log").read_bytes())

            def handed_over() -> None:
                until_ready = time.monotonic() + READY_PATIENCE
                ready = folder / "ready"
                while worker.poll() is None and not ready.exists() and time.monotonic() < until_ready:
                    time.sleep(POLL)
                shutil.rmtree(folder, ignore_errors=True)

            self.serve_run(run, worker, handed_over)
        finally:
            if worker.returncode is None:
                os.kill(worker.pid, signal.SIGKILL)
                self.wait(worker)
            shutil.rmtree(folder, ignore_errors=True)


def _hand(worker: subprocess.Popen[bytes], line: bytes, note: Callable[[subprocess.Popen[bytes]], None]) -> bool:
    """Write the job to the worker. False when it is dead already. The pipe stays open: its end tells the worker that
    the supervisor is gone."""
    if worker.poll() is not None or worker.stdin is None:
        return False
    # First the record, then the job: whoever sees the worker at work can also see who it is.
    note(worker)
    try:
        worker.stdin.write(line)
        worker.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def _next_try(run: Path, record: dict[str, Any]) -> None:
    """Make `record` (supervisor.json) that of the next attempt, which goes on from the newest whole checkpoint."""
    record["try"] += 1
    record["attempt"] += 1
    record["time"] = time.time()
    record["journal"] = (run / "events.jsonl").stat().st_size
    found = checkpoints.newest_in(run / "checkpoints")
    resume = None if found is None else str(found[1].relative_to(run))
    job = record["job"]
    record["job"] = {**job, "attempt": record["attempt"], "options": {**job["options"], "resume": resume}}


def _reserve(run: Path) -> None:
    """Set aside the room of exit.json, so that a worker that ends because the disk is full still gets its end noted."""
    write_private(run / ".exit", b" " * EXIT_SIZE)


def _write_exit(run: Path, content: str) -> None:
    descriptor = os.open(run / ".exit", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, content.ljust(EXIT_SIZE - 1).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (run / ".exit").rename(run / "exit.json")


def _take(source: Path, target: Path) -> bool:
    """Take the assignment if there is one; a rename, so that a face that withdraws it and we cannot both succeed."""
    try:
        source.rename(target)
    except OSError:
        return False
    return True


def _lock(run: Path, patience: float) -> int | None:
    """The run's lock, or None when another holds it for longer than `patience` seconds."""
    descriptor = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                return None
            time.sleep(POLL)


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory: in our control group where it counts, else on the machine.

    Sources: the kernel's cgroup-v2 document (memory.events), memory.oom_control of version 1, /proc/vmstat.
    """
    candidates: list[Path] = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = entry.split(":", 2)
            path = path.lstrip("/")
            if not controllers:
                candidates.append(Path("/sys/fs/cgroup", path, "memory.events"))
            elif "memory" in controllers.split(","):
                candidates.append(Path("/sys/fs/cgroup/memory", path, "memory.oom_control"))
    for source in (*candidates, Path("/proc/vmstat")):
        with contextlib.suppress(OSError):
            for entry in source.read_text().splitlines():
                if entry.startswith("oom_kill "):
                    return int(entry.split()[1])
    return 0


def main(arguments: list[str]) -> int:
    """Fork off; the first half ends with 0 once the second has a worker, with 1 when that fails, 3 when locked."""
    os.umask(0o077)
    readable, writable = os.pipe()
    if os.fork():
        os.close(writable)
        return {b"+": 0, b"L": 3}.get(os.read(readable, 1), 1)
    os.close(readable)

    def started() -> None:
        os.write(writable, b"+")
        os.close(writable)

    supervisor = Supervisor()
    if arguments[0] == "--warm":
        folder = Path(arguments[1])
        os.chdir(folder.parent)
        supervisor.keep_warm(folder, started)
        return 0
    run = Path(arguments[0])
    os.chdir(run)
    # With --lock the face hands its lock over as an open descriptor: at no moment is the run without one.
    if arguments[1:2] == ["--lock"]:
        os.set_inheritable(int(arguments[2]), False)
    elif _lock(run, 0.0) is None:
        os.write(writable, b"L")
        return 3
    supervisor.serve_run(run, None, started)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
