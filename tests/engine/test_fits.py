"""What else fits: every method at every micro-batch, as its own plan would have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from engine import draft as drafts
from engine import fits, offers
from engine.draft import Choice, Draft
from engine.hardware import Hardware
from engine.recipe import Method


@pytest.fixture
def draft(tiny_model: Path, tmp_path: Path) -> Draft:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"Count to {n}.", "output": "All."}) + "\n" for n in range(40)))
    return drafts.make(Choice(model=str(tiny_model), data=str(rows)))


def refused(table: list[fits.Fit]) -> dict[Method, str]:
    return {fit.method: fit.refused for fit in table if fit.refused}


def test_every_method_at_every_micro_batch_takes_what_its_plan_forecasts(draft: Draft) -> None:
    table = fits.table(draft)
    assert {fit.method for fit in table} == set(get_args(Method))
    assert [fit.label for fit in table if fit.bits] == ["QLoRA 8 bit", "QLoRA 4 bit"]
    for fit in table:
        assert not fit.refused
        assert [cell.micro_batch for cell in fit.cells] == list(fits.MICRO_BATCHES)
        totals = [cell.memory.total for cell in fit.cells]
        assert totals == sorted(totals)
        edits = {"method": fit.method, "micro_batch": 4, **({"bits": fit.bits} if fit.bits else {})}
        plan = drafts.replan(draft, edits).plan
        assert fit.cells[2].memory == plan.memory and fit.checkpointing == plan.settings.gradient_checkpointing


def test_what_fits_is_what_is_free(draft: Draft) -> None:
    middle = sorted(cell.memory.total for fit in fits.table(draft) for cell in fit.cells)[30]
    machine = Hardware(cpu="processor", cores=2, memory_total=10**12, memory_free=2 * 10**9)
    machine = msgspec.structs.replace(machine, memory_free=middle + 2 * 10**9 - machine.budget)
    facts = msgspec.structs.replace(draft.advice_facts, hardware=machine)
    cells = [cell for fit in fits.table(msgspec.structs.replace(draft, advice_facts=facts)) for cell in fit.cells]
    assert {cell.fits for cell in cells} == {True, False} and machine.budget == middle
    assert all(cell.fits == (cell.memory.total <= middle) for cell in cells)


def test_a_method_that_the_stage_refuses_says_why(draft: Draft) -> None:
    why = refused(fits.table(offers.taken(offers.taken(draft, "stage", "ppo"), "reward", "length:40")))
    assert set(why) == {"full", "galore", "freeze", "prompt", "prefix"}
    assert "take method lora" in why["full"]


def test_the_plans_own_method_is_refused_like_the_others(draft: Draft) -> None:
    grpo = offers.taken(offers.taken(draft, "stage", "grpo"), "method", "prompt")
    assert set(refused(fits.table(grpo))) == {"prompt", "prefix"}


def test_what_stands_in_the_way_of_all_is_no_matter_of_the_method(draft: Draft) -> None:
    long = offers.taken(offers.taken(draft, "max_length", draft.facts.context + 1), "rope", "none")
    assert drafts.refusals(long) and not refused(fits.table(long))


def test_of_what_fills_in_words_the_methods_for_it_are_left(draft: Draft) -> None:
    facts = msgspec.structs.replace(draft.facts, shape="masked", gaps=True)
    known = msgspec.structs.replace(draft.advice_facts, model=facts)
    masked = offers.taken(msgspec.structs.replace(draft, facts=facts, advice_facts=known), "stage", "pretraining")
    why = refused(fits.table(masked))
    assert set(why) == {"galore", "bottleneck", "ia3", "prefix", "prompt"}
    assert "take method lora or full" in why["ia3"]
