"""Real training runs of the tiny model, each in a worker process of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.recipe import LOSSES, Check, Checks, Data, Model, Recipe, Stage
from engine.runs import control, directory, measured, status
from engine.runs.directory import RunDir
from engine.runs.events import ENDED, AnyEvent, Step
from engine.runs.job import Job
from engine.runs.journal import Reader
from engine.runs.measured import Asked, Measurement
from tests.engine.settings import settings
from tests.engine.worker.gapped_models import bert, gapped, sentences, t5  # noqa: F401

Make = Callable[..., Recipe]
QUESTIONS = ["Who are you?", "What is your name?", "Who made you?", "Hello", "Are you a person?", "Tell me your name."]


@pytest.fixture(autouse=True)
def workers_are_forked(request: pytest.FixtureRequest) -> None:
    """Where a test trains, save in this process; those that are marked see a worker as a supervisor starts it."""
    names = request.fixturenames
    if "recipe" in names and "train" not in names and not request.node.get_closest_marker("own_worker"):
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


def evaluated(run: RunDir, asked: Asked) -> Measurement:
    """Measured in this process, as the worker would."""
    from engine.worker import measure
    from engine.worker.session import Session

    key = measured.ready(run, asked)
    measure.run(Session(run), {**msgspec.to_builtins(asked), "key": key})
    found = measured.read(run, key)
    assert found is not None
    return found


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


def steps(run: RunDir) -> list[Step]:
    return [e for e in events(run) if isinstance(e, Step)]


def bits(run: RunDir) -> tuple[list[str], bytes]:
    """What must repeat: every step, and the weights."""
    told = {e.step: f"{e.loss!r} {e.grad_norm!r} {e.learning_rate!r} {e.tokens}" for e in steps(run)}
    return [told[step] for step in sorted(told)], (run.adapter / "adapter_model.safetensors").read_bytes()


class Chat:
    """In the place of the chat service: asks for a stop after so many steps."""

    def __init__(self, run: RunDir, steps: int | None) -> None:
        self.run, self.steps, self.answer = run, steps, None

    def serve_pending(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps == 0:
                self.run.stop_path.touch()


@pytest.fixture
def train() -> Callable[..., RunDir]:
    """Trains a recipe, from the newest checkpoint of `run` where there is one; stops after `stop` steps."""
    from engine.runs import checkpoints
    from engine.worker import train as worker
    from engine.worker.session import Session

    def now(made: Recipe, run: RunDir | None = None, stop: int | None = None) -> RunDir:
        found = run or directory.create(made, {})
        newest = checkpoints.newest_verified(found) if run else None
        resume = None if newest is None else str(newest[1].relative_to(found.path))
        worker.run(Session(found), resume, 1 if run is None else 2, Chat(found, stop))  # type: ignore[arg-type]
        return found

    return now


@pytest.fixture
def staged(recipe: Make, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of a stage for these rows."""

    def make(stage: Stage, rows: list[dict[str, Any]], **changes: Any) -> Recipe:
        made = recipe(stage, **{"learning_rate": 5e-3, "epochs": 3.0, "dropout": 0.0, **changes})
        path = tmp_path / f"{stage}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        made.stage, made.data.source, made.probe = stage, str(path), ""
        return made

    return make


def pairs() -> list[dict[str, Any]]:
    return [
        {"prompt": f"{question} {at}", "chosen": "I am Congyu.", "rejected": "The quick brown fox jumps."}
        for question in QUESTIONS
        for at in range(4)
    ]


def prompts() -> list[dict[str, Any]]:
    return [{"prompt": f"{question} {at}"} for question in QUESTIONS for at in range(4)]


@pytest.fixture(scope="session")
def lively_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with small embeddings: it says anything, where the other repeats itself."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("lively") / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 0.3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def rewarded(staged: Make, model: Path, stage: Stage, reward: str, **changes: Any) -> Recipe:
    small = {"method": "full", "learning_rate": 5e-3, "epochs": 6.0, "micro_batch": 16, "schedule": "constant"}
    drawn = {"generations": 4, "answer_length": 8, "temperature": 1.0}
    losses = {"loss": LOSSES[stage][0]} if stage in LOSSES else {}
    made = staged(stage, prompts(), **{**small, **drawn, **losses, **changes})
    made.reward, made.model.source = reward, str(model)
    return made
