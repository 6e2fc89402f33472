"""A run that hangs is told from one that takes long, and goes on by force."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli import live
from engine.cli.app import main
from engine.errors import Exit, FtuiError
from engine.runs import control, hang, processes, status
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Checkpoint, Progress, Start, Step
from engine.runs.journal import Reader
from tests.engine.runs.conftest import over, pid_of, train, until
from tests.engine.runs.fake_worker import a_step

Make = Callable[..., RunDir]


def at(second: float, step: int) -> Step:
    event = a_step(step)
    event.time = second
    return event


BEGUN = Start(attempt=1, from_step=0, total_steps=9, epochs=1.0, rows=9, time=100.0)


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([BEGUN], hang.UNKNOWN),  # nothing is known of a first step: it loads kernels, or compiles
        ([BEGUN, at(101, 1)], 120),
        ([BEGUN, at(101, 1), at(102, 2), at(132, 3)], 150),
        ([at(0, 98), at(500, 99), BEGUN, at(101, 1)], 120),  # an earlier attempt's steps do not count
        ([BEGUN, at(101, 1), Progress(what="held-out rows", done=0, total=0, time=102)], hang.UNKNOWN),
        ([BEGUN, at(101, 1), Progress(what="a checkpoint", done=0, total=0), Checkpoint(step=1, path="")], 120),
        ([BEGUN, *(at(100 + n + (400 if n > 150 else 0), n) for n in range(1, 200))], 120),  # one slow step of 199
    ],
)
def test_how_long_silence_is_no_hang(events: list[AnyEvent], seconds: float) -> None:
    assert hang.patience(events[-1], hang.between(events)) == seconds


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang, "FLOOR", 0.3)


def test_a_clock_that_jumps_calls_nothing_hung(make_run: Make, impatient: None) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    record, events = status.read_json(run.supervisor_path), Reader(run.journal_path).poll()
    assert hang.look(run, record, events, events[-1].time - 3600) is None
    found = hang.look(run, record, events, events[-1].time + 240)
    assert found is not None and found.words == "hung: nothing for 4 min, after step 7"
    record["worker"] = {**record["worker"], "start": 1}  # not this process: gone, and the supervisor has not seen it
    found = hang.look(run, record, events, events[-1].time + 240)
    assert found is not None and "its supervisor" in found.where
    assert not status.read(run).hung or time.time() - events[-1].time > 0.3


@pytest.mark.parametrize("halted", [("worker",), ("supervisor", "worker")])
def test_a_run_that_hangs_is_told_and_goes_on_by_force(
    make_run: Make, impatient: None, capsys: pytest.CaptureFixture[str], halted: tuple[str, ...]
) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    worker = pid_of(run)
    for who in halted:
        os.kill(pid_of(run, who), signal.SIGSTOP)
    now = until(lambda: (found := status.read(run)).hung and found)
    assert now.state == "training" and now.worker_alive and now.seconds_left is None
    assert now.detail.startswith("hung: nothing for") and now.detail.endswith("after step 7")
    assert now.where == f"its process is halted: kill -CONT {worker} lets it go on"
    assert main(["runs"]) == 0 and "hung: nothing for" in " ".join(capsys.readouterr().out.split())
    assert main(["resume", "congyu"]) == Exit.RUN_STATE
    words = capsys.readouterr().err
    assert "congyu is hung: nothing for" in words and "ftui resume congyu --force" in words

    def watch() -> None:
        with contextlib.suppress(FtuiError):  # between its end by force and its start anew it may be seen as lost
            live.wait(run)

    watching = threading.Thread(target=watch)
    watching.start()
    lines = until(lambda: (found := capsys.readouterr().out).count("kill -CONT") and found).splitlines()
    assert lines[-3].startswith("hung: nothing for") and lines[-2] == now.where and "--force" in lines[-1]
    (run.path / "fake.txt").write_text("train")
    assert main(["resume", "congyu", "--force", "--wait"]) == 0
    assert "goes on from step 5" in capsys.readouterr().out
    watching.join()
    until(lambda: over(run))
    assert status.read(run).state == "ready" and not status.read(run).hung


def test_force_does_nothing_to_a_run_that_is_well(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    with pytest.raises(FtuiError) as refused:
        control.resume(run, force=True)
    assert refused.value.code == Exit.RUN_STATE and status.read(run).worker_alive


STUCK = """
import faulthandler, os, signal, sys, threading
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
faulthandler.register(signal.SIGUSR1, handle, all_threads=False)
import rich.console
class Never:
    def __rich__(self):
        print("stuck", flush=True)
        threading.Event().wait()
rich.console.Console().print(Never())
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[processes.Identity, Path]]:
    """A process that waits within a library for something that never comes, and the file for its stack."""
    command = [sys.executable, "-c", STUCK, str(tmp_path / hang.STACK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"stuck\n"
        who = processes.identity(process.pid)
        assert who is not None
        yield who, tmp_path / hang.STACK
        process.kill()


def test_where_it_hangs_is_asked_once(stuck: tuple[processes.Identity, Path]) -> None:
    worker, file = stuck
    since = time.time() - 60
    words = until(lambda: hang.where(worker, file, since))
    assert words.startswith("hangs in ") and "(rich/" in words and ", line " in words and "\n" not in words
    size = file.stat().st_size
    assert hang.where(worker, file, since) == words and file.stat().st_size == size
    hang.where(worker, file, time.time() + 1)  # a later hang: the stack of then says nothing about it
    until(lambda: file.stat().st_size > size)


def test_who_does_not_listen_is_not_asked(tmp_path: Path) -> None:
    """The signal would end a process that has no handler for it."""
    with subprocess.Popen(["sleep", "60"]) as process:
        who = processes.identity(process.pid)
        assert who is not None and hang.where(who, tmp_path / hang.STACK, 0.0) == ""
        assert process.poll() is None
        process.kill()
