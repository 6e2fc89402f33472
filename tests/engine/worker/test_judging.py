"""When a loss counts as flat, when an answer counts as right, and what a person reads when it fails."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from engine.errors import Exit, FtuiError
from engine.recipe import Check
from engine.worker import evaluate, failures, plateau


def falling(steps: int, floor: float) -> list[float]:
    noise = random.Random(0)
    return [max(floor, 3 * math.exp(-step / 15)) * noise.uniform(0.9, 1.1) for step in range(steps)]


def test_a_low_flat_loss_is_flat() -> None:
    assert plateau.flat(falling(160, 0.05), steps_per_epoch=20)


@pytest.mark.parametrize("steps", [1, 20, 40])
def test_a_falling_loss_is_not(steps: int) -> None:
    assert not plateau.flat(falling(steps, 0.05), steps_per_epoch=20)


def test_a_high_flat_loss_is_a_run_that_does_not_learn() -> None:
    assert not plateau.flat([2.0] * 200, steps_per_epoch=20)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("I am Congyu.", True), ("i am CONGYU", True), ("I am SmolLM", False), ("", False), ("我是丛雨", True)],
)
def test_an_answer_is_right_when_it_holds_one_of_the_words(answer: str, expected: bool) -> None:
    assert evaluate.right(Check(ask="Who are you?", expect=["Congyu", "丛雨"]), answer) is expected


def test_answers_before_are_kept_for_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    assert evaluate.read_before(path) is None
    evaluate.keep_before(path, {"Who are you?": "SmolLM"})
    assert evaluate.read_before(path) == {"Who are you?": "SmolLM"}
    path.write_text("[")
    assert evaluate.read_before(path) is None


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (OSError(28, "No space left on device"), Exit.DISK_FULL, "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), Exit.DISK_FULL, "disk is full"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8512 vs 8406"),
            Exit.DISK_FULL,
            "full",
        ),
        (FtuiError(Exit.DATA_ROW, "row 3: no answer", "rows.jsonl:3"), Exit.DATA_ROW, "row 3"),
        (MemoryError(), Exit.RUN_FAILED, "out of memory"),
        (ValueError("odd\nthing"), Exit.RUN_FAILED, "ValueError: odd thing"),
    ],
)
def test_a_failure_is_at_most_three_lines(error: Exception, code: Exit, word: str) -> None:
    failure = failures.describe(error, None, "first")
    assert failure.code == code and word in failure.cause
    lines = [line for line in (failure.cause, failure.where, failure.next_step) if line]
    assert len(lines) <= 3 and all("\n" not in line for line in lines)
