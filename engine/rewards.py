"""What an answer is worth: the rewards that reinforcement learning can be given, by the word that names them.

length:40       1 for an answer of 40 tokens, less the further away, 0 for none or twice as many
regex:PATTERN   1 where the pattern is found in the answer, else 0
exact           1 for the answer of the row, white space aside, else 0
RUN or FOLDER   the score of a reward model that ftui trained
stage:reward    the same of a stage before it in the same chain (engine.chain)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine import chain
from engine.errors import Exit, FtuiError
from engine.text import safe

WORDS = "length:N, regex:PATTERN, exact, or the run of a reward model"


class Reward(Struct, frozen=True):
    """`argument` is the length, the pattern, or the folder of the run; empty for "exact"."""

    kind: Literal["length", "regex", "exact", "model"]
    argument: str = ""

    def of(self, answer: str, tokens: int, expected: str | None) -> float:
        """What an answer of so many tokens is worth; not for a reward model.

        >>> Reward("length", "40").of("…", 30, None)
        0.75
        """
        match self.kind:
            case "length":
                wanted = int(self.argument)
                return max(0.0, 1 - abs(tokens - wanted) / wanted)
            case "regex":
                return float(re.search(self.argument, answer) is not None)
            case "exact":
                return float(expected is not None and answer.split() == expected.split())
            case _:
                raise ValueError("a reward model gives its scores itself")


def parse(word: str) -> Reward:
    """The reward that a word names. Raises FtuiError(RECIPE_INVALID)."""
    name, _, argument = word.partition(":")
    if word == "exact":
        return Reward("exact")
    if name == "length":
        if not argument.isdecimal() or int(argument) < 1:
            raise FtuiError(Exit.RECIPE_INVALID, f"{word} names no length: give tokens, as in length:40")
        return Reward("length", argument)
    if name == "regex":
        try:
            re.compile(argument)
        except re.error as error:
            raise FtuiError(Exit.RECIPE_INVALID, f"the pattern cannot be used: {error}", argument) from None
        return Reward("regex", argument)
    return Reward("model", word)


def resolved(word: str) -> str:
    """The same with the name of a run as its folder. Raises FtuiError(RECIPE_INVALID | RUN_UNKNOWN)."""
    from engine.runs import directory

    if chain.reference(word) or parse(word).kind != "model":
        return word
    path = Path(word).expanduser()
    return str(path.resolve() if path.is_dir() else directory.find(word).path)


def reason(word: str | None, model: str, answers: bool, added: tuple[str, ...] = ()) -> str:
    """Why a model cannot learn from this reward; empty where it can.

    model    where the model comes from that is to learn
    answers  whether the rows have answers
    added    words that are tokens of their own for it
    """
    from engine.runs.directory import RunDir

    if not word:
        return f"it needs a reward: {WORDS} (--reward)"
    if chain.reference(word):
        return ""  # the chain is looked through as a whole
    try:
        found = parse(word)
        if found.kind == "exact" and not answers:
            return "the reward exact compares with the answers of the rows, and these have none"
        if found.kind != "model":
            return ""
        run = RunDir(Path(found.argument))
        judge = run.recipe()
    except FtuiError as error:
        return f"the reward cannot be used: {error.cause}"
    if judge.stage != "reward":
        return f"{run.name} is no reward model: it was trained for {judge.stage}"
    if run.result is None:
        return f"the reward model {run.name} has no result yet"
    if judge.model.source != model:
        return f"the reward model {run.name} reads the tokens of {judge.model.source}, not of {model}"
    if judge.settings.added_tokens != added:
        own, others = (", ".join(map(safe, words)) or "none" for words in (added, judge.settings.added_tokens))
        return f"the reward model {run.name} has other added_tokens ({others}) than this run ({own}): train it with the same"
    return ""
