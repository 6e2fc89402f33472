"""How it is trained: each rule of engine.advice.schedule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from engine.advice.epoch import optimizer_steps
from engine.advice.kinds import Facts
from engine.advice.numbers import LARGEST_BATCH, LEARNING_RATES, RATES_IN_USE
from engine.advice.plan import advise
from engine.advice.schedule import accumulated
from engine.data import packs, split
from engine.recipe import PPO_PASSES
from tests.engine.advice.cases import LLAMA, OLD_CPU, card, facts, identity, measured, of
from tests.engine.settings import settings


@pytest.mark.parametrize(("rows", "epochs"), [(91, 10), (499, 10), (500, 3), (4999, 3), (5000, 2), (100_000, 2)])
def test_epochs_by_rows(rows: int, epochs: int) -> None:
    assert advise(facts(rows)).settings.epochs == epochs


def test_identity_takes_five_passes_and_shows_the_walk_through_beside_them() -> None:
    advice = of(advise(identity()), "epochs")
    assert (advice.value, advice.source) == (5.0, "measured")
    assert "walk-through" in next(other.effect for other in advice.alternatives if other.value == 10.0)


@pytest.mark.parametrize(
    ("changes", "method", "rate"),
    [
        ({}, "full", 2e-5),
        ({}, "freeze", 2e-5),
        ({}, "lora", 2e-4),
        ({}, "qlora", 2e-4),
        ({"intent": "identity"}, "lora", 2e-3),
        ({"intent": "identity"}, "full", 1e-4),
    ],
)
def test_learning_rate(changes: dict[str, Any], method: str, rate: float) -> None:
    advice = of(advise(facts(**changes), edits={"method": method}), "learning_rate")
    assert advice.value == rate
    assert 5e-5 in [other.value for other in advice.alternatives]


@pytest.mark.parametrize(
    ("stage", "method", "rate"),
    [
        ("pretraining", "full", 2e-5),
        ("pretraining", "lora", 1e-4),
        ("dpo", "full", 1e-6),
        ("dpo", "lora", 5e-6),
        ("dpo", "qlora", 5e-6),
        ("kto", "freeze", 1e-6),
        ("kto", "lora", 5e-6),
        ("grpo", "full", 1e-6),
        ("grpo", "lora", 1e-5),
    ],
)
def test_learning_rate_of_other_stages(stage: str, method: str, rate: float) -> None:
    advice = of(advise(facts(stage=stage), edits={"method": method}), "learning_rate")
    assert advice.value == rate
    assert advice.alternatives


def test_every_advised_rate_is_among_those_in_use() -> None:
    for key, advised in LEARNING_RATES.items():
        low, high = RATES_IN_USE[key]
        assert low < advised.value <= high


@pytest.mark.parametrize(
    ("stage", "beta"),
    [("sft", None), ("pretraining", None), ("grpo", None), ("dpo", 0.1), ("kto", 0.1), ("rloo", 0.05), ("ppo", 0.05)],
)
def test_what_has_a_reference_has_a_beta(stage: str, beta: float | None) -> None:
    assert of(advise(facts(stage=stage)), "beta").value == beta


def test_ppo_makes_four_steps_of_a_round() -> None:
    """One answer to each of 16 prompts, as many as there are answers in a step of GRPO."""
    plan = advise(facts(400, stage="ppo"))
    assert (plan.settings.generations, plan.settings.micro_batch * plan.settings.accumulation) == (None, 16)
    assert (plan.settings.epochs, plan.steps) == (1, 400 // 16 * PPO_PASSES)
    assert advise(facts(400, stage="grpo")).settings.micro_batch == 16
    assert of(plan, "accumulation").reason == "16 x 1 = 16 answers a round"
    assert {0.02, 0.1} <= {other.value for other in of(plan, "beta").alternatives}
    few = advise(facts(10, stage="ppo"))
    assert (few.settings.micro_batch, few.settings.epochs, few.steps) == (10, 10, 40) and not few.refusals
    assert advise(facts(41, stage="ppo"), edits={"epochs": 1.5}).steps == 12  # 2 rounds an epoch; 9 prompts wait


def test_time_of_rewards_counts_answers_at_full_length() -> None:
    """In passes of LoRA's training (4 N): drawn, read by itself and by the reference, half a pass each; then learned."""

    def seconds(stage: str, **edits: Any) -> float:
        plan = advise(
            facts(400, stage=stage, hardware=OLD_CPU, speeds=measured(1e-3)), edits={"answer_length": 90, **edits}
        )
        assert plan.seconds_source.startswith("at most, with answers of full length: ")
        return plan.seconds or 0.0

    tokens = 400 * (110 + 90)
    assert seconds("ppo") == pytest.approx(tokens * (PPO_PASSES + 1.5) * 1e-3)
    assert seconds("grpo") == pytest.approx(8 * tokens * (1 + 0.5) * 1e-3)
    assert seconds("grpo", beta=0.04) == pytest.approx(8 * tokens * (1 + 1.0) * 1e-3)
    assert advise(facts(400, stage="ppo", speeds=measured(1e-3))).seconds is None  # on a card


