"""Failures of training, brought about in a real run: what is shown, what is kept, and that the run goes on from there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.recipe import Recipe
from engine.runs import checkpoints, control, directory, status
from engine.runs.events import Step
from engine.runs.job import Job
from engine.runs.journal import Reader
from tests.engine.runs.conftest import HERE, over, until
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401


@pytest.mark.parametrize(
    ("what", "cause", "next_step"),
    [
        ("nan", "the loss is no longer a number at step 9", "train again with a lower learning rate"),
        ("memory", "out of memory at 4 rows of up to 64 tokens", "--edit micro_batch=2 --edit accumulation=2"),
    ],
)
def test_a_step_that_cannot_be_made(
    recipe: Callable[..., Recipe],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    cause: str,
    next_step: str,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "broken_worker")
    monkeypatch.setenv("FTUI_BREAK", what)
    run = directory.create(recipe(what, epochs=4.0), {})
    control.start(run, Job("train", str(run.path), {"resume": None}))
    until(lambda: over(run), 240)
    now = status.read(run)
    assert now.state == "failed" and now.cause.startswith(cause) and next_step in now.next_step, now
    assert "\n" not in now.cause + now.where + now.next_step
    assert [event.step for event in Reader(run.journal_path).poll() if isinstance(event, Step)] == list(range(1, 9))
    assert checkpoints.newest_verified(run) == (6, run.checkpoints / "step-000006")  # and none of the broken step
    assert "Traceback" in run.log_path.read_text()  # for whoever asks: `ftui logs`
    if what == "memory":  # whose cause may pass by itself
        monkeypatch.delenv("FTUI_WORKER_MODULE")
        assert control.resume(run) == 6
        until(lambda: over(run), 240)
        assert status.read(run).state == "ready"
