"""What speaks against a plan, by its numbers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.advice import Facts, advise
from engine.hardware import Gpu, Hardware
from tests.engine.advice.cases import GB, LLAMA, NEW_CPU, OLD_CPU, SMOL, card, facts, identity


def warned(given: Facts, word: str, **edits: Any) -> str:
    """The one warning that holds `word`; empty where there is none."""
    found = [warning for warning in advise(given, edits=edits).warnings if word in warning]
    assert len(found) <= 1
    return found[0] if found else ""


def refused(given: Facts, **edits: Any) -> str:
    return " | ".join(advise(given, edits=edits).refusals)


def test_an_ordinary_plan_has_nothing_against_it() -> None:
    plan = advise(facts(max=231))
    assert (plan.warnings, plan.refusals) == ([], [])


def test_few_rows_warn_unless_identity() -> None:
    assert "99 rows are few" in warned(facts(99), "rows are few")
    assert not warned(facts(100), "rows are few")
    assert not warned(identity(20), "rows are few")


def test_eighteen_updates_do_not_take() -> None:
    """LLaMA-Factory's defaults on its identity data, which its users report as having no effect."""
    warning = warned(identity(), "updates", epochs=3, micro_batch=2, accumulation=8, learning_rate=5e-5)
    assert "18 updates at 5e-05 will not take" in warning
    assert "low" in warned(identity(), "1e-3 works", learning_rate=5e-5)
    assert not warned(identity(), "updates")


@pytest.mark.parametrize(
    ("method", "rate", "word"),
    [
        ("lora", 5e-3, "high"),
        ("full", 1e-3, "high"),
        ("lora", 1e-5, "low"),
        ("full", 1e-7, "low"),
        ("lora", 1e-4, ""),
        ("full", 5e-5, ""),
    ],
)
def test_rates_outside_what_is_used(method: str, rate: float, word: str) -> None:
    found = warned(facts(max=231), f"{rate:g} is", method=method, learning_rate=rate)
    assert (f"{rate:g} is {word}" in found) if word else not found


def test_a_batch_larger_than_the_data() -> None:
    assert "more than all 20 rows" in warned(facts(20), "effective batch", micro_batch=8, accumulation=4)
    assert "keep it below 32" in warned(facts(2000), "effective batch", micro_batch=8, accumulation=4)
    assert not warned(facts(2000), "effective batch", micro_batch=8, accumulation=4, method="full")


def test_cut_rows_are_counted() -> None:
    given = facts(4, lengths=[100, 120, 140, 300], p50=120, p95=300, p99=300, max=300)
    assert not warned(given, "cut")
    assert "2 of 4 rows are cut at 120 tokens" in warned(given, "cut", max_length=120)
    assert "1 of 4 rows is cut at 256 tokens" in warned(given, "cut", max_length=256)
    assert "lose the end token" in warned(given, "cut", max_length=256)


@pytest.mark.parametrize(
    ("length", "share"), [(256, "under 1 %"), (200, "more than 1 %"), (150, "more than 5 %"), (64, "more than 50 %")]
)
def test_cut_rows_by_percentile_where_only_those_are_known(length: int, share: str) -> None:
    assert share in warned(facts(), "cut", max_length=length)


def test_numbers_that_do_not_suit_the_machine() -> None:
    assert "8 times slower" in warned(facts(hardware=OLD_CPU), "bf16", precision="bf16")
    assert "slower than fp32" in warned(facts(hardware=NEW_CPU), "bf16", precision="bf16")
    assert "diverged" in warned(facts(), "fp16", precision="fp16")
    assert "several times slower" in warned(facts(), "QLoRA", method="qlora", precision="fp32")
    assert "cannot page" in warned(facts(hardware=OLD_CPU), "paged", optimizer="paged_adamw_8bit")


def test_an_idle_card_is_told() -> None:
    gpu = Gpu(0, "NVIDIA H100", 80 * GB, 80 * GB, 0, True)
    idle = Hardware(gpus=[gpu], memory_free=20 * GB, torch_cuda=False)
    assert "NVIDIA H100 is idle" in warned(facts(hardware=idle), "idle")


def test_nothing_to_train_on() -> None:
    assert "no row" in refused(facts(0))
    assert not refused(facts(1))


def test_longer_than_the_model_reads() -> None:
    assert "8192" in refused(facts(), max_length=9000)


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
