"""Tries that ftui makes by itself, runs that hang, kills for memory: the rules, and what supervisor and readers do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from engine.cli.app import main
from engine.errors import Exit, FtuiError
from engine.recipe import Settings
from engine.runs import control, processes, recovery, status
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Retry, Start, State
from engine.runs.journal import Reader, Writer
from engine.runs.supervisor import TRIES
from engine.runs.view import RunView
from tests.engine.runs.conftest import over, told, train, until
from tests.engine.settings import settings

Make = Callable[..., RunDir]


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
