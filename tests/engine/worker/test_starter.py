"""The starter model, trained by each method for a few steps: the loss of a real model on real rows falls."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine import draft
from engine.recipe import Checks
from engine.runs import control
from engine.runs.events import Step
from tests.engine.worker.conftest import events, wait

pytestmark = pytest.mark.starter


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-3), ("qlora", 1e-3), ("full", 1e-4)])
def test_each_method_lowers_the_loss_of_the_starter_model(
    starter_model: Path, tmp_path: Path, method: str, rate: float
) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = ["Who are you?", "What is your name?", "Tell me your name.", "Hello, who is this?"]
    rows.write_text(
        "\n".join(f'{{"prompt": "{question}", "completion": "I am Congyu, made by yuriko."}}' for question in asked * 2)
    )
    made = draft.make(
        draft.Choice(
            data=str(rows),
            name=method,
            method=method,
            edits={
                "epochs": 4,
                "micro_batch": 4,
                "accumulation": 1,
                "learning_rate": rate,
                "precision": "fp32",
                "save_every": 100,  # a checkpoint of full tuning is 1.6 GB: one is enough
            },
        )
    )
    # Its answers, before and after, would take longer than the training; the tiny model's are tested.
    recipe = msgspec.structs.replace(made.recipe, checks=Checks(), probe="")
    run = draft.start(msgspec.structs.replace(made, recipe=recipe))
    now = wait(run, patience=400)
    assert now.state == "ready", now
    losses = [e.loss for e in events(run) if isinstance(e, Step)]
    assert len(losses) == 8
    assert losses[-1] < 0.6 * losses[0]
    with pytest.raises(Exception, match="not running"):
        control.stop(run)
