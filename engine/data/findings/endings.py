"""Answers that stop in the middle: a limit of tokens that was too low when they were made, or a cell that was too short.

A model trained on such rows learns to stop in the middle as well. What counts as the middle is decided by the rest of
the data: where most long answers end with a full stop, the few that do not are cut; where most do not, none is.
"""

from __future__ import annotations

import re

from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Marked, tail

LONG = 200  # characters, of which Chinese ones count twice; a shorter answer may well be a name or a heading
_LINE = 60  # the same; a shorter last line may be an item of a list, a signature or a verse
_FEW = 0.2  # of the long answers: more than that is how this data is written
_FENCE = re.compile(r"^[ \t]*(?:>[ \t]*)?(?:[-*+]|\d+[.)])?[ \t]*```", re.MULTILINE)
# Words that no English sentence ends with.
_DANGLING = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "but",
        "nor",
        "of",
        "to",
        "from",
        "with",
        "without",
        "into",
        "onto",
        "by",
        "for",
        "as",
        "than",
        "that",
        "which",
        "whose",
        "because",
        "although",
        "while",
        "if",
        "when",
        "where",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "has",
        "have",
        "had",
        "will",
        "would",
        "can",
        "could",
        "should",
        "may",
        "might",
        "must",
        "its",
        "their",
        "your",
        "our",
        "my",
        "his",
        "her",
        "this",
        "these",
        "those",
        "such",
        "very",
        "more",
        "most",
        "include",
        "including",
    ]
)
_SENTENCE = re.compile(r"[.!?]['\")\]]*\s+[A-Z]|[。！？]")
_NO_WORD = re.compile(r".*(?://|www\.|@)|#")  # an address or a hashtag
_ITEM = re.compile(r"(?:[-*+•–]|\d{1,3}[.)]|[A-Za-z][.)]) ")
# What a sentence in the middle is interrupted at: a letter, a digit, a comma, an opening bracket, "and -".
_OPENERS = ",;([{（［【《「『，、；-–—&"


def cut(answer: str) -> bool:
    """True if a long answer stops in the middle of a sentence or of a block of code."""
    text = answer.rstrip()
    if _length(text) < LONG:
        return False
    open_end = text[-1].isalnum() or text[-1] in _OPENERS
    if "```" in text and len(_FENCE.findall(text)) % 2:
        return not text.endswith(("```", ".", "!", "?", "。"))
    return open_end and _in_sentence(text)


def _in_sentence(text: str) -> bool:
    """True if the last line is prose that is not finished, judged by itself and by the lines before it."""
    *before, line = (line.strip() for line in text.split("\n"))
    word = line.rpartition(" ")[2]
    if word.lower() in _DANGLING and len(line) > len(word):
        return True
    if _length(line) < _LINE or _NO_WORD.match(word):
        return False
    kind = _kind(line)
    like = [other for other in before if _kind(other) == kind and (kind or _length(other) >= _LINE)]
    closed = sum(not (other[-1].isalnum() or other[-1] in _OPENERS) for other in like)
    if like:
        return closed * 2 > len(like)  # else its lines do not end with full stops: a list, verses, a table
    # A list of names or a title has no sentence in it that ends.
    return line[-1] in _OPENERS or _SENTENCE.search(line) is not None


def _length(text: str) -> int:
    """Characters, those that take three bytes counted twice."""
    return len(text) if text.isascii() else (len(text) + len(text.encode())) // 2


def _kind(line: str) -> str:
    """What a line is: "-" or "1" for an item of a list, else ""."""
    match = _ITEM.match(line)
    return "" if match is None else "1" if line[0].isalnum() else "-"


class Endings:
    def __init__(self) -> None:
        self._long = 0
        self._marked = Marked()

    def look(self, chunk: Chunk) -> None:
        for at, answer in enumerate(chunk.answers):
            if _length(answer) >= LONG and chunk.turns[at][0] != ("text",) and chunk.examples[at].label is not False:
                self._long += 1
                if cut(answer):
                    self._marked.add(chunk.examples[at].row, tail(answer))

    def findings(self) -> list[Finding]:
        if len(self._marked) > _FEW * self._long:
            return []
        verbs = "has an answer that stops", "have answers that stop"
        fix = "leave these rows out, or finish their answers"
        return self._marked.finding("cut-answers", "warning", verbs, "in the middle", fix, "drop-cut-answers")
