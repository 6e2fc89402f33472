"""A worker started before there is a run, so that its imports are done when the person presses Start.

The warm folder, $XDG_STATE_HOME/ftui/warm/<id>: face.json (who must live for it to stay), supervisor.json, worker.log,
ready (made by the worker after its imports), assign.json (the run, written by the face), cancel.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
from pathlib import Path

from engine.errors import Exit, FtuiError
from engine.paths import private_dir, state_dir, write_private
from engine.runs import processes
from engine.runs.directory import RunDir
from engine.runs.status import last_words, read_json

WAIT = 15 * 60.0  # seconds a warm worker waits for a run
TAKEN_WITHIN = 2.0  # seconds the supervisor has to notice an assignment


class Warm:
    """A worker in waiting. It ends by itself when the face is gone, and after 15 minutes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._supervisor = processes.parse(read_json(path / "supervisor.json"))

    @property
    def alive(self) -> bool:
        return processes.alive(self._supervisor)

    @property
    def ready(self) -> bool:
        """Whether its imports are done and it waits for a run."""
        return (self.path / "ready").exists() and self.alive

    def cancel(self) -> None:
        """End it now. Does nothing once a run was handed over."""
        if (self.path / "face.json").exists() and not (self.path / "taken.json").exists():
            write_private(self.path / "cancel", b"")

    def hand_over(self, run: RunDir, attempt: int, lock: int) -> bool:
        """Have it carry out attempt `attempt` as supervisor.json says. `lock` is the run's, held by the caller.

        True: it has. False: it cannot, and the caller holds the lock again. FtuiError(RUN_STATE) when another start
        took the lock in between.
        """
        if not self.alive:
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        assignment = self.path / "assign.json"
        try:
            write_private(assignment, json.dumps({"run": str(run.path)}))
            until = time.monotonic() + TAKEN_WITHIN
            while self.alive:
                if _begun(run, attempt):
                    return True
                if time.monotonic() > until and assignment.exists():
                    assignment.unlink()  # whoever moves the file first decides
                    self.cancel()
                    break
                time.sleep(0.01)
        except FileNotFoundError:
            pass  # taken in the very moment, or the folder is gone with its supervisor
        while self.alive and (self.path / "taken.json").exists():
            if _begun(run, attempt):
                return True
            time.sleep(0.01)
        if _begun(run, attempt):
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FtuiError(Exit.RUN_STATE, "the run was started elsewhere in this moment", run.name) from None
        return False


def _begun(run: RunDir, attempt: int) -> bool:
    record = read_json(run.supervisor_path)
    return record.get("attempt") == attempt and record.get("worker") is not None


def prewarm(seconds: float = WAIT) -> Warm:
    """Start a supervisor and a worker with nothing to do yet; returns at once, after about 0.1 s.

    FtuiError(RUN_FAILED) when they cannot be started.
    """
    parent = private_dir(state_dir() / "warm")
    for old in parent.iterdir():
        known = processes.parse(read_json(old / "supervisor.json")) or processes.parse(
            read_json(old / "face.json").get("face")
        )
        if not processes.alive(known) and not processes.elsewhere(known):
            shutil.rmtree(old, ignore_errors=True)  # its supervisor was killed
    path = Path(tempfile.mkdtemp(dir=parent))
    me = processes.plain(processes.identity())
    write_private(path / "face.json", json.dumps({"face": me, "seconds": seconds}))
    log = path / "worker.log"
    if not processes.detach("engine.runs.supervisor", "--warm", str(path), log=log):
        where = last_words(log)
        shutil.rmtree(path, ignore_errors=True)
        raise FtuiError(Exit.RUN_FAILED, "a worker could not be started", where)
    return Warm(path)
