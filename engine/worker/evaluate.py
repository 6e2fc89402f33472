"""The recipe's checks: what the model answered before and what it answers after."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine import paths
from engine.recipe import Check, Recipe
from engine.runs.events import Answer, Evaluation, Progress
from engine.worker import generate
from engine.worker.session import Session


def right(check: Check, answer: str) -> bool:
    """Whether the answer contains any of what was expected, letter case ignored."""
    folded = answer.casefold()
    return any(expected.casefold() in folded for expected in check.expect)


def ask(now: Session, base: bool = False) -> dict[str, str] | None:
    """Question -> greedy answer, for every check of the recipe; the journal says how far it has come.

    base  asked in the tokens that the base knew
    None when a stop was asked for meanwhile.
    """
    questions = [check.ask for check in (*now.recipe.checks.identity, *now.recipe.checks.general)]
    answers = generate.answers(now.model, now.tokenizer, [now.ask(question, base) for question in questions])
    found: dict[str, str] = {}
    now.journal.write(Progress(what="questions", done=0, total=len(questions)))
    for question, answer in zip(questions, answers, strict=True):
        if now.run.stop_path.exists():
            return None
        found[question] = answer
        now.journal.write(Progress(what="questions", done=len(found), total=len(questions)))
    return found


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
