"""Conversations: the order of turns, empty answers, system prompts that differ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from engine.data.convert import Example
from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Marked, excerpt, percent, rows_text

_PROMPTS = 1000  # different system prompts that are told apart

Roles = tuple[str, ...]


def same_side(roles: Roles) -> bool:
    """Two turns of the same side in a row. Tool results may follow one another."""
    return any(a == b != "tool" for a, b in pairwise(roles))


def late_system(roles: Roles) -> bool:
    return "system" in roles[1:]


def answer_first(roles: Roles) -> bool:
    return next((role for role in roles if role != "system"), "") == "assistant"


def open_end(roles: Roles) -> bool:
    """Something follows the last answer. A row without any answer is a prompt alone, not a flaw."""
    return roles[-1] != "assistant" and "assistant" in roles


# What is wrong, what follows from it (then it is a note), the test, what to do, the action.
_ORDER: list[tuple[str, str, Callable[[Roles], bool], str, str]] = [
    ("two turns of the same side in a row", "", same_side, "join such turns to one", "merge-turns"),
    ("a system prompt after the first turn", "", late_system, "leave these rows out", "drop-late-system"),
    (
        "an answer before any question",
        "that answer is context and not trained",
        answer_first,
        "nothing to do, if the greeting is meant",
        "",
    ),
    (
        "a last question that nobody answers",
        "it is not trained",
        open_end,
        "cut what follows the last answer",
        "cut-open-end",
    ),
]


class Order:
    """Turns in an order that chat models do not expect."""

    def __init__(self) -> None:
        self._marked = [Marked() for _ in _ORDER]
        self._known: dict[Roles, list[int]] = {("system", "user", "assistant"): [], ("user", "assistant"): []}

    def look(self, chunk: Chunk) -> None:
        known = self._known
        for example, (roles, contents) in zip(chunk.examples, chunk.turns, strict=True):
            flaws = known.get(roles)
            if flaws is None:
                flaws = [at for at, (_, _, wrong, _, _) in enumerate(_ORDER) if roles and wrong(roles)]
                if len(known) < _PROMPTS:
                    known[roles] = flaws
            for at in flaws:
                sides = " ".join(roles[:8]) + (" …" if len(roles) > 8 else "")
                self._marked[at].add(example.row, sides if _ORDER[at][2] is not open_end else excerpt(contents[-1]))

    def findings(self) -> list[Finding]:
        found = []
        for (what, effect, _, fix, action), marked in zip(_ORDER, self._marked, strict=True):
            what += f": {effect}" if effect else ""
            found += marked.finding("role-order", "note" if effect else "problem", ("has", "have"), what, fix, action)
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
            elif len(counts) < _PROMPTS:
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
