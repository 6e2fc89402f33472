"""The stages beyond SFT, trained for real on the tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.recipe import Recipe
from engine.runs.events import Evaluated, Step
from tests.engine.worker.conftest import QUESTIONS, events, start, wait

Make = Callable[..., Recipe]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": f"{question} {at}", "chosen": "I am Congyu.", "rejected": "The quick brown fox jumps."}
        for question in QUESTIONS
        for at in range(4)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_learns_to_prefer(recipe: Make, pairs: Path, method: str) -> None:
    made = recipe(
        f"dpo-{method}",
        method=method,
        learning_rate=5e-4 if method == "full" else 5e-3,
        epochs=3.0,
        eval_fraction=0.25,
        beta=0.1,
        loss="sigmoid",
        dropout=0.0,
    )
    made.stage, made.data.source = "dpo", str(pairs)
    run = start(made)
    now = wait(run)
    assert now.state == "ready", now
    steps = [e for e in events(run) if isinstance(e, Step)]
    # Before the first step the model is its own reference: the loss is that of a guess.
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert steps[-1].loss < 0.5 * steps[0].loss
    measured = [e for e in events(run) if isinstance(e, Evaluated)]
    assert (measured[0].step, measured[0].accuracy, measured[0].margin) == (0, 0.5, 0.0)
    assert measured[-1].step == steps[-1].step and measured[-1].accuracy == 1.0
    assert measured[-1].margin > 1.0  # type: ignore[operator]
