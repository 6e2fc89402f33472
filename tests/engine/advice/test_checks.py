"""What will probably disappoint: each warning on both sides of its limit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.advice.kinds import Facts
from engine.advice.plan import advise
from engine.hardware import Gpu, Hardware
from tests.engine.advice.cases import GB, LLAMA, NEW_CPU, OLD_CPU, SMOL, card, facts, identity


def warned(given: Facts, word: str, **edits: Any) -> str:
    """The one warning that holds `word`; empty where there is none."""
    found = [warning for warning in advise(given, edits=edits).warnings if word in warning]
    assert len(found) <= 1
    return found[0] if found else ""


def test_an_ordinary_plan_has_nothing_against_it() -> None:
    plan = advise(facts(max=231))
    assert (plan.warnings, plan.refusals) == ([], [])


@pytest.mark.parametrize("rows", [100, 499, 500, 4999, 5000, 100_000])
@pytest.mark.parametrize("stage", ["sft", "pretraining", "dpo", "kto", "grpo"])
def test_advice_does_not_warn_against_itself(rows: int, stage: str) -> None:
    for given in (facts(rows, max=231, stage=stage), facts(rows, max=231, stage=stage, hardware=OLD_CPU)):
        assert advise(given).warnings == []


def test_few_rows_warn_unless_identity() -> None:
    assert "99 rows are few" in warned(facts(99), "rows are few")
    assert not warned(facts(100), "rows are few")
    assert not warned(identity(20), "rows are few")


def test_eighteen_updates_do_not_take() -> None:
    """LLaMA-Factory's defaults on its identity data, which its users report as having no effect."""
    warning = warned(identity(), "updates", epochs=3, micro_batch=2, accumulation=8, learning_rate=5e-5)
    assert "18 updates at 5e-5 will not take" in warning
    assert not warned(identity(), "updates")


@pytest.mark.parametrize(("epochs", "warns"), [(4.9, True), (5, False)])
def test_too_few_steps(epochs: float, warns: bool) -> None:
    """100 rows in batches of 10: ten updates a pass, fifty at least."""
    found = warned(facts(100), "updates", micro_batch=10, accumulation=1, epochs=epochs)
    assert bool(found) == warns


@pytest.mark.parametrize(("rate", "verdict"), [(1e-4, "will not take"), (1.1e-4, "may not take")])
def test_few_steps_take_by_their_rate(rate: float, verdict: str) -> None:
    assert verdict in warned(facts(100), "updates", micro_batch=10, accumulation=1, epochs=1, learning_rate=rate)


@pytest.mark.parametrize(
    ("stage", "method", "low", "high"),
    [
        ("sft", "full", 1e-6, 1e-4),
        ("sft", "freeze", 1e-6, 1e-4),
        ("sft", "lora", 5e-5, 2e-3),
        ("sft", "qlora", 5e-5, 2e-3),
        ("pretraining", "full", 1e-6, 1e-4),
        ("pretraining", "lora", 2e-5, 5e-4),
        ("dpo", "full", 1e-7, 1e-5),
        ("dpo", "lora", 5e-7, 5e-5),
        ("kto", "full", 1e-7, 1e-5),
        ("kto", "lora", 5e-7, 5e-5),
        ("grpo", "full", 1e-7, 1e-5),
        ("grpo", "lora", 1e-6, 1e-4),
    ],
)
def test_rates_outside_what_is_used(stage: str, method: str, low: float, high: float) -> None:
    given = facts(max=231, stage=stage)
    assert " is low for " in warned(given, "is low", method=method, learning_rate=low * 0.99)
    assert " is high for " in warned(given, "is high", method=method, learning_rate=high * 1.01)
    for rate in (low, high):
        assert not warned(given, " for a", method=method, learning_rate=rate)
        assert not warned(given, "DPO", method=method, learning_rate=rate)


def test_a_rate_of_sft_is_too_high_for_dpo() -> None:
    assert "2e-4 is high for DPO of an adapter" in warned(facts(stage="dpo"), "high", learning_rate=2e-4)


def test_a_rate_at_which_a_name_does_not_take() -> None:
    assert "1e-3 works" in warned(identity(), "low", learning_rate=2e-4)
    assert not warned(identity(), "low", learning_rate=2.5e-4)


def test_a_batch_larger_than_the_data() -> None:
    assert "32 is more than all 31 rows" in warned(facts(31), "effective batch", micro_batch=8, accumulation=4)
    assert not warned(facts(32), "more than all", micro_batch=8, accumulation=4)


