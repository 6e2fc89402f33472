"""Conversations: the order of turns, empty answers, system prompts that differ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from engine.data.convert import Example
from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Level, Marked, excerpt, percent, rows_text

_DIFFERENT = 1000  # orders of turns, and system prompts, that are told apart

Roles = tuple[str, ...]


def same_side(roles: Roles) -> bool:
    """Two turns of the same side in a row. Tool results may follow one another."""
    return any(a == b != "tool" for a, b in pairwise(roles))


def late_system(roles: Roles) -> bool:
    return "system" in roles[1:]


def answer_first(roles: Roles) -> bool:
    return next((role for role in roles if role != "system"), "") == "assistant"


def open_end(roles: Roles) -> bool:
    """Something follows the last answer."""
    return roles[-1] != "assistant" and "assistant" in roles


class _Flaw(NamedTuple):
    """`effect` is what follows from it; then it is a note."""

    what: str
    effect: str
    wrong: Callable[[Roles], bool]
    fix: str
    action: str


_FLAWS = (
    _Flaw("two turns of the same side in a row", "", same_side, "join such turns to one", "merge-turns"),
    _Flaw("a system prompt after the first turn", "", late_system, "leave these rows out", "drop-late-system"),
    _Flaw(
        "an answer before any question",
        "it is not trained",
        answer_first,
        "nothing to do, if the greeting is meant",
        "",
    ),
    _Flaw(
        "a last question that nobody answers",
        "it is not trained",
        open_end,
        "cut what follows the last answer",
        "cut-open-end",
    ),
)


class Order:
    """Turns in an order that chat models do not expect."""

    def __init__(self) -> None:
        self._marked = [Marked() for _ in _FLAWS]
        self._known: dict[Roles, list[int]] = {}

    def look(self, chunk: Chunk) -> None:
        known = self._known
        for example, (roles, contents) in zip(chunk.examples, chunk.turns, strict=True):
            flaws = known.get(roles)
            if flaws is None:
                flaws = [at for at, flaw in enumerate(_FLAWS) if roles and flaw.wrong(roles)]
                if len(known) < _DIFFERENT:
                    known[roles] = flaws
            for at in flaws:
                if _FLAWS[at].wrong is not open_end:
                    self._marked[at].add(example.row, " ".join(roles[:8]) + (" …" if len(roles) > 8 else ""))
                elif any(message.trained for message in example.messages or () if message.role == "assistant"):
                    self._marked[at].add(example.row, excerpt(contents[-1]))  # else it is a prompt, which ends so

    def findings(self) -> list[Finding]:
        found = []
        for flaw, marked in zip(_FLAWS, self._marked, strict=True):
            what = f"{flaw.what}: {flaw.effect}" if flaw.effect else flaw.what
            level: Level = "note" if flaw.effect else "problem"
            found += marked.finding("role-order", level, ("has", "have"), what, flaw.fix, flaw.action)
        return found


class Empty:
    """Answers without a word: what a model would learn is to say nothing. Calls of tools need no words."""

    def __init__(self) -> None:
        self._marked = Marked()

    def look(self, chunk: Chunk) -> None:
        for index, text in enumerate(chunk.texts):
            if (not text or text.isspace()) and chunk.roles[index] == "assistant":
                example = chunk.example(index)
                if empty_answer(example):
                    self._marked.add(example.row)

    def findings(self) -> list[Finding]:
        what = "an empty answer: the model would learn to say nothing"
        return self._marked.finding(
            "empty-answer", "problem", ("has", "have"), what, "leave these rows out", "drop-empty"
        )


def empty_answer(example: Example) -> bool:
    """True if an answer of the conversation says nothing and calls nothing. Preference pairs are looked at elsewhere."""
    return any(
        message.role == "assistant" and not message.content.strip() and not message.tool_calls
        for message in example.messages or ()
    )


class Systems:
    """System prompts that differ: often meant, sometimes a file that was put together from two."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # by hash; 0 for none
        self._texts: dict[int, str] = {}
        self._more = 0

    def look(self, chunk: Chunk) -> None:
        counts = self._counts
        for roles, contents in chunk.turns:
            if not roles or roles[0] == "text":
                continue
            key = hash(contents[0]) or 1 if roles[0] == "system" else 0
            if key in counts:
                counts[key] += 1
            elif len(counts) < _DIFFERENT:
                counts[key] = 1
                self._texts[key] = excerpt(contents[0], 48) if key else ""
            else:
                self._more += 1

    def findings(self) -> list[Finding]:
        different = len(self._counts) - (0 in self._counts)
        if len(self._counts) < 2:
            return []
        without = self._counts.get(0, 0)
        having = sum(self._counts.values()) + self._more - without
        most = max((key for key in self._counts if key), key=self._counts.__getitem__)
        kinds = f"{different:,}{' or more' if self._more else ''} different system prompts"
        if different == 1:
            message = f"{rows_text(having, 'has', 'have')} a system prompt, {without:,} {'has' if without == 1 else 'have'} none"
        elif without:
            message = f"{kinds} in {having:,} rows; {without:,} {'row has' if without == 1 else 'rows have'} none"
        else:
            message = f"{kinds} in {having:,} rows"
        example = f"{percent(self._counts[most], having)}: {self._texts[most]}"
        fix = "give the model in use one of those that it was trained with"
        return [Finding("system-prompts", "note", message, (), different, example, fix)]
