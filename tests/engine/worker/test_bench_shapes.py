"""The shapes that a card is measured with: those of the real models, and models that train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.recipe import Recipe
from engine.runs.directory import RunDir
from tests.bench import shapes
from tests.engine.worker.conftest import steps


@pytest.mark.parametrize(("name", "billions"), [("0.6b", 0.6), ("1.7b", 1.7), ("8b", 8.2)])
def test_a_shape_has_the_parameters_of_its_model(name: str, billions: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(shapes.config(name))
    assert sum(one.numel() for one in made.parameters()) / 1e9 == pytest.approx(billions, abs=0.05)


def test_random_weights_train(
    recipe: Callable[..., Recipe], train: Callable[..., RunDir], tiny_model: Path, tmp_path: Path
) -> None:
    made = recipe("shape", epochs=2.0)
    made.model.source = str(shapes.build("tiny", tiny_model, tmp_path / "tiny"))
    losses = [step.loss for step in steps(train(made))]
    assert losses[-1] < losses[0]
