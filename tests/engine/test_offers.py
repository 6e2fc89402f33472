"""The values that a setting or the stage could have instead."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from engine import draft as drafts
from engine import offers
from engine.advice import fields
from engine.draft import Choice, Draft
from engine.errors import FtuiError
from engine.recipe import LOSSES, Method, Stage


@pytest.fixture
def draft(tiny_model: Path, tmp_path: Path) -> Draft:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"instruction": "Count to {n}.", "output": "All {n} of them."}}\n' for n in range(40)))
    return drafts.make(Choice(model=str(tiny_model), data=str(rows)))


def test_every_method_with_what_it_does_and_its_memory(draft: Draft) -> None:
    found = offers.choices(draft, "method")
    assert {offer.value for offer in found} == set(get_args(Method))
    for offer in found:
        assert offer.does == fields.DOES["method"][offer.value]
        after = drafts.replan(draft, {"method": offer.value})
        assert after.plan.memory is not None
        assert offer.memory == after.plan.memory.total
        assert bool(offer.refused) == bool(drafts.refusals(after))


def test_a_refused_stage_is_offered_with_the_reason(draft: Draft) -> None:
    found = {offer.value: offer for offer in offers.choices(draft, "stage")}
    assert set(found) == set(get_args(Stage))
    assert not found["sft"].refused
    assert found["dpo"].refused.startswith("these rows are not for DPO: they can train sft")
    assert "needs a reward" in found["grpo"].refused


def test_what_stands_in_the_way_anyway_is_not_held_against_a_value(draft: Draft) -> None:
    """The reward is missing for RLOO as for GRPO, which is the stage by now."""
    found = {offer.value: offer for offer in offers.choices(offers.taken(draft, "stage", "grpo"), "stage")}
    assert not found["rloo"].refused


def test_only_what_has_few_values_is_a_choice(draft: Draft) -> None:
    assert not offers.choices(draft, "rank")
    assert not offers.choices(draft, "beta")
    assert [offer.value for offer in offers.choices(draft, "stop_on_plateau")] == [True, False]
    assert [offer.value for offer in offers.choices(draft, "precision")] == ["fp32", "bf16", "fp16"]
    assert not offers.choices(draft, "loss")
    assert {o.value for o in offers.choices(offers.taken(draft, "stage", "grpo"), "loss")} == set(LOSSES["grpo"])


def test_taking_a_value(draft: Draft) -> None:
    assert offers.taken(draft, "rank", "64").plan.settings.rank == 64
    other = offers.taken(draft, "stage", "grpo")
    assert (other.choice.stage, other.recipe.stage) == ("grpo", "grpo")
    assert offers.taken(other, "stage", "sft").choice.stage is None  # as the rows say
    with pytest.raises(FtuiError, match="there is no stage tuning: sft, pretraining"):
        offers.taken(draft, "stage", "tuning")