def test_a_batch_too_large_for_an_adapter() -> None:
    assert "keep it below 32" in warned(facts(2000), "effective batch", micro_batch=8, accumulation=4)
    assert not warned(facts(2000), "effective batch", micro_batch=31, accumulation=1)
    assert not warned(facts(2000), "effective batch", micro_batch=8, accumulation=4, method="full")


@pytest.mark.parametrize(
    ("rows", "edits", "limit", "way"),
    [
        (91, {"rank": 8}, 10, "10 passes or fewer"),
        (91, {"rank": 32}, 10, "10 passes or fewer"),
        (91, {"rank": 64}, 5, "5 passes or a rank of 32"),
        (91, {"rank": 512}, 1, "1 pass or a rank of 32"),
        (499, {"method": "full"}, 5, "5 passes or LoRA"),
        (499, {"method": "freeze"}, 5, "5 passes or LoRA"),
        (500, {"method": "full"}, 10, "10 passes or fewer"),
        (500, {"rank": 64}, 10, "10 passes or fewer"),
    ],
)
def test_passes_that_learn_by_heart(rows: int, edits: dict[str, Any], limit: int, way: str) -> None:
    found = warned(facts(rows), "by heart", epochs=limit + 1, **edits)
    assert found.startswith(f"{limit + 1} passes over {rows} rows")
    assert way in found
    assert not warned(facts(rows), "by heart", epochs=limit, **edits)


def test_passes_that_stop_themselves_or_make_new_answers_may_be_many() -> None:
    assert not warned(identity(), "by heart", epochs=30)
    assert warned(identity(), "by heart", epochs=30, stop_on_plateau=False)
    assert not warned(facts(91, stage="grpo"), "by heart", epochs=30)


def test_an_evaluation_set_too_small_to_tell() -> None:
    assert "19 held-out rows say little" in warned(facts(190), "held-out", eval_fraction=0.1)
    assert not warned(facts(200), "held-out", eval_fraction=0.1)
    assert not warned(facts(190), "held-out", eval_fraction=0)


def test_held_out_rows_that_are_trained_on() -> None:
    assert "3 held-out rows stand in the training rows" in warned(facts(overlap=3), "stand")
    assert "1 held-out row stands in" in warned(facts(overlap=1), "stands")
    assert not warned(facts(overlap=0), "held-out")
    assert not warned(facts(overlap=3), "held-out", eval_fraction=0)


def test_cut_rows_are_counted() -> None:
    given = facts(4, lengths=[100, 120, 140, 300], p50=120, p95=300, p99=300, max=300)
    assert not warned(given, "cut")
    assert not warned(given, "cut", max_length=300)
    assert "2 of 4 rows are cut at 120 tokens" in warned(given, "cut", max_length=120)
    assert "1 of 4 rows is cut at 299 tokens" in warned(given, "cut", max_length=299)
    assert "and loses its end token, the longest has 300" in warned(given, "cut", max_length=299)


@pytest.mark.parametrize(
    ("length", "share"), [(256, "under 1 %"), (200, "more than 1 %"), (150, "more than 5 %"), (64, "more than 50 %")]
)
def test_cut_rows_by_percentile_where_only_those_are_known(length: int, share: str) -> None:
    assert share in warned(facts(), "cut", max_length=length)


def test_rows_without_a_label() -> None:
    assert "2 rows have no trained token" in warned(facts(trained_rows=998), "masked")
    assert "1 row has no trained token" in warned(facts(trained_rows=999), "masked")
    assert not warned(facts(trained_rows=1000), "masked")


def test_rows_cut_before_their_answer() -> None:
    given = facts(3, starts=[100, 110, 120], trained_rows=3)
    assert "1 row is cut at 120 tokens before the answer" in warned(given, "before the answer", max_length=120)
    assert "2 rows are cut at 110 tokens before the answer" in warned(given, "before the answer", max_length=110)
    assert not warned(given, "before the answer", max_length=121)


def test_rows_without_a_label_are_told_from_those_cut_before_it() -> None:
    given = facts(5, starts=[100, 110, 120], trained_rows=3)
    assert "1 row is cut at 120" in warned(given, "before the answer", max_length=120)
    assert "2 rows have no trained token" in warned(given, "masked", max_length=120)