@pytest.mark.parametrize(
    ("effective", "micro", "gpus", "steps"), [(32, 4, 1, 8), (32, 4, 2, 4), (32, 4, 3, 3), (16, 16, 1, 1), (4, 8, 1, 1)]
)
def test_more_cards_accumulate_less(effective: int, micro: int, gpus: int, steps: int) -> None:
    assert accumulated(effective, micro, gpus) == steps


@pytest.mark.parametrize(
    ("rows", "effective"), [(5, 1), (20, 2), (91, 8), (160, 16), (499, 16), (1000, 16), (50_000, 16)]
)
def test_effective_batch_leaves_about_a_hundred_steps(rows: int, effective: int) -> None:
    plan = advise(facts(rows))
    assert plan.settings.micro_batch * plan.settings.accumulation == effective


def test_only_full_tuning_takes_batches_of_32() -> None:
    chosen = advise(facts(50_000), edits={"method": "full"}).settings
    assert chosen.micro_batch * chosen.accumulation == 32


def test_micro_batch_is_what_memory_holds() -> None:
    roomy = advise(facts(5000, model=LLAMA, mean=900.0, p99=2000, max=2048, hardware=card(80)))
    tight = advise(facts(5000, model=LLAMA, mean=900.0, p99=2000, max=2048, hardware=card(24)))
    for plan in (roomy, tight):
        assert plan.memory is not None
        assert plan.settings.micro_batch * plan.settings.accumulation == 16
        assert plan.refusals == []
        assert plan.settings.micro_batch < 16
    assert not roomy.settings.gradient_checkpointing
    assert tight.settings.gradient_checkpointing
    assert "memory holds" in of(tight, "micro_batch").reason


def test_micro_batch_offers_all_that_fits() -> None:
    """The vendor guide's "as large as memory holds" gives 91 rows 20 steps in 10 epochs: shown, not taken."""
    largest = of(advise(identity()), "micro_batch").alternatives[-1]
    assert largest.value > 8
    assert "vendor guide" in largest.effect


def test_accumulation_follows_an_edited_micro_batch() -> None:
    plan = advise(identity(), edits={"micro_batch": 2})
    assert (plan.settings.micro_batch, plan.settings.accumulation) == (2, 2)
    assert advise(identity(), edits={"micro_batch": 3}).settings.accumulation == 2
    both = advise(identity(), edits={"micro_batch": 2, "accumulation": 1}).settings
    assert (both.micro_batch, both.accumulation) == (2, 1)


def test_checkpointing_only_where_it_is_needed() -> None:
    assert not advise(facts()).settings.gradient_checkpointing
    assert advise(facts(model=LLAMA, p99=4000, max=4096, hardware=card(24))).settings.gradient_checkpointing


def test_checkpointing_that_is_turned_off_makes_the_batch_smaller() -> None:
    crowded = facts(5000, model=LLAMA, mean=500.0, p99=1000, max=1024, hardware=card(40))
    with_it = advise(crowded, edits={"gradient_checkpointing": True})
    without = advise(crowded, edits={"gradient_checkpointing": False})
    assert with_it.settings.micro_batch > without.settings.micro_batch
    assert with_it.refusals == without.refusals == []


@pytest.mark.parametrize(("rows", "fraction"), [(499, 0.0), (500, 0.1), (10_000, 0.1)])
def test_a_tenth_is_held_out_from_500_rows(rows: int, fraction: float) -> None:
    assert advise(facts(rows)).settings.eval_fraction == fraction


def test_fixed_choices() -> None:
    chosen = advise(facts()).settings
    assert (chosen.schedule, chosen.warmup, chosen.weight_decay, chosen.max_grad_norm) == ("cosine", 0.05, 0.0, 1.0)
    assert chosen.seed == 42


def test_only_identity_stops_on_a_flat_loss() -> None:
    assert advise(identity()).settings.stop_on_plateau
    assert not advise(facts(91)).settings.stop_on_plateau


@pytest.mark.parametrize("rows", [1, 10, 91, 1000, 100_000, 3_000_000])
def test_cadence_follows_the_steps(rows: int) -> None:
    plan = advise(facts(rows))
    assert 1 <= plan.settings.sample_every <= 200
    assert 1 <= plan.settings.save_every <= 500
    if 100 < plan.steps < 1000:
        assert plan.steps / plan.settings.save_every == pytest.approx(5, abs=1)
        assert plan.steps / plan.settings.sample_every == pytest.approx(8, abs=1)


