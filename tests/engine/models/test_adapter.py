"""What a trained adapter fixes for a run that goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Exit, FtuiError
from engine.models import adapter
from engine.recipe import Method
from tests.engine.settings import settings

LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]}
SHAPE: dict[str, Any] = {
    "rank": 4,
    "alpha": 12,
    "targets": "attention",
    "rslora": False,
    "dora": False,
    "init": "default",
    "added_tokens": (),
}


def folder(path: Path, config: dict[str, Any]) -> Path:
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "adapter_model.safetensors").touch()
    return path


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (LORA, SHAPE),
        ({**LORA, "use_rslora": True, "use_dora": True}, {**SHAPE, "rslora": True, "dora": True}),
        ({**LORA, "target_modules": ["q_proj", "down_proj"]}, {**SHAPE, "targets": "all-linear"}),
        ({"peft_type": "IA3"}, {"method": "ia3"}),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 7}, {"method": "prompt", "virtual_tokens": 7}),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 7}, {"method": "prefix", "virtual_tokens": 7}),
        ({"peft_type": "BOTTLENECK", "width": 9}, {"method": "bottleneck", "rank": 9, "added_tokens": ()}),
    ],
)
def test_its_shape_is_read(tmp_path: Path, config: dict[str, Any], shape: dict[str, Any]) -> None:
    assert adapter.read(folder(tmp_path, config)) == shape


def test_the_tokens_that_it_added_are_read_from_the_tokenizer_beside_it(tmp_path: Path) -> None:
    at = folder(tmp_path, {**LORA, "trainable_token_indices": {"embed_tokens": [8, 7], "lm_head": [8, 7]}})
    with pytest.raises(FtuiError, match="cannot be read"):
        adapter.read(at)
    words = [{"id": 3, "content": "<s>"}, {"id": 8, "content": "<b>"}, {"id": 7, "content": "<a>"}]
    (at / "tokenizer.json").write_text(json.dumps({"added_tokens": words}))
    assert adapter.read(at) == {**SHAPE, "added_tokens": ("<a>", "<b>")}


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FtuiError, match="cannot be read") as caught:
        adapter.read(folder(tmp_path, {"peft_type": "LORA", "r": "x"}))
    assert caught.value.code == Exit.RECIPE_INVALID


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"rank": 8, "alpha": 16, "dora": True}, {**SHAPE, "method": "lora", "rank": 8, "alpha": 16, "dora": True}),
        ({"method": "ia3"}, {"method": "ia3"}),
        ({"method": "prefix", "virtual_tokens": 7}, {"method": "prefix", "virtual_tokens": 7}),
        ({"method": "bottleneck", "rank": 9}, {"method": "bottleneck", "rank": 9, "added_tokens": ()}),
        # What PiSSA began is an ordinary LoRA of twice the rank.
        ({"init": "pissa", "rslora": True}, {**SHAPE, "method": "lora", "rank": 16, "alpha": 16}),
    ],
)
def test_what_a_run_leaves(changes: dict[str, Any], shape: dict[str, Any]) -> None:
    left = adapter.left_by(settings(**changes))
    assert left == ({**shape, "targets": "all-linear"} if "targets" in shape else shape)


@pytest.mark.parametrize(
    ("config", "fitting", "other", "words"),
    [
        (LORA, "qlora", "ia3", "ia3 tuning cannot start from this adapter, which LoRA made"),
        ({"peft_type": "IA3"}, "ia3", "lora", "lora tuning cannot start from this adapter, which ia3 made"),
    ],
)
def test_another_method_cannot_go_on_with_it(
    tmp_path: Path, config: dict[str, Any], fitting: Method, other: Method, words: str
) -> None:
    adapter.check(folder(tmp_path, config), fitting)
    with pytest.raises(FtuiError, match=words):
        adapter.check(tmp_path, other)
