"""A small recipe, runs with a fake worker, and polling instead of sleeping."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.recipe import Data, Model, Recipe
from engine.runs import control, directory, processes, status
from engine.runs.control import Job
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent
from engine.runs.journal import Reader
from engine.runs.view import RunView
from tests.engine.settings import settings

HERE = Path(__file__).parent


def make_recipe(name: str = "congyu", epochs: float = 2) -> Recipe:
    chosen = settings(learning_rate=1e-3, epochs=epochs, alpha=16, warmup=0.1, save_every=5, sample_every=5, seed=1)
    return Recipe(name=name, model=Model(source="starter"), data=Data(source="rows.jsonl"), settings=chosen)


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Poll until `condition` is true and return its value; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return value


def pid_of(run: RunDir, who: str = "worker") -> int:
    found = processes.parse(status.read_json(run.supervisor_path).get(who))
    assert found is not None
    return found.pid


def over(run: RunDir) -> bool:
    """Whether every process of the run has ended."""
    record = status.read_json(run.supervisor_path)
    return not any(processes.alive(processes.parse(record.get(who))) for who in ("supervisor", "worker"))


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """The umask of most logins: what is private then was made private."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunDir]]:
    """make_run(what, name=…, epochs=…): a run whose fake worker does `what`. Whatever still lives is killed at the end."""
    monkeypatch.setenv("FTUI_WORKER_MODULE", "fake_worker")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.chdir(tmp_path)
    made: list[RunDir] = []

    def make(what: str, name: str = "congyu", epochs: float = 2) -> RunDir:
        run = directory.create(make_recipe(name, epochs), {})
        (run.path / "fake.txt").write_text(what)
        made.append(run)
        return run

    yield make
    for run in made:
        kill(run)


def kill(run: RunDir) -> None:
    """Supervisor and worker, SIGKILL; a forked worker goes with its stub."""
    record = status.read_json(run.supervisor_path)
    for who in ("supervisor", "worker"):
        found = processes.parse(record.get(who))
        if found is not None and found.pid != os.getpid():
            with contextlib.suppress(OSError):
                processes.send(found, signal.SIGKILL)


def outcome(run: RunDir) -> tuple[list[str], bytes]:
    """Every loss, rate and gradient norm of the curve, and the weights: what must not differ by one bit."""
    view = RunView()
    view.fold(Reader(run.journal_path).poll())
    curve = [f"{step} {loss!r}" for step, loss in zip(view.steps.step, view.steps.loss, strict=True)]
    return curve, (run.adapter / "adapter_model.safetensors").read_bytes()


def train(run: RunDir) -> None:
    control.start(run, Job("train", str(run.path), {"resume": None}))


def told(run: RunDir, kind: type) -> list[AnyEvent]:
    return [event for event in Reader(run.journal_path).poll() if isinstance(event, kind)]
