"""Real training runs of the tiny model, each in a worker process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.recipe import Check, Checks, Data, Model, Recipe
from engine.runs import control, directory, status
from engine.runs.directory import RunDir
from engine.runs.events import ENDED, AnyEvent
from engine.runs.job import Job
from engine.runs.journal import Reader
from tests.engine.settings import settings

QUESTIONS = ["Who are you?", "What is your name?", "Who made you?", "Hello", "Are you a person?", "Tell me your name."]


@pytest.fixture(autouse=True)
def workers_are_forked(request: pytest.FixtureRequest) -> None:
    """Where a test trains, save for those that are marked: they see a worker as a supervisor starts it."""
    if "recipe" in request.fixturenames and not request.node.get_closest_marker("own_worker"):
        request.getfixturevalue("forks")


@pytest.fixture(scope="session")
def identity_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short rows that all say the same thing: something even a tiny random model can learn."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [{"prompt": question, "completion": "I am Congyu."} for question in QUESTIONS * 2]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def recipe(tiny_model: Path, identity_rows: Path) -> Callable[..., Recipe]:
    """A small complete recipe; keyword arguments change its settings."""

    def make(name: str = "tiny", checks: bool = False, adapter: str | None = None, **changes: Any) -> Recipe:
        small = {
            "learning_rate": 2e-2,
            "epochs": 8.0,
            "max_length": 64,
            "alpha": 16,
            "dropout": 0.1,
            "save_every": 6,
            "sample_every": 12,
            "seed": 7,
        }
        return Recipe(
            name=name,
            model=Model(source=str(tiny_model)),
            data=Data(source=str(identity_rows)),
            settings=settings(**{**small, **changes}),
            probe="Who are you?",
            adapter=adapter,
            checks=Checks(
                identity=[Check(ask="Who are you?", expect=["Congyu"])] if checks else [],
                general=[Check(ask="What is the capital of France?", expect=["Paris"])] if checks else [],
            ),
        )

    return make


def start(recipe: Recipe) -> RunDir:
    run = directory.create(recipe, {})
    control.start(run, Job(kind="train", run=str(run.path)))
    return run


def events(run: RunDir) -> list[AnyEvent]:
    return Reader(run.journal_path).poll()


def wait(run: RunDir, until: Callable[[status.Status], bool] | None = None, patience: float = 240.0) -> status.Status:
    """Poll the run until it has ended and its worker is gone (or until `until` holds); shows the log when it hangs."""
    condition = until or (lambda now: now.state in ENDED and not now.worker_alive)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        now = status.read(run)
        if condition(now):
            return now
        time.sleep(0.05)
    log = run.log_path.read_text(errors="replace")[-3000:] if run.log_path.exists() else "no log"
    raise AssertionError(f"{run.name} is still {status.read(run).state} after {patience} s\n{log}")
