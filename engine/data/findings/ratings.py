"""Preference pairs that prefer nothing, or only what is longer; ratings that are all on one side."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from engine.data.convert import Message
from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Level, Marked, excerpt, percent

_FEWEST = 20  # pairs; in fewer, shares say little
_BIASED = 0.75  # of the pairs won by the longer answer
_ALWAYS = 0.95
_RATIO = 4 / 3  # TRL's KTO guide: weighted, good to bad answers between 1:1 and 4:3


class Pairs:
    """Chosen and rejected answers: the same, empty, or told apart by nothing but their length."""

    def __init__(self) -> None:
        self._same, self._empty = Marked(), Marked()
        self._longer = array("I")  # rows whose chosen answer is the longer one
        self._shorter = array("I")
        self._pairs = 0
        self._characters = [0, 0]

    def look(self, chunk: Chunk) -> None:
        for example in chunk.examples:
            if example.rejected is None:
                continue
            chosen, rejected = _said(example.chosen), _said(example.rejected)
            called, other = _calls(example.chosen), _calls(example.rejected)
            self._pairs += 1
            if not (chosen.strip() or called) or not (rejected.strip() or other):
                self._empty.add(example.row, "the rejected one" if chosen.strip() or called else "the chosen one")
            elif chosen.strip() == rejected.strip() and called == other:
                self._same.add(example.row, excerpt(chosen))
            self._characters[0] += len(chosen)
            self._characters[1] += len(rejected)
            if len(chosen) > len(rejected):
                self._longer.append(example.row)
            elif len(chosen) < len(rejected):
                self._shorter.append(example.row)

    def findings(self) -> list[Finding]:
        fix = "leave these rows out"
        same = "the same answer as chosen and rejected: nothing can be learned"
        empty = "an empty answer on one side"
        return [
            *self._same.finding("one-sided", "problem", ("has", "have"), same, fix, "drop-one-sided"),
            *self._empty.finding("empty-side", "problem", ("has", "have"), empty, fix, "drop-one-sided"),
            *self._length_bias(),
        ]

    def _length_bias(self) -> list[Finding]:
        if self._pairs < _FEWEST:
            return []
        for rows, word in ((self._longer, "longer"), (self._shorter, "shorter")):
            if len(rows) >= _BIASED * self._pairs:
                chosen, rejected = (round(count / self._pairs) for count in self._characters)
                message = (
                    f"the {word} answer is chosen in {percent(len(rows), self._pairs)} of the pairs "
                    f"({chosen:,} characters to {rejected:,})"
                )
                level: Level = "warning" if len(rows) >= _ALWAYS * self._pairs else "note"
                fix = f"add pairs whose {'shorter' if word == 'longer' else 'longer'} answer is better, or length is learned"
                return [Finding("length-bias", level, message, rows, len(rows), fix=fix)]
        return []


def _said(answer: Sequence[Message] | None) -> str:
    """One side of a pair as one text."""
    return "\n".join([message.content for message in answer or ()])


def _calls(answer: Sequence[Message] | None) -> list[object]:
    """The tool calls of one side."""
    return [message.tool_calls for message in answer or () if message.tool_calls]


class Labels:
    """How many answers are rated good and how many bad."""

    def __init__(self) -> None:
        self._rows: dict[bool, array[int]] = {True: array("I"), False: array("I")}

    def look(self, chunk: Chunk) -> None:
        for example in chunk.examples:
            if example.label is not None:
                self._rows[example.label].append(example.row)

    def findings(self) -> list[Finding]:
        good, bad = (len(self._rows[label]) for label in (True, False))
        if not good and not bad:
            return []
        rare, word = (False, "bad") if bad < good else (True, "good")
        if not min(good, bad):
            message = f"no answer is rated {word}: KTO learns from the difference"
            return [Finding("label-balance", "problem", message, (), 0, fix=f"add answers that are {word}")]
        if max(good, bad) <= _RATIO * min(good, bad):
            return []
        message = f"{good:,} answers are rated good and {bad:,} bad"
        fix = f"add answers that are {word}: between 1:1 and 4:3 is best"
        rows = self._rows[rare]
        level: Level = "warning" if max(good, bad) > 3 * min(good, bad) else "note"
        return [Finding("label-balance", level, message, rows, len(rows), fix=fix)]
