"""What is trained: each rule of engine.advice.method."""

from __future__ import annotations

import pytest

from engine.advice import advise
from engine.hardware import Hardware
from tests.engine.advice.cases import LLAMA, NEW_CPU, OLD_CPU, QWEN, SMOL, card, facts, identity, of


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


def test_full_for_a_complex_task_with_many_rows_that_fits() -> None:
    assert of(advise(facts(6000, model=QWEN, complex_task=True)), "method").value == "full"
    assert of(advise(facts(6000, model=QWEN)), "method").value == "lora"
    assert of(advise(facts(5000, model=QWEN, complex_task=True)), "method").value == "lora"
    assert of(advise(facts(6000, model=LLAMA, complex_task=True)), "method").value == "lora"


@pytest.mark.parametrize(("free", "method"), [(24, "lora"), (16, "qlora"), (9, "qlora")])
def test_method_that_memory_holds(free: float, method: str) -> None:
    plan = advise(facts(model=LLAMA, hardware=card(free)))
    assert plan.settings.method == method
    assert plan.refusals == []
    assert plan.memory is not None
    assert plan.memory.total <= free * 10**9


def test_method_says_what_each_needs() -> None:
    advice = of(advise(facts(model=LLAMA, hardware=card(16))), "method")
    assert {other.value for other in advice.alternatives} == {"full", "lora"}
    assert all("of 16 GB" in other.effect for other in advice.alternatives)
    assert "1.4 to 2 times slower" in str(of(advise(facts()), "method").alternatives)


def test_too_large_for_anything_is_refused_with_numbers() -> None:
    plan = advise(facts(model=LLAMA, hardware=card(6)))
    assert len(plan.refusals) == 1
    assert "smaller model" in plan.refusals[0]
    assert "8.0 billion" in plan.refusals[0]
    assert "6.0 GB are free" in plan.refusals[0]


def test_the_processor_has_its_memory_as_limit() -> None:
    assert advise(facts(model=LLAMA, hardware=OLD_CPU)).settings.method == "qlora"
    assert advise(facts(model=QWEN, hardware=OLD_CPU)).settings.method == "lora"


@pytest.mark.parametrize(("rows", "rank"), [(91, 8), (199, 8), (200, 32), (10_000, 32)])
def test_rank_grows_with_the_rows(rows: int, rank: int) -> None:
    plan = advise(facts(rows))
    assert (plan.settings.rank, plan.settings.alpha) == (rank, rank)


def test_alpha_follows_an_edited_rank() -> None:
    plan = advise(facts(), edits={"rank": 64})
    assert plan.settings.alpha == 64
    assert of(plan, "alpha").alternatives[0].value == 128


def test_dropout_and_targets_show_the_other_opinion() -> None:
    plan = advise(facts())
    assert plan.settings.dropout == 0.05
    assert [other.value for other in of(plan, "dropout").alternatives] == [0.0]
    assert plan.settings.targets == "all-linear"
    assert [other.value for other in of(plan, "targets").alternatives] == ["attention"]


@pytest.mark.parametrize(
    ("hardware", "method", "optimizer"),
    [
        (card(80), "lora", "adamw_torch_fused"),
        (card(80), "full", "adamw_torch_fused"),
        (card(80), "qlora", "paged_adamw_8bit"),
        (OLD_CPU, "lora", "adamw_torch"),
        (OLD_CPU, "qlora", "adamw_torch"),
    ],
)
def test_optimizer(hardware: Hardware, method: str, optimizer: str) -> None:
    advice = of(advise(facts(hardware=hardware), edits={"method": method}), "optimizer")
    assert advice.value == optimizer
    if hardware is OLD_CPU and method == "qlora":
        assert "needs a GPU" in advice.reason


def test_identity_keeps_the_base() -> None:
    assert advise(identity()).settings.method == "lora"