@pytest.mark.parametrize(
    ("rows", "micro", "accumulation", "epochs", "fraction", "steps"),
    [
        (91, 4, 1, 5.0, 0.0, 115),
        (91, 8, 1, 10.0, 0.0, 120),
        (91, 4, 2, 1.0, 0.0, 12),
        (1000, 4, 4, 3.0, 0.1, 171),
        (10, 4, 1, 1.5, 0.0, 5),
        (1, 8, 4, 1.0, 0.0, 1),
        (0, 1, 1, 1.0, 0.0, 0),
    ],
)
def test_steps_are_counted_as_the_trainer_counts(
    rows: int, micro: int, accumulation: int, epochs: float, fraction: float, steps: int
) -> None:
    chosen = settings(micro_batch=micro, accumulation=accumulation, epochs=epochs, eval_fraction=fraction)
    assert optimizer_steps(facts(rows), chosen) == steps


def test_packing_by_stage_rows_and_lengths() -> None:
    assert advise(facts(300, stage="pretraining")).settings.packing, "as LLaMA-Factory does"
    short = {"mean": 60.0, "p99": 500, "max": 512}
    assert not advise(facts(4999, **short)).settings.packing
    assert advise(facts(5000, **short)).settings.packing
    assert not advise(facts(5000, mean=130.0, p99=500, max=512)).settings.packing, "less than four to a pack"
    assert not advise(facts(50_000, stage="dpo", **short)).settings.packing
    for edits in ({"method": "prompt"}, {"unpadded": False}, {"attention": "eager"}, {"neftune": 5.0}):
        plan = advise(facts(300, stage="pretraining"), edits=edits)
        assert not plan.settings.packing and not plan.refusals
    assert of(advise(identity()), "packing").value is False


def test_packs_make_fewer_and_larger_steps_that_see_as_many_rows() -> None:
    lengths = [40 + at % 120 for at in range(6000)]
    given = facts(6000, lengths=lengths, mean=100.0, p50=100, p95=150, p99=158, max=159)
    edits = {"max_length": 1024, "eval_fraction": 0.0, "epochs": 2.0}
    packed, apart = (advise(given, edits={**edits, "packing": packing}) for packing in (True, False))
    made = packs.count(np.array(lengths), 1024)
    rows = 6000 / made
    effective = packed.settings.micro_batch * packed.settings.accumulation
    assert 8 < rows < 12 and 1 <= effective <= 2 and rows * effective <= 1.3 * LARGEST_BATCH["adapter"]
    assert packed.steps == 2 * math.ceil(made / effective)
    assert apart.steps == 2 * 6000 / 16
    assert f"on 6,000 rows in {made} packs:" in packed.sentence
    assert of(packed, "accumulation").reason.endswith("a step") and "pack" in of(packed, "accumulation").reason


def test_a_pack_takes_the_memory_of_its_length() -> None:
    """Whatever the longest row: it is filled up with others."""
    edits = {"max_length": 2048, "micro_batch": 2}
    short, whole = (advise(facts(6000, max=longest), edits={**edits, "packing": True}) for longest in (200, 2048))
    assert short.memory == whole.memory
    apart = advise(facts(6000, max=200), edits={**edits, "packing": False})
    assert apart.memory is not None and short.memory is not None and apart.memory.total < short.memory.total


def test_long_texts_are_planned_in_parts() -> None:
    lengths = [100] * 50 + [1000] * 50
    given = facts(100, stage="pretraining", lengths=lengths, mean=550.0, p50=100, p95=1000, p99=1000, max=1000)
    edits = {"max_length": 256, "micro_batch": 2, "accumulation": 1, "epochs": 1.0, "packing": False}
    plan = advise(given, edits={**edits, "eval_fraction": 0.0})
    assert plan.steps == (50 + 50 * 4) / 2 and "on 100 rows in 250 parts:" in plan.sentence
    assert not any("cut" in warning for warning in plan.warnings)
    held = advise(given, edits={**edits, "eval_fraction": 0.1})
    apart = split.held_out(100, 0.1, held.settings.seed)
    left = sum(1 if lengths[at] == 100 else 4 for at in range(100) if at not in apart)
    assert held.steps == math.ceil(left / 2), "the texts that the worker holds out"
    # Each token of every text is computed, as an estimate of the time goes by.
    known = measured(0.001, precision="bf16")
    timed = advise(facts(**{**_given(given), "speeds": known}), edits={**edits, "eval_fraction": 0.0})
    assert timed.seconds is not None and timed.seconds >= 0.001 * sum(lengths)


def _given(one: Facts) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("rows", "stage", "lengths", "mean", "p50", "p95", "p99", "max")}


def test_the_time_of_packs_is_that_of_their_tokens() -> None:
    lengths = [40 + at % 120 for at in range(1000)]
    known = measured(0.001, packing=True, precision="bf16")
    given = facts(1000, lengths=lengths, mean=100.0, max=159, speeds=known)
    edits = {
        "max_length": 512,
        "packing": True,
        "epochs": 1.0,
        "eval_fraction": 0.0,
        "micro_batch": 2,
        "accumulation": 1,
    }
    assert advise(given, edits=edits).seconds == pytest.approx(0.001 * sum(lengths))
