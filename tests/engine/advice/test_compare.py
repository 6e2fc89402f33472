"""What moves when one thing is changed."""

from __future__ import annotations

from typing import Any

from engine.advice.compare import Change, brief, compare
from engine.advice.kinds import Plan
from engine.advice.plan import advise
from tests.engine.advice.cases import LLAMA, card, facts

FACTS = facts(600, hardware=card(80))


def plan(**edits: Any) -> Plan:
    return advise(FACTS, {}, edits)


def changed(before: Plan, after: Plan) -> dict[str, Change]:
    return {change.name: change for change in compare(before, after)}


def test_the_same_plan_twice_has_no_changes() -> None:
    assert compare(plan(rank=64), plan(rank=64)) == []
    assert brief([]) == ""


def test_the_edited_setting_comes_first_and_what_moved_with_it_next() -> None:
    changes = compare(plan(), plan(rank=64))
    assert [change.name for change in changes[:2]] == ["rank", "alpha"]
    assert (changes[0].before, changes[0].after) == (32, 64)
    assert all(change.effect for change in changes)
    kinds = [change.kind for change in changes]
    assert kinds == sorted(kinds, key=["setting", "steps", "time", "memory", "part", "refusal", "warning"].index)


def test_an_edit_that_stands_in_both_is_not_what_was_changed() -> None:
    changes = compare(plan(seed=7), plan(seed=7, epochs=9))
    assert changes[0].name == "epochs"
    assert "seed" not in {change.name for change in changes}


def test_parts_of_the_memory_add_up_to_the_change_of_the_whole() -> None:
    changes = compare(plan(), plan(rank=256))
    (whole,) = [change for change in changes if change.kind == "memory"]
    parts = [change for change in changes if change.kind == "part"]
    assert {"adapter", "optimizer"} <= {change.name for change in parts}
    assert sum(change.after - change.before for change in parts) == whole.after - whole.before > 0
    assert whole.effect.startswith("+")
    (back,) = [change for change in compare(plan(rank=256), plan()) if change.kind == "memory"]
    assert back.effect == "-" + whole.effect[1:]


def test_steps_and_time_say_by_how_much() -> None:
    base = plan(epochs=3, accumulation=1, micro_batch=4)
    twice = changed(base, plan(epochs=6, accumulation=1, micro_batch=4))
    assert twice["steps"].after == 2 * twice["steps"].before
    assert twice["steps"].effect == "twice as many updates"
    assert float(twice["time"].effect.removesuffix(" times as long")) > 1.5, (
        "evaluation takes its share whatever the epochs"
    )
    assert twice["steps"].words() == (f"{base.steps:,}", f"{2 * base.steps:,}")
    half = changed(plan(epochs=6, accumulation=1, micro_batch=4), base)
    assert half["steps"].effect == "half as many updates"


def test_a_value_that_is_an_alternative_has_its_effect_and_any_other_the_advice() -> None:
    advice = next(a for a in plan().advice if a.field == "rank")
    alternative = advice.alternatives[0]
    assert changed(plan(), plan(rank=alternative.value))["rank"].effect == alternative.effect
    other = changed(plan(), plan(rank=57))["rank"]
    assert other.effect == f"advised {advice.value}: {advice.reason}"
    assert changed(plan(rank=57), plan())["rank"].effect == advice.reason


def test_warnings_are_gained_lost_or_have_other_numbers() -> None:
    gained = [c for c in compare(plan(), plan(learning_rate=5e-3)) if c.kind == "warning"]
    assert any(c.before is None and "5e-3" in c.after.replace("0.005", "5e-3") and c.effect == "new" for c in gained)
    lost = [c for c in compare(plan(learning_rate=5e-3), plan()) if c.kind == "warning"]
    assert any(c.after is None and c.effect == "gone" for c in lost)
    moved = [c for c in compare(plan(learning_rate=5e-3), plan(learning_rate=6e-3)) if c.kind == "warning"]
    assert any(c.before and c.after and c.effect == "other numbers" for c in moved)


def test_what_can_no_longer_start_is_said() -> None:
    small = facts(600, hardware=card(24), model=LLAMA)
    before, after = advise(small), advise(small, {}, {"method": "full"})
    refused = [c for c in compare(before, after) if c.kind == "refusal"]
    assert refused and refused[0].before is None
    assert "will not start" in brief(compare(before, after))


def test_verdict_and_stage_come_ahead() -> None:
    sft, dpo = advise(facts(600)), advise(facts(600, stage="dpo", goal="changing facts"))
    changes = compare(sft, dpo)
    assert [change.name for change in changes[:2]] == ["verdict", "stage"]
    assert (changes[0].after, changes[1].before, changes[1].after) == ("do not tune", "sft", "dpo")
    assert all(change.effect for change in changes[:2])


def test_brief_says_what_follows() -> None:
    changes = compare(plan(epochs=3), plan(epochs=6, rank=64))
    line = brief(changes)
    assert line.startswith("steps ")
    assert " to " in line
    assert "memory +" in line
