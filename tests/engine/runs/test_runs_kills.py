"""SIGKILL at random points of real training runs, inside saves too: every run is resumed to the same bits.

A few kills by default; FTUI_KILLS=200 does two hundred. Half of them strike at a random moment of the training, half right
before a random file of a checkpoint or result is opened, made, renamed or removed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from engine.recipe import Recipe
from engine.runs import checkpoints, control, directory, status
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Start
from engine.runs.job import Job
from engine.runs.journal import Reader
from tests.engine.runs.conftest import outcome, over, until
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401

PATIENCE = 300.0  # seconds for one attempt, on a machine that does much else
A_RUN = 8  # kills after which a run is left alone, so that none takes too long to be compared


def ended(run: RunDir) -> status.Status:
    until(lambda: over(run), PATIENCE)
    return status.read(run)


def strike(run: RunDir, delay: float) -> None:
    """Kill the worker `delay` seconds after its training began, unless it ends before."""
    attempt = status.read_json(run.supervisor_path)["attempt"]

    def begun() -> bool:
        events = Reader(run.journal_path).poll()
        return over(run) or any(isinstance(event, Start) and event.attempt == attempt for event in events)

    until(begun, PATIENCE)
    time.sleep(delay)
    with contextlib.suppress(OSError, ValueError):
        if not over(run):
            os.kill(int((run.path / "worker.pid").read_text()), signal.SIGKILL)


def consistent(run: RunDir) -> int:
    """What must hold after a kill; returns the step that the next attempt has to begin from."""
    for step, folder in checkpoints.committed(run):
        assert checkpoints.verify(folder), f"half a checkpoint stands under the name of step {step}"
    told = [event.step for event in Reader(run.journal_path).poll() if isinstance(event, Checkpoint)]
    newest = checkpoints.newest_verified(run)
    reached = newest[0] if newest else 0
    assert reached >= max(told, default=0), "a checkpoint that was journalled is gone"
    return reached


def test_killed_anywhere_and_resumed_to_the_same_bits(
    recipe: Callable[..., Recipe],  # noqa: F811
    forks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = int(os.environ.get("FTUI_KILLS", "4"))
    small = {"epochs": 4.0, "save_every": 3, "sample_every": 6}  # 12 steps, 4 checkpoints
    monkeypatch.setenv("FTUI_KILL_AT", "0")
    undisturbed = directory.create(recipe("undisturbed", **small), {})
    control.start(undisturbed, Job("train", str(undisturbed.path), {"resume": None}))
    assert ended(undisturbed).state == "ready"
    expected = outcome(undisturbed)
    assert len(expected[0]) == 12
    files = (undisturbed.path / "saves").stat().st_size
    times = {type(e).__name__ + str(getattr(e, "step", "")): e.time for e in Reader(undisturbed.journal_path).poll()}
    lasts = times["Step12"] - times["Start"]
    assert files > 40 and lasts > 0

    chance = random.Random(int(os.environ.get("FTUI_KILLS_SEED", "1")))
    struck: Counter[str] = Counter()
    steps: Counter[int] = Counter()
    runs = on_this = 0
    run: RunDir | None = None
    while sum(struck.values()) < wanted or run is not None:
        kind = "" if sum(struck.values()) >= wanted or on_this >= A_RUN else chance.choice(["moment", "save"])
        monkeypatch.setenv("FTUI_KILL_AT", str(chance.randint(1, files)) if kind == "save" else "-1")
        if run is None:
            run, on_this = directory.create(recipe(f"run-{runs}", **small), {}), 0
            runs += 1
            control.start(run, Job("train", str(run.path), {"resume": None}))
        else:
            assert control.resume(run) == consistent(run)
        if kind == "moment":
            strike(run, chance.uniform(0, lasts))
        now = ended(run)
        if now.state == "ready":
            assert outcome(run) == expected, f"{run.name} was resumed to another result"
            print(f"{run.name}: {on_this} kills, the same bits; {sum(struck.values())} kills in all", flush=True)
            run = None
            continue
        assert kind and (now.state, now.detail) == ("failed", "killed"), now
        struck[kind] += 1
        steps[now.step] += 1
        on_this += 1
    print(
        f"{sum(struck.values())} kills in {runs} runs ({struck['moment']} at random moments, {struck['save']} inside saves, at "
        f"{len(steps)} different steps): all resumed, losses and weights identical to an undisturbed run"
    )
