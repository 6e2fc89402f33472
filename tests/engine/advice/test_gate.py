"""Whether to tune at all: each outcome of the four questions."""

from __future__ import annotations

import pytest

from engine.advice.gate import gate
from engine.advice.kinds import Facts, Gate, Goal, Question
from engine.advice.plan import advise
from tests.engine.advice.cases import LLAMA, OLD_CPU, card, facts, identity, measured


def judged(given: Facts) -> Gate:
    return advise(given).gate


def question(found: Gate, key: str) -> Question:
    return next(question for question in found.questions if question.key == key)


def test_four_questions_in_their_order_each_with_its_source() -> None:
    found = judged(facts(goal="style"))
    assert [question.key for question in found.questions] == ["data", "hardware", "retrieval", "time"]
    assert {question.source for question in found.questions} == {"PEFT overview", "a cloud vendor's tuning guide"}
    assert all(question.known and question.speaks == "for" for question in found.questions)
    assert found.verdict == "tune"


def test_identity_is_known_to_be_a_persona() -> None:
    found = judged(identity(20))
    assert found.verdict == "tune"
    assert "persona" in question(found, "retrieval").answer


@pytest.mark.parametrize("goal", ["persona", "style", "format", "language", "task"])
def test_goals_that_tuning_wins(goal: Goal) -> None:
    assert judged(facts(goal=goal)).verdict == "tune"


def test_changing_facts_are_looked_up() -> None:
    for given in (facts(goal="changing facts"), identity(goal="changing facts")):
        found = judged(given)
        assert found.verdict == "do not tune"
        assert "retrieval" in found.why


def test_a_goal_that_nobody_said_is_asked_for() -> None:
    found = judged(facts())
    assert found.verdict == "unsure"
    assert not question(found, "retrieval").known
    assert "goal" in found.why


@pytest.mark.parametrize("stage", ["dpo", "kto", "grpo"])
def test_preferences_and_rewards_are_a_goal_themselves(stage: str) -> None:
    assert question(judged(facts(stage=stage)), "retrieval").known


@pytest.mark.parametrize(
    ("rows", "verdict"), [(0, "do not tune"), (9, "do not tune"), (10, "unsure"), (99, "unsure"), (100, "tune")]
)
def test_enough_data(rows: int, verdict: str) -> None:
    found = judged(facts(rows, goal="task"))
    assert found.verdict == verdict
    assert found.why == question(found, "data").answer or verdict == "tune"


def test_nothing_fits_on_this_hardware() -> None:
    found = judged(facts(model=LLAMA, hardware=card(6), goal="style"))
    assert found.verdict == "do not tune"
    assert "6.0 GB are free: take a smaller model" in found.why
    assert judged(facts(model=LLAMA, hardware=card(9), goal="style")).verdict == "tune"


def test_what_fits_only_otherwise_leaves_a_doubt() -> None:
    plan = advise(facts(model=LLAMA, hardware=card(16), goal="style"), edits={"method": "full"})
    assert plan.gate.verdict == "unsure"
    assert "of 16 GB" in plan.gate.why


def test_without_a_model_the_hardware_cannot_be_judged() -> None:
    found = judged(facts(model=None, goal="style"))
    assert found.verdict == "unsure"
    assert not question(found, "hardware").known


def test_a_deadline_by_a_measured_speed() -> None:
    """91 rows of 110 tokens, 5 passes at a hundredth of a second a token: 500 s."""
    speeds = measured(0.01)
    for deadline, verdict in ((400.0, "do not tune"), (600.0, "tune")):
        found = judged(identity(speeds=speeds, deadline=deadline))
        assert found.verdict == verdict
        assert "8 min" in question(found, "time").answer


def test_a_deadline_by_a_rough_estimate_wants_twice_the_time() -> None:
    takes = advise(identity()).seconds
    assert takes is not None
    assert judged(identity(deadline=takes * 0.9)).verdict == "do not tune"
    assert judged(identity(deadline=takes * 1.5)).verdict == "unsure"
    assert "probe" in judged(identity(deadline=takes * 1.5)).why
    assert judged(identity(deadline=takes * 2.1)).verdict == "tune"


def test_a_deadline_on_a_card_of_unknown_speed() -> None:
    found = judged(facts(hardware=card(24, "Unheard Of 9000"), goal="style", deadline=3600.0))
    assert found.verdict == "unsure"
    assert "probe" in found.why


def test_only_a_long_run_asks_for_a_deadline() -> None:
    assert question(judged(identity()), "time").known
    long = judged(facts(100_000, hardware=OLD_CPU, goal="style"))
    assert not question(long, "time").known
    assert long.verdict == "tune"


def test_facts_alone_answer_what_they_can() -> None:
    found = gate(facts(goal="style"), None)
    assert found.verdict == "tune"
    assert "smallest run" in question(found, "hardware").answer
    assert not question(found, "time").known
    assert gate(facts(model=LLAMA, hardware=card(6)), None).verdict == "do not tune"


def test_the_verdict_of_the_plan_says_the_first_thing_to_know() -> None:
    assert advise(facts(max=231, goal="style")).verdict == "ready"
    assert advise(facts(99, max=231)).verdict.startswith("may disappoint: 99 rows are few")
    assert advise(facts(goal="changing facts")).verdict.startswith("do not tune: facts that change")
    assert advise(facts(0)).verdict.startswith("cannot work: there is no row")
