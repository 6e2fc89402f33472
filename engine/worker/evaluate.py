"""The recipe's checks: what the model answered before and what it answers after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedTokenizerBase

from engine import paths
from engine.recipe import Check, Recipe
from engine.runs.events import Answer, Evaluation
from engine.worker import generate


def right(check: Check, answer: str) -> bool:
    """Whether the answer contains any of what was expected, letter case ignored."""
    folded = answer.casefold()
    return any(expected.casefold() in folded for expected in check.expect)


def ask(model: Any, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> dict[str, str]:
    """Question -> greedy answer, for every check of the recipe."""
    questions = [check.ask for check in (*recipe.checks.identity, *recipe.checks.general)]
    return dict(zip(questions, generate.answers(model, tokenizer, questions), strict=True))


def keep_before(path: Path, answers: dict[str, str]) -> None:
    """Remember the base model's answers, so that a resumed run compares with the same ones."""
    paths.write_private(path, msgspec.json.encode(answers))


def read_before(path: Path) -> dict[str, str] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return None


def compare(recipe: Recipe, before: dict[str, str], after: dict[str, str]) -> Evaluation:
    def answer(check: Check) -> Answer:
        old, new = before.get(check.ask, ""), after.get(check.ask, "")
        return Answer(
            ask=check.ask,
            expect=check.expect,
            before=old,
            after=new,
            before_right=right(check, old),
            after_right=right(check, new),
        )

    return Evaluation(
        identity=[answer(check) for check in recipe.checks.identity],
        general=[answer(check) for check in recipe.checks.general],
    )
