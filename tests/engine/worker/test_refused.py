"""What the worker refuses itself before it loads a model: the second look at a recipe that did not come from a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.worker import adapters, build
from tests.engine.settings import settings

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("stage", "changes", "code", "cause", "way"),
    [
        ("sft", {"method": "full"}, Exit.RECIPE_INVALID, "full tuning cannot start from an adapter", "merge it first"),
        (
            "sft",
            {"method": "freeze"},
            Exit.RECIPE_INVALID,
            "freeze tuning cannot start from an adapter",
            "merge it first",
        ),
        ("reward", {}, Exit.RECIPE_INVALID, "a reward model cannot start from an adapter", "merge it first"),
        (
            "sft",
            {"method": "freeze", "trained_layers": 3, "adapter": None},
            Exit.PLAN_REFUSED,
            "the model has 2 layers, 3 cannot be trained: lower trained_layers, or take method full",
            "",
        ),
        (
            "reward",
            {"method": "prompt", "adapter": None},
            Exit.PLAN_REFUSED,
            "a reward model reads its score off the last token, which is not found behind prompt tuning's tokens: "
            "take method lora",
            "",
        ),
    ],
)
def test_a_recipe_is_refused_before_anything_is_loaded(
    recipe: Make,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: Any,
    changes: dict[str, Any],
    code: Exit,
    cause: str,
    way: str,
) -> None:
    monkeypatch.setattr(build, "base_model", lambda *args, **options: pytest.fail("a model was loaded"))
    config = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj"], "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").touch()
    made = recipe(**{"adapter": str(tmp_path), **changes})
    made.stage = stage
    with pytest.raises(FtuiError) as caught:
        build.for_training(made, tiny_model)
    assert (caught.value.code, caught.value.cause, caught.value.next_step or "") == (code, cause, way)


class Strange(torch.nn.Module):
    """A model that nothing is known of: no stack of layers, no attention by its name."""

    config: Any = type("Config", (), {"num_hidden_layers": 7})()

    def __init__(self) -> None:
        super().__init__()
        self.mixer = torch.nn.Linear(4, 4)


def test_layers_and_attention_that_have_no_name() -> None:
    with pytest.raises(FtuiError, match="the layers of this model cannot be found"):
        build.layers(Strange())
    with pytest.raises(FtuiError, match="the attention matrices of this model have names that ftui does not know"):
        adapters._lora(Strange(), settings(targets="attention"), "CAUSAL_LM")
