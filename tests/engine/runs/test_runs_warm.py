"""A worker started ahead: handed over, or gone with the face that wanted it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import paths
from engine.runs import control, processes, status
from engine.runs.control import Job, Warm
from engine.runs.directory import RunDir
from tests.engine.runs.conftest import over, pid_of, until

Make = Callable[..., RunDir]


@pytest.fixture
def warm(make_run: Make) -> Iterator[Warm]:
    found = control.prewarm()
    yield found
    found.cancel()
    until(lambda: not found.alive or not found.path.exists())


def train(run: RunDir, warm: Warm, gpu: int | None = None) -> None:
    control.start(run, Job("train", str(run.path), {"resume": None}), gpu, warm)


def test_hand_over(make_run: Make, warm: Warm) -> None:
    until(lambda: warm.ready)
    assert warm.path.stat().st_mode & 0o077 == 0
    run = make_run("train")
    begun = time.monotonic()
    train(run, warm, gpu=2)
    assert time.monotonic() - begun < 1.0
    until(lambda: status.read(run).state == "ready")
    until(lambda: over(run))
    assert "warm" in run.log_path.read_text() and run.log_path.stat().st_mode & 0o077 == 0
    assert json.loads(run.supervisor_path.read_text())["job"]["options"] == {"resume": None, "gpu": 2}
    assert json.loads(run.exit_path.read_text())["code"] == 0
    assert not warm.path.exists() and not warm.ready


def test_handed_over_run_is_locked_and_survives_its_face(make_run: Make, warm: Warm) -> None:
    until(lambda: warm.ready)
    run = make_run("hang")
    train(run, warm)
    with pytest.raises(Exception, match="already at work"):
        control.start(run, Job("train", str(run.path)))
    until(lambda: status.read(run).step == 7)
    assert os.getsid(pid_of(run, "supervisor")) != os.getsid(0)
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: status.read(run).detail == "killed")


def test_dead_warm_worker_is_replaced(make_run: Make, warm: Warm) -> None:
    until(lambda: warm.ready)
    supervisor = json.loads((warm.path / "supervisor.json").read_text())["pid"]
    (worker,) = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    run = make_run("train")
    train(run, warm)
    until(lambda: status.read(run).state == "ready")
    assert "cold" in run.log_path.read_text()


def test_gone_supervisor_means_a_cold_start_and_is_swept_away(make_run: Make, warm: Warm) -> None:
    until(lambda: warm.ready)
    who = processes.parse(json.loads((warm.path / "supervisor.json").read_text()))
    assert who is not None and processes.send(who, signal.SIGKILL)
    until(lambda: not warm.alive)
    run = make_run("train")
    train(run, warm)
    until(lambda: status.read(run).state == "ready")
    assert "cold" in run.log_path.read_text() and warm.path.exists()
    another = control.prewarm()
    assert not warm.path.exists()
    another.cancel()
    until(lambda: not another.path.exists())


def test_cancel_and_time_limit(make_run: Make) -> None:
    cancelled, timed = control.prewarm(), control.prewarm(seconds=0.2)
    cancelled.cancel()
    for warm in (cancelled, timed):
        until(lambda warm=warm: not warm.path.exists() and not warm.alive)
        warm.cancel()  # and nothing happens


FACE = """
from engine.runs import control
import sys
print(control.prewarm().path, flush=True)
sys.stdin.read()
"""


def test_goes_with_its_face(make_run: Make) -> None:
    face = subprocess.Popen(
        [sys.executable, "-c", FACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=processes.environment()
    )
    assert face.stdout is not None
    warm = Warm(Path(face.stdout.readline().decode().strip()))
    until(lambda: warm.ready)
    supervisor = json.loads((warm.path / "supervisor.json").read_text())["pid"]
    (child,) = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    worker = processes.identity(int(child))
    face.kill()
    face.communicate()
    until(lambda: not warm.alive and not processes.alive(worker) and not warm.path.exists())
    assert list((paths.state_dir() / "warm").iterdir()) == []


def test_a_supervisor_that_does_not_answer_is_left_aside(make_run: Make, warm: Warm) -> None:
    until(lambda: warm.ready)
    who = processes.parse(json.loads((warm.path / "supervisor.json").read_text()))
    assert who is not None and processes.send(who, signal.SIGSTOP)
    run = make_run("train")
    train(run, warm)  # taken back after two seconds, then started cold
    processes.send(who, signal.SIGCONT)
    until(lambda: status.read(run).state == "ready")
    until(lambda: over(run))
    assert run.log_path.read_text().count("job train") == 1 and "cold" in run.log_path.read_text()
