"""Runs of a chain: each waits for those it needs, whatever happens to them, and costs nothing while it does.

Workers are the real one up to their turn; in training's place they wait for a file (see chain_worker).
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine import paths
from engine.errors import FtuiError
from engine.hardware import Hardware
from engine.recipe import Recipe, Stage
from engine.runs import control, directory, links, processes, status, waiting
from engine.runs.control import Job
from engine.runs.directory import RunDir
from engine.runs.events import Failure, State
from engine.runs.journal import Reader, Writer
from tests.engine.runs.chain_worker import leave_result
from tests.engine.runs.conftest import kill, make_recipe, over, pid_of, until
from tests.engine.runs.slot_worker import Machine

Chain = Callable[..., list[RunDir]]


def recipe_of(stage: Stage, **changes: object) -> Recipe:
    name = "a" if stage == "sft" else f"a-{stage}"
    return msgspec.structs.replace(make_recipe(name), stage=stage, **changes)


def made(*more: Stage) -> list[RunDir]:
    """SFT, and after it these stages as the command line has them; nothing is started."""
    recipes = [recipe_of("sft")]
    for stage in more:
        adapter = None if stage == "reward" else "stage:sft"
        recipes.append(recipe_of(stage, adapter=adapter, reward="stage:reward" if stage == "grpo" else None))
    return links.create([(one, {}) for one in recipes])


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Chain]:
    """chain(*stages): SFT and these stages after it, started, as they stand when each trains or waits."""
    machine = Machine(Hardware(cpu="processor", cores=2, memory_total=25 * 10**9, memory_free=20 * 10**9))
    (tmp_path / "machine.json").write_bytes(msgspec.json.encode(machine))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "tests.engine.runs.chain_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("FTUI_TEST_MACHINE", str(tmp_path / "machine.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started: list[RunDir] = []

    def start(*more: Stage) -> list[RunDir]:
        runs = made(*more)
        started.extend(runs)
        for run in runs:
            control.start(run, Job("train", str(run.path), {"resume": None}))
            until(lambda run=run: state(run) in ("training", "queued"))
        return runs

    yield start
    for run in started:
        kill(run)


def state(run: RunDir) -> str:
    return status.read(run).state


def told(run: RunDir) -> str:
    now = status.read(run)
    return f"{now.state}: {now.detail}"


def finish(run: RunDir) -> None:
    (run.path / "finish").touch()


def trains(run: RunDir) -> bool:
    return state(run) == "training"


# the folders ----------------------------------------------------------------------------------------------------------


def test_each_run_has_its_own_recipe_and_the_first_has_them_all() -> None:
    sft, judge, rl = made("reward", "grpo")
    whole = sft.recipe()
    assert whole.then is not None and whole.then.then is not None
    assert (whole.then.then.adapter, whole.then.then.reward) == ("stage:sft", "stage:reward")
    own = rl.recipe()
    assert (own.then, own.adapter, own.reward) == (None, str(sft.adapter), str(judge.path))
    assert judge.recipe().adapter is None
    assert all(links.members(run) == [sft, judge, rl] for run in (sft, judge, rl))
    assert (links.needs(sft), links.needs(judge), links.needs(rl)) == ([], [], [sft, judge])
    assert status.read(rl).after == ["a (sft)", "a-reward (reward)"]
    assert sft.path.stat().st_mode & 0o077 == (sft.path / links.FILE).stat().st_mode & 0o077 == 0


def test_a_run_alone_is_no_chain_and_a_damaged_file_makes_none() -> None:
    (alone,) = links.create([(recipe_of("sft"), {})])
    assert not (alone.path / links.FILE).exists() and links.members(alone) == [alone]
    _, dpo = made("dpo")
    for text in ("{", "[]", '{"runs": [1]}', '{"runs": ["../../elsewhere"]}', '{"runs": null}'):
        (dpo.path / links.FILE).write_text(text)
        assert links.members(dpo) == [dpo] and links.needs(dpo) == []


def test_all_folders_are_made_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = directory.create

    def full(recipe: Recipe, plan: dict[str, object]) -> RunDir:
        if recipe.stage == "dpo":
            raise OSError(28, "No space left on device")
        return real(recipe, plan)

    monkeypatch.setattr(directory, "create", full)
    with pytest.raises(OSError):
        made("dpo")
    assert directory.all_runs() == []


# the order ------------------------------------------------------------------------------------------------------------


def test_each_goes_on_when_those_it_needs_are_ready(chain: Chain) -> None:
    sft, judge, rl = chain("reward", "grpo")
    assert trains(sft)
    assert told(judge) == "queued: behind a on the CPU, 1st in line"  # needs nothing of the first
    assert told(rl) == "queued: waits for a (sft) and a-reward (reward)"
    # What waits is a bare interpreter.
    assert "torch" not in Path(f"/proc/{pid_of(rl)}/maps").read_text()
    assert processes.alive(processes.identity(pid_of(rl, "supervisor")))
    finish(sft)
    until(lambda: trains(judge))
    until(lambda: told(rl) == "queued: waits for a-reward (reward)")
    finish(judge)
    until(lambda: trains(rl))
    finish(rl)
    until(lambda: over(rl))
    assert [state(run) for run in (sft, judge, rl)] == ["ready"] * 3


# accidents ------------------------------------------------------------------------------------------------------------


def test_when_the_first_fails_the_next_stops_and_resume_wakes_both(chain: Chain) -> None:
    sft, dpo = chain("dpo")
    paths.write_private(sft.path / "fail", "no room on the card")
    until(lambda: state(dpo) == "stopped" and over(dpo))
    now = status.read(dpo)
    assert (now.cause, now.where) == ("it waits for a (sft), which failed", "no room on the card")
    assert now.next_step == "ftui resume a-dpo: goes on with both"
    assert control.resume_chain(dpo) == [(sft, 0), (dpo, 0)]  # the earlier one first, whichever was named
    until(lambda: trains(sft) and told(dpo) == "queued: waits for a (sft)")
    assert status.read(dpo).cause == ""
    finish(sft)
    until(lambda: trains(dpo))


def test_a_stop_of_the_first_and_of_the_next(chain: Chain) -> None:
    sft, dpo = chain("dpo")
    assert control.stop(dpo, wait=True).detail == "before its turn came"
    assert trains(sft)
    assert control.resume_chain(sft) == [(dpo, 0)]  # the first is left alone
    until(lambda: told(dpo) == "queued: waits for a (sft)")
    with pytest.raises(FtuiError, match="a is already at work"):
        control.resume_chain(sft)
    control.stop(sft, wait=True)
    until(lambda: told(dpo) == "stopped: it waits for a (sft), which was stopped")
    control.resume_chain(sft)
    until(lambda: trains(sft) and told(dpo) == "queued: waits for a (sft)")


def test_everything_killed_within_the_first_and_between_two(chain: Chain) -> None:
    runs = sft, dpo = chain("dpo")
    for run in runs:
        kill(run)
    until(lambda: over(sft) and over(dpo))
    assert [state(run) for run in runs] == ["lost", "lost"]
    assert [run for run, _ in control.resume_chain(sft)] == [sft, dpo]
    until(lambda: trains(sft) and told(dpo) == "queued: waits for a (sft)")
    kill(dpo)
    until(lambda: over(dpo))
    finish(sft)
    until(lambda: state(sft) == "ready" and over(sft))
    assert state(dpo) == "lost"
    assert [run for run, _ in control.resume_chain(sft)] == [dpo]  # by the name of the chain, which is the first one's
    until(lambda: trains(dpo))
    kill(dpo)
    until(lambda: over(dpo))
    control.resume_chain(dpo)
    until(lambda: trains(dpo))
    finish(dpo)
    until(lambda: state(dpo) == "ready" and over(dpo))
    with pytest.raises(FtuiError, match="a is finished"):
        control.resume_chain(sft)


def look(run: RunDir) -> tuple[bool, list[str], list[object]]:
    """One look at what `run` waits for: whether it may go on, what it says, and what stands in its journal after that."""
    said: list[str] = []
    goes_on = waiting.wait(run, Writer(run.journal_path), said.append, lambda _: False)
    return goes_on, said, Reader(run.journal_path).poll()


def ready(run: RunDir) -> None:
    journal = Writer(run.journal_path)
    leave_result(run, journal)
    journal.write(State(state="ready"))


@pytest.mark.parametrize("what", ["whole", "changed", "missing", "file missing", "gone"])
def test_a_result_that_is_not_whole_is_not_begun_from(what: str) -> None:
    sft, dpo = made("dpo")
    ready(sft)
    weights = sft.adapter / "adapter_model.safetensors"
    match what:
        case "changed":
            weights.write_bytes(weights.read_bytes()[::-1])
        case "missing":
            weights.unlink()
        case "file missing":
            (sft.adapter / "tokenizer.json").unlink()
        case "gone":
            shutil.rmtree(sft.path)
    goes_on, said, journal = look(dpo)
    assert (goes_on, said) == (what == "whole", [])
    if goes_on:
        assert journal == []
        return
    why, now = journal
    assert isinstance(why, Failure) and isinstance(now, State) and (now.state, now.detail) == ("failed", why.cause)
    causes = {
        "changed": "the result of a is not whole: adapter_model.safetensors has changed",
        "missing": "the result of a is not whole: its weights are missing",
        "file missing": "the result of a is not whole: tokenizer.json is missing",
        "gone": f"the run it begins from is gone: {sft.name}",
    }
    assert (why.cause, why.where) == (causes[what], str(sft.path))
    again = "begin the chain anew" if what == "gone" else f"`ftui train {sft.recipe_path}` begins the chain anew"
    assert why.next_step == again


def test_one_that_was_never_started_is_not_waited_for() -> None:
    """As after a kill between two starts."""
    _, dpo = made("dpo")
    goes_on, said, (why, now) = look(dpo)
    assert not goes_on and said == [] and now.state == "stopped"
    assert (why.cause, why.where) == ("it waits for a (sft), which is lost", "the run was never started")


def test_nobody_stops_while_the_first_is_being_resumed() -> None:
    """Whoever resumes a run holds its lock: what waits for it must not leave meanwhile, or nobody would wake it."""
    sft, dpo = made("dpo")
    writer = Writer(sft.journal_path)
    writer.write(State(state="stopped"))
    with sft.lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert look(dpo) == (False, ["waits for a (sft)"], [])
    goes_on, said, journal = look(dpo)
    assert (goes_on, said, [type(event) for event in journal]) == (False, [], [Failure, State])
