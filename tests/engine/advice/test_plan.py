"""The plan as a whole: complete, in order, presets over rules, edits over both."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.cells import cell_len

from engine.advice.kinds import Facts
from engine.advice.numbers import LEARNING_RATES, MEASURED, Number
from engine.advice.plan import advise
from engine.errors import Exit, FtuiError
from engine.recipe import SETTING_FIELDS, setting
from tests.engine.advice.cases import LLAMA, NEW_CPU, OLD_CPU, QWEN, SMOL, card, facts, identity, measured, of

SOURCES = {
    "a cloud vendor's tuning guide",
    "Phi-2 QLoRA tutorial",
    "tuning primer",
    "LLaMA-Factory walk-through",
    "PEFT overview",
    "LoRA Without Regret",
    "TRL documentation",
    "TRL default",
    "LLaMA-Factory default",
    "measured",
    "your data",
    "hardware",
    "the model",
    "rule of thumb",
    "common practice",
    "rank-stabilised LoRA paper",
    "DoRA paper",
    "PiSSA paper",
    "LoRA+ paper",
    "NEFTune paper",
    "IA3 paper",
    "prompt tuning paper",
    "prefix tuning paper",
    "PPO paper",
    "GaLore paper",
    "AdapterFusion paper",
}


def everything() -> list[Facts]:
    """Every kind of model, machine, data size, stage, intent and length together."""
    models = (None, SMOL, QWEN, LLAMA)
    machines = (OLD_CPU, NEW_CPU, card(6), card(24), card(80), card(16, "Tesla T4", False))
    sizes = (1, 91, 600, 12_345_678)
    lengths = ((10, 20, 30, 40), (104, 190, 231, 257), (3000, 100_000, 200_000, 1_000_000))
    kinds = (
        ("sft", "identity", False),
        ("sft", "instructions", True),
        ("pretraining", "text", False),
        ("dpo", "instructions", False),
        ("kto", "instructions", False),
        ("grpo", "instructions", False),
        ("ppo", "instructions", False),
    )
    return [
        facts(
            rows,
            model=model,
            hardware=hardware,
            p50=p50,
            p95=p95,
            p99=p99,
            max=most,
            stage=stage,
            intent=intent,
            complex_task=hard,
        )
        for model, hardware, rows, (p50, p95, p99, most), (stage, intent, hard) in itertools.product(
            models, machines, sizes, lengths, kinds
        )
    ]


# Fields that only some stages have, and those that the data or the machine decides alone.
NONE_ELSE = (
    *("micro_batch", "max_length", "rope", "beta", "loss"),
    *("generations", "answer_length", "temperature", "eval_fraction", "init", "neftune", "added_tokens", "packing"),
)


def test_every_setting_is_advised_with_a_reason_that_fits_its_column() -> None:
    values: set[tuple[str, Any]] = set()
    for given in everything():
        plan = advise(given)
        assert sorted(advice.field for advice in plan.advice) == sorted(SETTING_FIELDS)
        for advice in plan.advice:
            assert getattr(plan.settings, advice.field) == advice.value
            assert 0 < cell_len(advice.reason) <= 40, advice
            assert advice.source in SOURCES, advice
            assert advice.alternatives or advice.field in NONE_ELSE, advice
            assert advice.value not in [other.value for other in advice.alternatives], advice
            assert all(other.effect for other in advice.alternatives)
            values |= {(advice.field, value) for value in (advice.value, *(o.value for o in advice.alternatives))}
    for field, value in values:
        assert setting(field, value) == value


def test_a_plan_that_is_not_refused_fits() -> None:
    for given in everything():
        plan = advise(given)
        if plan.memory is not None:
            assert (plan.memory.total <= given.hardware.budget) == (not plan.refusals), plan.sentence


def test_the_sentence() -> None:
    plan = advise(identity(speeds=measured(0.0026)), edits={"epochs": 5, "micro_batch": 4, "accumulation": 1})
    assert plan.memory is not None
    assert (
        plan.sentence
        == f"SFT with LoRA on 91 rows: 115 optimizer steps, about 2 min, {plan.memory.total / 1e9:.1f} of 22 GB."
    )
    assert "optimizer steps, roughly " in advise(identity()).sentence  # nothing was measured here


@pytest.mark.parametrize(
    ("stage", "method", "words"),
    [
        ("sft", "qlora", "SFT with QLoRA on 2,000 rows: "),
        ("sft", "full", "Full SFT on 2,000 rows: "),
        ("sft", "freeze", "SFT of the last 2 layers on 2,000 rows: "),
        ("pretraining", "full", "Full continued pre-training on 2,000 rows in 900 packs: "),
        ("pretraining", "lora", "Continued pre-training with LoRA on 2,000 rows in 900 packs: "),
        ("dpo", "lora", "DPO with LoRA on 2,000 rows: "),
        ("kto", "full", "Full KTO on 2,000 rows: "),
        ("grpo", "lora", "GRPO with LoRA on 2,000 rows: "),
        ("ppo", "lora", "PPO with LoRA on 2,000 rows: "),
    ],
)
def test_the_sentence_names_stage_and_method(stage: str, method: str, words: str) -> None:
    assert advise(facts(2000, stage=stage), edits={"method": method}).sentence.startswith(words)


def test_without_a_model_there_is_still_a_plan() -> None:
    plan = advise(facts(model=None))
    assert (plan.memory, plan.seconds, plan.refusals) == (None, None, [])
    assert plan.sentence == f"SFT with LoRA on 1,000 rows: {plan.steps} optimizer steps."
    assert "model" in plan.seconds_source


def test_first_things_first() -> None:
    fields = [advice.field for advice in advise(facts()).advice]
    assert fields[:4] == ["method", "learning_rate", "epochs", "micro_batch"]


def test_edits_are_typed_and_kept_apart() -> None:
    plan = advise(facts(), edits={"rank": "16", "learning_rate": "1e-4"})
    assert plan.edits == {"rank": 16, "learning_rate": 1e-4}
    assert (plan.settings.rank, of(plan, "rank").value) == (16, 32)


@pytest.mark.parametrize(
    "edits", [{"rank": "many"}, {"rank": 0}, {"ranks": 8}, {"method": "ppo"}, {"eval_fraction": 0.9}]
)
def test_edits_that_cannot_be(edits: dict[str, Any]) -> None:
    with pytest.raises(FtuiError) as caught:
        advise(facts(), edits=edits)
    assert caught.value.code == Exit.RECIPE_INVALID


def test_an_edit_reaches_everything_derived_from_it() -> None:
    before, after = advise(identity()), advise(identity(), edits={"epochs": 40})
    assert after.settings.micro_batch > before.settings.micro_batch
    longer = advise(identity(), edits={"epochs": 40, "micro_batch": 4, "accumulation": 1})
    assert longer.steps == 40 * 23
    assert longer.settings.save_every == 184


def test_a_preset_is_advice_with_its_name_and_reason() -> None:
    plan = advise(
        identity(), preset={"epochs": 8, "rank": 8}, preset_name="identity", preset_reasons={"epochs": "often enough"}
    )
    advice = of(plan, "epochs")
    assert (advice.value, advice.source, advice.reason) == (8.0, "preset identity", "often enough")
    assert advice.alternatives[0].value == 5.0
    assert "(measured)" in advice.alternatives[0].effect
    assert plan.edits == {}
    assert all(other.value != 8 for other in of(plan, "rank").alternatives)


def test_an_edit_is_over_the_preset() -> None:
    plan = advise(identity(), preset={"epochs": 8}, edits={"epochs": 2})
    assert (plan.settings.epochs, of(plan, "epochs").value) == (2.0, 8.0)


def test_a_preset_means_its_effective_batch() -> None:
    preset = {"micro_batch": 8, "accumulation": 1}
    assert advise(identity(), preset=preset, edits={"micro_batch": 2}).settings.accumulation == 4
    crowded = facts(91, model=LLAMA, p99=2000, max=2048, hardware=card(24))
    chosen = advise(crowded, preset={**preset, "method": "lora"})
    assert chosen.settings.micro_batch < 8
    assert chosen.settings.micro_batch * chosen.settings.accumulation == 8
    assert chosen.refusals == []


def test_a_preset_means_the_ratio_of_alpha_to_rank() -> None:
    assert advise(identity(), preset={"rank": 8, "alpha": 16}, edits={"rank": 32}).settings.alpha == 64


def test_an_adapters_rate_is_not_carried_over_to_full_tuning() -> None:
    plan = advise(identity(), preset={"method": "lora", "learning_rate": 1e-3}, edits={"method": "full"})
    assert plan.settings.learning_rate == 1e-4


def test_a_preset_for_another_machine_yields_to_memory() -> None:
    plan = advise(facts(model=LLAMA, hardware=card(16)), preset={"method": "lora"})
    assert plan.settings.method == "qlora"
    assert plan.refusals == []


def test_time_is_measured_or_says_that_it_is_not() -> None:
    probed = advise(facts(speeds=measured(1e-3, precision="bf16")), edits={"eval_fraction": 0, "epochs": 1})
    assert probed.seconds == pytest.approx(1000 * 110 * 1e-3)
    assert "measured" in probed.seconds_source
    rough = advise(identity(), edits={"epochs": 1})
    # 91 x 110 tokens x 4 x 134.5 M operations at 2 cores x 80 GFLOP/s, of which 0.4 are reached
    assert rough.seconds == pytest.approx(84.1, rel=0.01)
    wide = msgspec.structs.replace(OLD_CPU, cpu_wide=True)
    assert advise(identity(hardware=wide), edits={"epochs": 1}).seconds == pytest.approx(84.1 / 2, rel=0.01)
    assert "rough" in rough.seconds_source
    unknown = advise(facts(hardware=card(24, "Unheard Of 9000")))
    assert unknown.seconds is None
    assert "probe" in unknown.seconds_source


def test_checkpointing_and_full_tuning_take_longer() -> None:
    def seconds(**edits: Any) -> float:
        return advise(facts(), edits={"eval_fraction": 0, **edits}).seconds or 0.0

    assert seconds(method="full") == pytest.approx(1.5 * seconds())
    assert seconds(gradient_checkpointing=True) == pytest.approx(1.5 * seconds())
    assert seconds(max_length=55) == pytest.approx(0.5 * seconds())
    # 900 rows are trained on; each of 10 evaluations reads the other 100 forwards only, half of LoRA's work.
    evaluated = seconds(eval_fraction=0.1, epochs=1, micro_batch=9, accumulation=1, save_every=10)
    assert evaluated == pytest.approx((900 + 10 * 100 / 2) / 1000 * seconds(epochs=1))


def test_padding_takes_time() -> None:
    """One row in two is long: a pair of rows is as long as the long one three times in four."""

    def seconds(micro: int) -> float:
        given = facts(100, lengths=[40, 120] * 50, p50=80, mean=80.0, max=120, speeds=measured(1.0, precision="bf16"))
        return advise(given, edits={"micro_batch": micro, "epochs": 1}).seconds or 0.0

    assert seconds(1) == pytest.approx(100 * 80)
    assert seconds(2) == pytest.approx(100 * (0.25 * 40 + 0.75 * 120))


def test_end_to_end_only_what_is_computed_takes_time() -> None:
    """Of four rows, what all begin with is there once; of a pair, its prompt is."""

    def seconds(padded: bool = False, **edits: Any) -> float:
        kinds = {"stage": edits.pop("stage", "sft"), "starts": [30] * 100}
        found = measured(1.0, padded=padded, precision="bf16")
        given = facts(100, lengths=[40, 120] * 50, p50=80, mean=80.0, max=120, shared=20, speeds=found, **kinds)
        return advise(given, edits={"micro_batch": 4, "epochs": 1, "eval_fraction": 0, **edits}).seconds or 0.0

    assert seconds() == pytest.approx(100 * (80 - 20 * 3 / 4))
    assert seconds(micro_batch=1) == pytest.approx(100 * 80)
    assert seconds(padded=True) == pytest.approx(100 * (40 / 16 + 120 * 15 / 16))
    reference = 1.5  # the reference reads each pair once, half of LoRA's work
    assert seconds(stage="dpo") == pytest.approx(reference * 100 * (2 * 80 - 30 - 20 * 3 / 4))


def test_without_a_measurement_the_settings_tell_whether_padding_is_computed() -> None:
    def seconds(**edits: Any) -> float:
        given = facts(100, lengths=[40, 120] * 50, p50=80, mean=80.0, max=120, shared=20)
        return advise(given, edits={"micro_batch": 4, "epochs": 1, "eval_fraction": 0, **edits}).seconds or 0.0

    padded = 40 / 16 + 120 * 15 / 16
    for edits in ({"unpadded": False}, {"attention": "eager"}, {"neftune": 5.0}):
        assert seconds(**edits) == pytest.approx(seconds() * padded / (80 - 20 * 3 / 4))


def test_lengths_may_be_a_list_or_an_array_in_any_order() -> None:
    """And whole rows are not looped over: only what is sorted once is searched."""
    rows = [40, 120, 80, 257, 60] * 20
    plans = [
        advise(facts(100, lengths=lengths), edits={"max_length": 100})
        for lengths in (rows, sorted(rows), np.array(rows), np.array(rows, dtype=np.int32))
    ]
    assert "40 of 100 rows are cut" in str(plans[0].warnings)
    assert all((plan.warnings, plan.seconds) == (plans[0].warnings, plans[0].seconds) for plan in plans)


def test_every_setting_has_its_rule_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "advice.md").read_text(encoding="utf-8")
    missing = [field for field in SETTING_FIELDS if f" {field}" not in page]
    assert missing == []


def test_a_number_overruled_by_measurement_keeps_the_sources_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    better = Number(4e-4, MEASURED, "the best of a grid")
    monkeypatch.setitem(LEARNING_RATES, ("sft", "adapter"), better)
    advice = of(advise(facts()), "learning_rate")
    assert (advice.value, advice.source) == (4e-4, "measured")
    assert 2e-4 in [other.value for other in advice.alternatives]
    assert "the Phi-2 tutorial 2e-4" in advice.disagreement
