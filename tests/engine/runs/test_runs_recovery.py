"""Tries that ftui makes by itself, runs that hang, kills for memory: the rules, and what supervisor and readers do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from engine.cli import live
from engine.cli.app import main
from engine.errors import Exit, FtuiError
from engine.recipe import Settings
from engine.runs import control, hang, processes, recovery, status
from engine.runs.control import Job
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Checkpoint, Progress, Retry, Start, State, Step
from engine.runs.journal import Reader, Writer
from engine.runs.supervisor import TRIES
from engine.runs.view import RunView
from tests.engine.runs.conftest import over, pid_of, until
from tests.engine.runs.fake_worker import a_step
from tests.engine.settings import settings

Make = Callable[..., RunDir]


def train(run: RunDir) -> None:
    control.start(run, Job("train", str(run.path), {"resume": None}))


def told(run: RunDir, kind: type) -> list[AnyEvent]:
    return [event for event in Reader(run.journal_path).poll() if isinstance(event, kind)]


# rules --------------------------------------------------------------------------------------------------------------


def test_each_step_down_keeps_the_rows_of_a_step() -> None:
    """Odd ones too: fewer rows at once, the same product."""
    for micro, accumulation in product(range(2, 49), range(1, 9)):
        now = settings(micro_batch=micro, accumulation=accumulation)
        change = recovery.less_memory(now)
        assert change is not None
        after = recovery.edited(now, change.settings)
        assert 1 <= after.micro_batch <= micro // 2
        assert after.micro_batch * after.accumulation == now.micro_batch * now.accumulation
        if micro % 2 == 0:
            assert after.micro_batch == micro // 2


@pytest.mark.parametrize(("micro_batch", "fewer"), [(6, 3), (4, 2), (3, None), (2, None)])
def test_a_loss_that_compares_rows_keeps_two_of_them(micro_batch: int, fewer: int | None) -> None:
    change = recovery.less_memory(settings(micro_batch=micro_batch, accumulation=4, loss="kto"))
    assert change is not None
    expected = {"gradient_checkpointing": True}
    if fewer is not None:
        expected = {"micro_batch": fewer, "accumulation": 4 * micro_batch // fewer}
    assert change.settings == expected


def climb(now: Settings, kind: recovery.Kind) -> list[Settings]:
    """The settings of every try, the person's first one included."""
    tries, found = [], [now]
    while (change := recovery.next_try(found[-1], kind, tries)) is not None:
        found.append(recovery.edited(found[-1], change.settings))
        tries.insert(0, Retry(attempt=len(found), kind=kind, cause="", change=change.text))
    return found


def test_the_ladder() -> None:
    found = climb(settings(micro_batch=4, accumulation=2), "memory")
    assert [(s.micro_batch, s.accumulation, s.gradient_checkpointing) for s in found] == [
        (4, 2, False),
        (2, 4, False),
        (1, 8, False),
        (1, 8, True),
    ]
    assert len(climb(settings(micro_batch=64), "memory")) == TRIES
    last = recovery.offers(found[-1], "memory", four_bit=True)
    assert [change.options for change in last] == ["--edit method=qlora", "--edit max_length=128"]
    assert [change.options for change in recovery.offers(found[-1], "memory", four_bit=False)] == [
        "--edit max_length=128"
    ]
    left = recovery.offers(climb(settings(micro_batch=64), "memory")[-1], "memory", four_bit=True)
    assert (
        left[0].options == "--edit micro_batch=4 --edit accumulation=16"
    )  # the ladder goes on where the person agrees
    assert recovery.next_try(settings(micro_batch=1, gradient_checkpointing=True), "memory", []) is None


def test_other_failures_are_tried_once_more() -> None:
    assert [s.learning_rate for s in climb(settings(learning_rate=2e-4), "nan")] == [2e-4, 1e-4]
    assert climb(settings(), "gpu") == [settings(), settings()]
    offered = [change.options for change in recovery.offers(settings(precision="bf16"), "nan", True)]
    assert offered == ["--edit precision=fp32", "--edit learning_rate=0.0001"]
    mixed = [Retry(attempt=3, kind="nan", cause="", change=""), Retry(attempt=2, kind="memory", cause="", change="")]
    assert recovery.next_try(settings(), "memory", mixed) is not None
    assert recovery.next_try(settings(), "nan", mixed) is None


def test_only_the_tries_since_a_person_started_it_count() -> None:
    def made(*attempts: int) -> list[AnyEvent]:
        return [Retry(attempt=number, kind="memory", cause="", change="") for number in attempts]

    assert [one.attempt for one in recovery.tries_before(made(2, 3, 6, 7), 7)] == [7, 6]
    assert recovery.tries_before(made(2, 3, 6, 7), 8) == []  # a person began attempt 8


@pytest.mark.parametrize(
    ("edits", "word"),
    [
        ({"rank": 16}, "rank"),
        ({"method": "full"}, "method"),
        ({"loss": "ipo"}, "loss"),
        ({"accumulation": 2}, "micro_batch x accumulation"),
    ],
)
def test_what_the_checkpoint_does_not_fit_cannot_be_edited(edits: dict[str, object], word: str) -> None:
    with pytest.raises(FtuiError) as refused:
        recovery.edited(settings(), edits)
    assert refused.value.code == Exit.RECIPE_INVALID and word in refused.value.cause


