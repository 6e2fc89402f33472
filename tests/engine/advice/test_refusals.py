"""Why a plan cannot work, and the way out."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from engine.advice import Facts, advise
from engine.advice.stage import NAMES
from engine.recipe import LOSSES, TRAINED_STAGES, Stage
from tests.engine.advice.cases import GB, LLAMA, OLD_CPU, SMOL, card, facts


def refused(given: Facts, **edits: Any) -> str:
    return " | ".join(advise(given, edits=edits).refusals)


def test_nothing_to_train_on() -> None:
    assert "no row" in refused(facts(0))
    assert not refused(facts(1))


def test_every_label_masked_whatever_the_length() -> None:
    assert "every label of all 1,000 rows is masked" in refused(facts(trained_rows=0))
    assert not refused(facts(trained_rows=1))
    assert "masked" not in refused(facts(trained_rows=0, stage="grpo"))


def test_every_label_masked_at_this_length() -> None:
    """The answers begin after 100, 110 and 120 tokens; the first token that is trained must be within the length."""
    given = facts(3, starts=[110, 100, 120])
    assert "at 100 tokens all 3 rows are cut before their answer begins, take at least 101" in refused(
        given, max_length=100
    )
    assert not refused(given, max_length=101)


@pytest.mark.parametrize("stage", get_args(Stage))
def test_a_stage_that_cannot_be_trained_is_planned_only(stage: Stage) -> None:
    assert (f"{NAMES[stage]} is planned only" in refused(facts(stage=stage))) == (stage not in TRAINED_STAGES)


def test_preferences_without_a_beta() -> None:
    assert "needs a beta" in refused(facts(stage="dpo"), beta=None)
    assert "needs a beta" not in refused(facts(stage="dpo"), beta=0.1)


def test_losses_of_another_stage_and_those_that_need_company() -> None:
    assert "DPO has no loss named kto: take one of sigmoid, hinge" in refused(facts(stage="dpo"), loss="kto")
    for loss in LOSSES["dpo"]:
        assert not refused(facts(stage="dpo"), loss=loss, micro_batch=2)
    assert "a micro_batch of 2 at least" in refused(facts(stage="dpo"), loss="aot", micro_batch=1)


def test_what_ppo_cannot_do() -> None:
    """It compares with the base under its adapter, and draws one answer to each prompt of a round."""
    assert not refused(facts(stage="ppo"))
    for method in ("full", "freeze", "galore"):
        assert (
            f"PPO compares with the base under its adapter, and {method} tuning changes the base: take method lora"
            in refused(facts(stage="ppo"), method=method)
        )
    for method in ("prompt", "prefix"):
        assert f"PPO reads the layers themselves, where {method} tuning has nothing: take method lora" in refused(
            facts(stage="ppo"), method=method
        )
    assert "PPO draws one answer to each prompt: leave generations out" in refused(facts(stage="ppo"), generations=4)
    assert "PPO needs answer_length and temperature" in refused(facts(stage="ppo"), answer_length=None)
    few = facts(30, stage="ppo")
    assert not refused(few, micro_batch=15, accumulation=2)
    assert "a round wants 32 prompts, and there are 30: take a smaller micro_batch" in refused(
        few, micro_batch=16, accumulation=2
    )
    complex_ = facts(9000, stage="ppo", complex_task=True)  # elsewhere all weights would learn
    assert advise(complex_).settings.method == "lora" and not refused(complex_)


def test_galore_with_another_optimizer() -> None:
    for optimizer in ("paged_adamw_8bit", "adamw_torch_fused"):
        assert (
            f"GaLore brings its own AdamW, which {optimizer} cannot stand in for: take optimizer adamw_torch"
            in refused(facts(), method="galore", optimizer=optimizer)
        )
    assert not refused(facts(), method="galore")


def test_bottlenecks_without_a_feed_forward_part_that_is_known() -> None:
    linears = [msgspec.structs.replace(one, name=one.name.replace("gate_proj", "fc1")) for one in SMOL.linears]
    strange = facts(model=msgspec.structs.replace(SMOL, linears=linears, model_type="opt"))
    assert "the feed-forward part of opt has no name that bottleneck adapters know: take method lora" in refused(
        strange, method="bottleneck"
    )
    assert not refused(strange, method="galore") and not refused(facts(), method="bottleneck")


def test_longer_than_the_model_reads() -> None:
    assert "9000 tokens are more than the 8192" in refused(facts(), max_length=9000, rope="none")
    assert not refused(facts(), max_length=8192, rope="none")
    assert not refused(facts(), max_length=9000, rope="yarn")


def test_what_the_model_or_the_machine_does_not_support() -> None:
    """Refused in the words of engine.models.support, which the worker uses, too."""
    assert "30 layers, 31 cannot" in refused(facts(), method="freeze", trained_layers=31)
    assert not refused(facts(), method="freeze", trained_layers=30)
    assert not refused(facts(), method="lora", trained_layers=31)
    assert "flash_attention_2 needs a GPU" in refused(facts(hardware=OLD_CPU), attention="flash_attention_2")
    stretched = msgspec.structs.replace(SMOL, rope="llama3")
    assert "stretched already (llama3)" in refused(facts(model=stretched), max_length=9000, rope="linear")
    assert "more than the 8192" in refused(facts(model=stretched), max_length=9000)


def test_a_model_without_tokenizer() -> None:
    assert "tokenizer" in refused(facts(model=msgspec.structs.replace(SMOL, has_tokenizer=False)))


def test_precisions_that_cannot_work() -> None:
    assert "fp16 training needs a GPU" in refused(facts(hardware=OLD_CPU), precision="fp16")
    assert "Tesla T4 does not compute in bf16" in refused(facts(hardware=card(16, "Tesla T4", False)), precision="bf16")


@pytest.mark.parametrize(
    ("edits", "way"),
    [
        ({"micro_batch": 64, "gradient_checkpointing": False}, "a micro-batch of"),
        ({"method": "full", "micro_batch": 1}, "LoRA fits"),
        (
            {"method": "full", "micro_batch": 1, "gradient_checkpointing": False},
            "LoRA with gradient checkpointing fits",
        ),
        ({"method": "lora", "gradient_checkpointing": False, "micro_batch": 1}, "gradient checkpointing fits"),
    ],
)
def test_what_does_not_fit_names_the_way_out(edits: dict[str, Any], way: str) -> None:
    given = facts(5000, model=LLAMA, p99=2000, max=2048, hardware=card(26))
    if "micro_batch" in edits and edits["micro_batch"] == 64:
        given = facts(5000, model=LLAMA, p99=200, max=256, hardware=card(40))
    found = refused(given, **edits)
    assert way in found
    assert "GB are free" in found


def test_a_disk_without_room_for_checkpoints() -> None:
    small = msgspec.structs.replace(card(80), disk_free=1 * GB)
    assert "of disk" in refused(facts(hardware=small), method="full")
    assert not refused(facts(hardware=small))
