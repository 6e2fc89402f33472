"""What cannot be trained as set is told from the config and the machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.hardware import Gpu, Hardware
from engine.models import support
from engine.recipe import Stage
from tests.engine.models import known
from tests.engine.settings import settings

SMOL = known.published(known.SMOLLM2_135M)
CPU = Hardware(cpu="processor", cores=2)


def card(bf16: bool) -> Hardware:
    return Hardware(gpus=[Gpu(0, "T4" if not bf16 else "A100", 16 << 30, 16 << 30, 0, bf16)])


@pytest.mark.parametrize(
    ("changes", "hardware", "words"),
    [
        ({"method": "freeze", "trained_layers": 31}, CPU, "30 layers"),
        ({"attention": "flash_attention_2"}, CPU, "needs a GPU"),
        ({"attention": "flash_attention_2"}, card(False), "T4 is older"),
        ({"attention": "flash_attention_2", "precision": "bf16"}, card(True), "not installed"),
    ],
)
def test_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], hardware: Hardware, words: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (reason,) = support.reasons(SMOL, settings(**changes), hardware, "sft")
    assert words in reason and (": take" in reason or ": lower" in reason)


@pytest.mark.parametrize(
    ("changes", "stage", "words"),
    [
        ({"method": "ia3", "rslora": True}, "sft", "rslora is a setting of LoRA, and ia3 tuning has none"),
        ({"method": "prompt", "dora": True}, "sft", "dora is a setting of LoRA, and prompt tuning has none"),
        ({"method": "full", "init": "pissa"}, "sft", "init pissa is a setting of LoRA, and full tuning has none"),
        ({"method": "freeze", "lora_plus": 16.0}, "sft", "lora_plus is a setting of LoRA, and freeze tuning has none"),
        ({"method": "qlora", "init": "pissa"}, "sft", "those of qlora are packed"),
        ({"method": "qlora", "bits": 8, "dora": True}, "sft", "fails with 8 bit: take bits 4"),
        ({"init": "pissa", "dora": True}, "sft", "take one of the two"),
        ({"init": "pissa", "rank": 193}, "sft", "the smallest has 192: take a rank of 192 at most"),
        ({"method": "prompt"}, "reward", "not found behind prompt tuning's tokens: take method lora"),
        ({"method": "prefix"}, "reward", "not found behind prefix tuning's tokens: take method lora"),
        ({"method": "prompt"}, "grpo", "between the tokens of prompt tuning and the text: take method lora"),
        ({"method": "prefix"}, "rloo", "between the tokens of prefix tuning and the text: take method lora"),
        ({"method": "prefix", "gradient_checkpointing": True}, "sft", "turn it off, or take method prompt"),
        ({"method": "prompt", "max_length": 8180}, "sft", "8,180 tokens and 20 virtual ones are more than the 8,192"),
        ({"neftune": 5.0}, "rloo", "neftune's noise would spoil: leave it out"),
        ({"neftune": 5.0, "method": "prompt"}, "sft", "not with the tokens that prompt tuning learns: leave it out"),
        ({"added_tokens": ("<a>",), "method": "ia3"}, "sft", "would never learn: take method lora or full"),
        ({"added_tokens": ("<a>", "")}, "sft", "holds a word without a letter: leave it out"),
        ({"added_tokens": ("a\x1b[2J",)}, "sft", "holds 'a\\x1b[2J': white space around a word and characters"),
        ({"added_tokens": ("<a> ",)}, "sft", "white space around a word"),
        ({"added_tokens": ("a" * 101,)}, "sft", "a text of 101 characters: a token has 100 at most, shorten it"),
        ({"added_tokens": ("<a>",), "method": "freeze", "weight_decay": 0.1}, "sft", "shrink: take weight_decay 0"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], stage: Stage, words: str) -> None:
    (reason,) = support.reasons(SMOL, settings(**changes), CPU, stage)
    assert words in reason


def test_ia3_wants_matrices_that_it_knows() -> None:
    strange = [msgspec.structs.replace(one, name=f"mixer.{one.name}_x") for one in SMOL.linears]
    model = msgspec.structs.replace(SMOL, linears=strange, model_type="strange")
    (reason,) = support.reasons(model, settings(method="ia3"), CPU, "sft")
    assert reason == ("the keys, values and features of strange have names that IA3 does not know: take method lora")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "freeze", "trained_layers": 30},
        {"method": "qlora", "bits": 8},
        {"attention": "eager"},
        {"dora": True, "rslora": True, "lora_plus": 16.0, "neftune": 5.0},
        {"method": "qlora", "dora": True},
        {"init": "pissa", "rank": 192},
        {"method": "ia3"},
        {"method": "prompt", "gradient_checkpointing": True},
        {"method": "prefix"},
    ],
)
def test_the_rest_is_not(changes: dict[str, Any]) -> None:
    assert support.reasons(SMOL, settings(**changes), CPU, "sft") == []


@pytest.mark.parametrize(("rope", "words"), [(None, "no rotary positions"), ("llama3", "stretched already (llama3)")])
def test_positions_that_cannot_be_stretched(rope: str | None, words: str) -> None:
    model = msgspec.structs.replace(SMOL, rope=rope)
    longer = settings(rope="yarn", max_length=2 * SMOL.context)
    (reason,) = support.reasons(model, longer, CPU, "sft")
    assert words in reason
    assert support.reasons(SMOL, longer, CPU, "sft") == []
    assert support.reasons(model, settings(rope="yarn", max_length=SMOL.context), CPU, "sft") == []
