"""What is trained: each rule of engine.advice.method."""

from __future__ import annotations

import pytest

from engine.advice.plan import advise
from engine.models.facts import ModelFacts
from tests.engine.advice.cases import LLAMA, OLD_CPU, QWEN, SMOL, card, facts, identity, of


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
    assert {other.value for other in advice.alternatives} >= {"full", "freeze", "lora", "galore", "bottleneck"}
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


def test_identity_keeps_the_base() -> None:
    assert advise(identity()).settings.method == "lora"


def test_four_bit_with_eight_and_what_it_would_need_beside_it() -> None:
    advice = of(advise(facts(model=LLAMA, hardware=card(16))), "bits")
    assert advice.value == 4
    assert [other.value for other in advice.alternatives] == [8]
    assert "of 16 GB" in advice.alternatives[0].effect


def test_the_scales_are_packed_with_the_tutorials_choice_beside_it() -> None:
    plan = advise(facts(model=LLAMA, hardware=card(16)))
    advice = of(plan, "double_quantization")
    assert advice.value is True
    assert "Phi-2" in advice.alternatives[0].effect


def test_freeze_trains_the_last_layers() -> None:
    plan = advise(facts(), edits={"method": "freeze"})
    advice = of(plan, "trained_layers")
    assert (advice.value, advice.reason) == (2, f"the last 2 of {SMOL.layers}")
    assert plan.sentence.startswith("SFT of the last 2 layers on 1,000 rows: ")
    assert plan.settings.learning_rate == advise(facts(), edits={"method": "full"}).settings.learning_rate
    assert advise(facts(), edits={"method": "freeze", "trained_layers": 1}).sentence.startswith("SFT of the last layer")


@pytest.mark.parametrize(("rows", "rank"), [(91, 8), (199, 8), (200, 32), (10_000, 32)])
def test_rank_grows_with_the_rows(rows: int, rank: int) -> None:
    plan = advise(facts(rows))
    assert (plan.settings.rank, plan.settings.alpha) == (rank, rank)


@pytest.mark.parametrize(("model", "galore", "bottleneck"), [(SMOL, 128, 32), (LLAMA, 1024, 256), (None, 256, 64)])
def test_galore_and_bottlenecks_go_by_the_models_width(model: ModelFacts | None, galore: int, bottleneck: int) -> None:
    """Their papers: a quarter and a sixteenth of it. A preset's rank is one of LoRA, and is not carried over."""
    for method, rank in (("galore", galore), ("bottleneck", bottleneck)):
        for preset in ({}, {"method": "lora", "rank": 16, "alpha": 32}):
            plan = advise(facts(91, model=model), preset, {"method": method})
            assert plan.settings.rank == rank


def test_a_step_of_galore_counts_a_quarter_so_its_rate_is_four_times() -> None:
    plan = advise(facts(), edits={"method": "galore"})
    assert plan.settings.learning_rate == 4 * advise(facts(), edits={"method": "full"}).settings.learning_rate == 8e-5
    assert 2e-5 in [other.value for other in of(plan, "learning_rate").alternatives]
    assert not [warning for warning in plan.warnings if "8e-5" in warning]
    assert "5e-4 is high for galore tuning: above 4e-4" in str(
        advise(facts(), edits={"method": "galore", "learning_rate": 5e-4}).warnings
    )
    assert plan.settings.optimizer == "adamw_torch" and plan.sentence.startswith(
        "SFT of all weights with GaLore on 1,000"
    )


def test_rewards_want_a_small_rank_and_no_dropout() -> None:
    chosen = advise(facts(10_000, stage="grpo")).settings
    assert (chosen.rank, chosen.alpha, chosen.dropout) == (8, 8, 0.0)


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


@pytest.mark.parametrize(("method", "rate"), [("lora", 2e-4), ("ia3", 3e-3), ("prompt", 3e-2), ("prefix", 1e-2)])
def test_few_numbers_want_a_higher_rate(method: str, rate: float) -> None:
    plan = advise(facts(1000), edits={"method": method})
    advice = of(plan, "learning_rate")
    assert advice.value == pytest.approx(rate) and not any("rate" in one or str(rate) in one for one in plan.warnings)
    assert (2e-4 in [other.value for other in advice.alternatives]) == (method != "lora")
    assert all(0 < other.value <= 1 for other in advice.alternatives)


def test_no_method_is_an_alternative_where_it_is_refused() -> None:
    for stage, out in (
        ("reward", {"prompt", "prefix"}),
        ("grpo", {"prompt", "prefix"}),
        ("sft", set()),
        ("dpo", set()),
    ):
        advice = of(advise(facts(1000, stage=stage)), "method")
        assert {"prompt", "prefix"} - {other.value for other in advice.alternatives} == out


def test_prefix_tuning_is_never_planned_with_checkpointing() -> None:
    plan = advise(facts(1000, model=LLAMA, hardware=card(24)), edits={"method": "prefix", "precision": "bf16"})
    assert plan.settings.gradient_checkpointing is False
    assert not any("gradient checkpointing would lose" in one for one in plan.refusals)
