"""How long a row may be, and in which numbers it is computed: each rule of engine.advice.numerics."""

from __future__ import annotations

import msgspec
import pytest

from engine.advice.plan import advise
from engine.hardware import Hardware
from tests.engine.advice.cases import LLAMA, NEW_CPU, OLD_CPU, SMOL, card, facts, of


@pytest.mark.parametrize(("p99", "length"), [(1, 64), (64, 64), (65, 128), (231, 256), (256, 256), (257, 320)])
def test_length_is_p99_rounded_up(p99: int, length: int) -> None:
    advice = of(advise(facts(p99=p99, max=1000)), "max_length")
    assert advice.value == length
    assert advice.source == "your data"
    assert "99 %" in advice.reason


def test_length_is_capped_by_the_context() -> None:
    advice = of(advise(facts(p99=9000, max=20_000)), "max_length")
    assert advice.value == SMOL.context == 8192
    assert all(other.value <= 8192 for other in advice.alternatives)


def test_length_that_cuts_rows_offers_one_that_cuts_none() -> None:
    assert of(advise(facts(max=300)), "max_length").alternatives[0].value == 320


def test_length_of_an_estimate_says_so() -> None:
    advice = of(advise(facts(exact=False)), "max_length")
    assert "estimate" in advice.reason
    assert advice.confidence == "medium"


def test_positions_are_left_alone_within_the_context() -> None:
    advice = of(advise(facts()), "rope")
    assert (advice.value, advice.alternatives) == ("none", [])


def test_rows_beyond_the_context_offer_to_stretch_it() -> None:
    advice = of(advise(facts(p99=9000, max=20_000)), "rope")
    assert advice.value == "none"
    assert [other.value for other in advice.alternatives] == ["linear", "yarn", "llama3"]


def test_a_length_beyond_the_context_stretches_positions() -> None:
    plan = advise(facts(p99=9000, max=20_000), edits={"max_length": 16_384})
    advice = of(plan, "rope")
    assert (advice.value, advice.reason) == ("linear", "2.0 times the context")
    assert [other.value for other in advice.alternatives] == ["yarn", "llama3", "dynamic", "none"]


@pytest.mark.parametrize("rope", ["llama3", "yarn", None])
def test_positions_that_cannot_stretch_are_left_alone(rope: str | None) -> None:
    model = msgspec.structs.replace(SMOL, rope=rope)
    assert of(advise(facts(model=model), edits={"max_length": 16_384}), "rope").value == "none"


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [(OLD_CPU, "fp32"), (NEW_CPU, "fp32"), (card(80), "bf16"), (card(16, "Tesla T4", bf16=False), "fp16")],
    ids=["cpu", "cpu with bf16", "new card", "old card"],
)
def test_precision_comes_from_the_hardware(hardware: Hardware, precision: str) -> None:
    assert of(advise(facts(hardware=hardware)), "precision").value == precision


def test_bf16_on_a_processor_only_to_fit() -> None:
    """Llama-3.1-8B takes 32 GB in fp32 and 16 in bf16."""
    roomy = Hardware(cpu_bf16=True, memory_free=64 * 10**9)
    tight = Hardware(cpu_bf16=True, memory_free=26 * 10**9)
    assert of(advise(facts(model=LLAMA, hardware=roomy)), "precision").value == "fp32"
    assert of(advise(facts(model=LLAMA, hardware=tight)), "precision").value == "bf16"


@pytest.mark.parametrize(
    ("hardware", "others"),
    [(card(80), ["flash_attention_2", "eager"]), (card(16, "Tesla T4", False), ["eager"]), (OLD_CPU, ["eager"])],
    ids=["new card", "old card", "cpu"],
)
def test_attention_is_torchs_own(hardware: Hardware, others: list[str]) -> None:
    advice = of(advise(facts(hardware=hardware)), "attention")
    assert advice.value == "sdpa"
    assert [other.value for other in advice.alternatives] == others


@pytest.mark.parametrize(
    ("hardware", "method", "optimizer"),
    [
        (card(80), "lora", "adamw_torch_fused"),
        (card(80), "full", "adamw_torch_fused"),
        (card(80), "freeze", "adamw_torch_fused"),
        (card(80), "qlora", "paged_adamw_8bit"),
        (OLD_CPU, "lora", "adamw_torch_fused"),
        (OLD_CPU, "qlora", "adamw_torch_fused"),
    ],
)
def test_optimizer(hardware: Hardware, method: str, optimizer: str) -> None:
    advice = of(advise(facts(hardware=hardware), edits={"method": method}), "optimizer")
    assert advice.value == optimizer
    if hardware is OLD_CPU and method == "qlora":
        assert "needs a GPU" in advice.reason
