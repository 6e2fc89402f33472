"""The plain questions: a certain answer each, found in any form, and strangers to every preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from engine import general

PRESETS = Path(__file__).parents[2] / "presets"


def test_each_has_an_answer_that_counts_as_right() -> None:
    questions = general.questions()
    assert len(questions) == 24 == len({one.ask for one in questions})
    for one in questions:
        assert one.right(one.lead + one.answer), one.ask
        assert not one.right(one.ask) and not one.right(one.lead), one.ask  # to repeat the question is no answer


def test_none_of_them_is_trained_on_or_checked_by_a_preset() -> None:
    taken = {
        json.loads(line)["instruction"] for file in PRESETS.glob("*.jsonl") for line in file.open() if "instr" in line
    }
    for file in PRESETS.glob("*.yaml"):
        checks = yaml.safe_load(file.read_text()).get("checks") or {}
        taken |= {check["ask"] for kind in checks.values() for check in kind}
    assert len(taken) > 80 and not taken & {one.ask for one in general.questions()}


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("It is 7.", True),
        ("SEVEN", True),
        ("17", False),
        ("7th", False),
        ("seventy", False),
        ("", False),
        ("三加四是7。", True),
    ],
)
def test_a_word_counts_by_itself(said: str, right: bool) -> None:
    (one,) = (one for one in general.questions() if one.ask == "What is 3 + 4?")
    assert one.right(said) is right
