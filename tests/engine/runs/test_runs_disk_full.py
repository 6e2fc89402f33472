"""A full disk at any write of a real training's saves: training goes on, and what was saved before is whole.

Three of the writes by default; FTUI_FULL=all every one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from engine.recipe import Recipe
from engine.runs import checkpoints, control, directory, status
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Note, Step
from engine.runs.job import Job
from engine.runs.journal import Reader
from tests.engine.runs.conftest import outcome, over, until
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401

PATIENCE = 300.0  # seconds for one attempt, on a machine that does much else


def trained(run: RunDir) -> status.Status:
    control.start(run, Job("train", str(run.path), {"resume": None}))
    until(lambda: over(run), PATIENCE)
    return status.read(run)


def test_training_goes_on_over_a_full_disk(
    recipe: Callable[..., Recipe],  # noqa: F811
    forks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"epochs": 4.0, "save_every": 3, "sample_every": 6}  # 12 steps, 4 checkpoints
    monkeypatch.setenv("FTUI_FULL_AT", "0")
    undisturbed = directory.create(recipe("undisturbed", **small), {})
    assert trained(undisturbed).state == "ready"
    writes = (undisturbed.path / "saves").stat().st_size
    wanted = os.environ.get("FTUI_FULL", "3")
    count = writes if wanted == "all" else min(writes, int(wanted))
    went_on = 0
    for number in (index * writes // count + 1 for index in range(count)):
        monkeypatch.setenv("FTUI_FULL_AT", str(number))
        run = directory.create(recipe(f"full-{number}", **small), {})
        now = trained(run)
        events = Reader(run.journal_path).poll()
        for step, folder in checkpoints.committed(run):
            assert checkpoints.verify(folder), f"half a checkpoint stands under the name of step {step}"
        told = {event.step for event in events if isinstance(event, Checkpoint)}
        notes = [event.text for event in events if isinstance(event, Note) and "training goes on" in event.text]
        if now.state == "ready":  # a checkpoint found no room, or an old one could not be moved away
            missed = {int(step) for step in re.findall(r"no checkpoint at step (\d+)", "".join(notes))}
            assert len(notes) == 1 and told | missed == {3, 6, 9, 12}, (number, told, notes)  # the last is tried twice
            went_on += 1
        else:  # before the first step, or while the result was written: no step is lost by going on from there
            steps = {event.step for event in events if isinstance(event, Step)}
            assert len(steps) in (0, 12) and len(told) == len(steps) / 3, (number, steps, told)
            assert "full" in now.cause and "resume" in now.next_step, now
            monkeypatch.delenv("FTUI_FULL_AT")
            assert control.resume(run) == len(steps)
            until(lambda run=run: over(run), PATIENCE)
            assert status.read(run).state == "ready"
        assert outcome(run) == outcome(undisturbed), number
    assert went_on
    print(
        f"{count} writes found the disk full: {went_on} while a checkpoint was saved, training went on; "
        f"{count - went_on} before the first step or while the result was written, and resumed; the same bits each time"
    )
