"""What kind of training the rows are for."""

from __future__ import annotations

import pytest

from engine.advice.plan import advise
from engine.advice.stage import stage
from tests.engine.advice.cases import facts


@pytest.mark.parametrize(
    ("given", "named", "others"),
    [
        ("sft", "SFT", ["dpo"]),
        ("pretraining", "continued pre-training", ["sft"]),
        ("dpo", "DPO", ["reward", "sft"]),
        ("kto", "KTO", ["sft", "dpo"]),
        ("grpo", "GRPO, or RLOO", ["rloo", "ppo", "sft"]),
    ],
)
def test_stage_by_columns_with_what_else_the_rows_could_do(given: str, named: str, others: list[str]) -> None:
    advice = stage(facts(stage=given))
    assert (advice.field, advice.value) == ("stage", given)
    assert named in advice.reason
    assert [other.value for other in advice.alternatives] == others
    assert advise(facts(stage=given)).stage == advice


def test_reinforcement_learning_says_what_became_of_ppo() -> None:
    assert "PPO" in stage(facts(stage="grpo")).disagreement
    assert "reward model" in stage(facts(stage="dpo")).disagreement