def test_rows_are_those_counted_where_some_count_twice() -> None:
    """A source of weight 2: an epoch has 8 rows of 4."""
    given = facts(8, lengths=[100, 120, 140, 300], starts=[50, 60, 70, 80], trained_rows=4, p99=300, max=300)
    assert "1 of 4 counted rows is cut at 299" in warned(given, "cut", max_length=299)
    assert not warned(given, "masked")
    assert "1 row is cut at 80 tokens before" in warned(given, "before the answer", max_length=80)


def test_answers_without_an_end_token() -> None:
    assert "will not learn to stop" in warned(facts(has_end_token=False), "end token: ")
    assert not warned(facts(max=231), "end token")
    assert not warned(facts(max=231, has_end_token=False, stage="grpo"), "end token")


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_beta_out_of_range(stage: str) -> None:
    given = facts(stage=stage)
    assert "0.09 is low" in warned(given, "beta", beta=0.09)
    assert "0.51 is high" in warned(given, "beta", beta=0.51)
    assert not warned(given, "beta", beta=0.1)
    assert not warned(given, "beta", beta=0.5)


def test_a_beta_that_is_ignored() -> None:
    assert "a beta of 0.1 is ignored: SFT" in warned(facts(), "beta", beta=0.1)
    assert not warned(facts(), "beta")


def test_a_length_beyond_the_context() -> None:
    assert "2.0 times the context of 8,192" in warned(facts(), "times the context", max_length=16_384)
    assert not warned(facts(), "times the context", max_length=8192)


def test_numbers_that_do_not_suit_the_machine() -> None:
    assert "8 times slower" in warned(facts(hardware=OLD_CPU), "bf16", precision="bf16")
    assert "slower than fp32" in warned(facts(hardware=NEW_CPU), "bf16", precision="bf16")
    assert "diverged" in warned(facts(), "fp16", precision="fp16")
    assert "several times slower" in warned(facts(), "QLoRA", method="qlora", precision="fp32")
    assert "cannot page" in warned(facts(hardware=OLD_CPU), "paged", optimizer="paged_adamw_8bit")
    assert "lose some exactness" in warned(
        facts(), "8-bit moments", method="full", precision="fp32", optimizer="paged_adamw_8bit"
    )


def test_an_idle_card_is_told() -> None:
    gpu = Gpu(0, "NVIDIA H100", 80 * GB, 80 * GB, 0, True)
    idle = Hardware(gpus=[gpu], memory_free=20 * GB, torch_cuda=False)
    assert "NVIDIA H100 is idle" in warned(facts(hardware=idle), "idle")
    assert not warned(facts(hardware=card(80)), "idle")


def test_prompts_that_are_too_long_are_left_out_and_nothing_is_said_of_answers() -> None:
    given = facts(3, stage="grpo", lengths=[100, 200, 300], starts=[90, 190], max=300)
    assert warned(given, "left out", max_length=250) == (
        "prompts of more than 250 tokens are left out; the longest row has 300"
    )
    assert not warned(given, "answer", max_length=150) and not warned(given, "left out", max_length=300)


def test_what_fits_only_once_other_runs_have_ended_says_so() -> None:
    busy = msgspec.structs.replace(OLD_CPU, memory_free=1 * GB, memory_back=20 * GB)
    assert warned(facts(hardware=busy), "are free now: it fits once the other runs have ended")
    assert not warned(facts(hardware=OLD_CPU), "are free now")
    roomy = msgspec.structs.replace(OLD_CPU, memory_free=20 * GB, memory_back=2 * GB)
    assert not warned(facts(hardware=roomy), "are free now")
    full = advise(facts(model=LLAMA, hardware=busy), edits={"method": "full"})
    assert "are free once the other runs have ended: " in full.refusals[0]


def test_a_chat_that_no_memory_holds_is_told_of() -> None:
    long = msgspec.structs.replace(SMOL, context=10_000_000)
    given = facts(model=long, max=256)
    assert warned(given, "a chat of 10,000,000 tokens takes", max_length=10_000_000)
    assert not warned(given, "a chat of", max_length=8192)


def test_one_row_is_no_rows() -> None:
    plan = advise(facts(1), edits={"epochs": 20})
    said = " ".join([*plan.warnings, *(advice.reason for advice in plan.advice)])
    assert "1 row is few" in said and "1 row holds little" in said and "1 row: all needed" in said
    assert "1 rows" not in said