# tries --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flaky(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("FTUI_WORKER_MODULE", "flaky_worker")
    return make_run


def test_a_try_goes_on_from_the_checkpoint_in_a_new_process(flaky: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = flaky("2 then train")
    train(run)
    until(lambda: over(run))
    now = status.read(run)
    assert (now.state, now.step, now.detail) == ("ready", 20, "")
    (begun,) = told(run, Start)
    assert isinstance(begun, Start) and (begun.attempt, begun.from_step) == (3, 5)
    record = json.loads(run.supervisor_path.read_text())
    assert (record["attempt"], record["try"], record["job"]["options"]["resume"]) == (3, 3, "checkpoints/step-000005")
    assert json.loads(run.exit_path.read_text())["attempt"] == 3
    view = RunView()
    view.fold(Reader(run.journal_path).poll())
    assert [one.attempt for one in view.retries] == [2, 3] and list(view.steps.step) == list(range(1, 21))
    assert main(["attach", "congyu"]) == 0
    assert "tried again: fewer rows at once, after out of memory" in capsys.readouterr().out


def test_there_are_never_more_than_four(flaky: Make) -> None:
    run = flaky("99 then train")
    train(run)
    until(lambda: over(run))
    now = status.read(run)
    assert (now.state, now.cause, now.next_step) == ("failed", "out of memory", "ftui resume congyu")
    assert len(told(run, Retry)) == TRIES and json.loads(run.supervisor_path.read_text())["attempt"] == TRIES


def test_a_stop_ends_a_try(flaky: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = flaky("1 then hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    now = status.read(run)
    assert (now.state, now.detail) == ("training", "try 2 of 4")
    assert main(["runs"]) == 0 and "try 2 of 4" in " ".join(capsys.readouterr().out.split())
    assert control.stop(run, wait=True).state == "stopped"
    until(lambda: over(run))


def test_no_try_begins_after_a_stop_was_asked_for(flaky: Make) -> None:
    run = flaky("stop then train")
    train(run)
    until(lambda: over(run))
    now = status.read(run)
    assert (now.state, now.detail, told(run, Start)) == ("stopped", "before the next try", [])
    (run.path / "fake.txt").write_text("0 then train")
    assert control.resume(run) == 5
    until(lambda: over(run))
    assert status.read(run).state == "ready"


def test_going_on_with_other_settings_by_one_command(make_run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("failure")
    train(run)
    until(lambda: over(run))
    before = run.recipe_path.read_bytes()
    assert main(["resume", "congyu", "--edit", "rank=16"]) == Exit.RECIPE_INVALID
    assert run.recipe_path.read_bytes() == before and "rank cannot change within a run" in capsys.readouterr().err
    (run.path / "fake.txt").write_text("train")
    assert main(["resume", "congyu", "--edit", "max_length=128", "-e", "method=qlora", "--wait"]) == 0
    now = run.recipe().settings
    assert (now.max_length, now.method) == (128, "qlora")
    assert (run.path / "recipe.before-resume-1.yaml").read_bytes() == before
    assert "max_length is 128 from here on; method is qlora from here on" in capsys.readouterr().out


# hung ---------------------------------------------------------------------------------------------------------------


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


# memory of the machine ----------------------------------------------------------------------------------------------


CGROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 256 << 20


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """The `cgroup.procs` of a new memory control group of 256 MB: processes written into it live there."""
    group = CGROUPS / f"ftui-test-{os.getpid()}-{tmp_path.name}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        if "oom_kill " not in (group / "memory.oom_control").read_text():
            raise OSError("this kernel does not count")
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group / "cgroup.procs"
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


FACE = """
import sys
from pathlib import Path
from engine.runs import control
from engine.runs.directory import find
run = find(sys.argv[1])
Path(sys.argv[2]).write_text("0")
control.start(run, control.Job("train", str(run.path), {"resume": None}))
"""


def test_a_kill_for_memory_by_the_kernel(make_run: Make, small_memory: Path) -> None:
    run = make_run("eat")
    command = [sys.executable, "-c", FACE, run.name, str(small_memory)]
    subprocess.run(command, env=processes.environment(), check=True)
    until(lambda: over(run), 30)
    ended = json.loads(run.exit_path.read_text())
    assert ended["oom_killed"] and ended["signal"] == signal.SIGKILL and LIMIT / 2 < ended["memory"] < LIMIT * 1.1
    now = status.read(run)
    assert (now.state, now.detail) == ("failed", "killed for memory")
    assert now.cause.startswith("the kernel killed the worker for memory: it held ")
    assert "`ftui resume congyu --edit micro_batch=2 --edit accumulation=2`" in now.next_step
    (run.path / "fake.txt").write_text("train")
    assert control.resume(run, edits={"micro_batch": 2, "accumulation": 2}) == 5
    until(lambda: over(run))
    assert status.read(run).state == "ready"


def test_what_the_journal_keeps_of_a_try(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "events.jsonl")
    writer.write(State(state="preparing", detail="try 2 of 4"))
    writer.write(Retry(attempt=2, kind="memory", cause="c", change="d", settings={"micro_batch": 2}))
    writer.close()
    first, second = Reader(tmp_path / "events.jsonl").poll()
    assert isinstance(first, State) and isinstance(second, Retry) and second.settings == {"micro_batch": 2}
