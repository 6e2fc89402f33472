"""What cannot be trained as set is told from the config and the machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.hardware import Gpu, Hardware
from engine.models import facts, support
from tests.engine.models import known
from tests.engine.settings import settings

SMOL = facts.from_config(known.SMOLLM2_135M)
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
    "changes",
    [{}, {"method": "freeze", "trained_layers": 30}, {"method": "qlora", "bits": 8}, {"attention": "eager"}],
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
