"""Which two columns are likely the prompt and the answer: a hint for a person where no reading is certain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Words inside the names of columns: "customer_msg", "agentReply", "Answers".
_NAMES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ASKED_ABOUT = ("text", "dialogue", "dialog", "conversation", "article", "document", "passage")
_ASKING = frozenset(
    ("prompt", "question", "query", "input", "instruction", "message", "msg", "request", "problem", *_ASKED_ABOUT)
)
_ANSWERING = frozenset(
    ("completion", "answer", "reply", "response", "output", "target", "solution", "summary", "highlight", "label")
)
_CODE = re.compile(r"(?=[^\d_@/:#-]*[\d_@/:#-])[!-~]+")  # "T-4711", "ada@example.org", "2026-01-03"
_LETTER = re.compile(r"[^\W\d_]")
_ENOUGH, _SHORT = 4, 40  # values from which on kinds show, and characters that the name of a kind has at most


def pair(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """(prompt, answer) among the columns of some rows, by their names, else the earlier one is the prompt.

    Ids, numbers and kinds are neither, unless their name says that a kind is the answer ("sentiment_label").
    """
    values = {name: [row[name] for row in rows if row.get(name)] for name in _columns(rows)}
    worded = [name for name, found in values.items() if _worded(found)]
    texts = [name for name in worded if not _kinds(values[name])]
    answer = _named(texts, _ANSWERING, 1) or _named(worded, _ANSWERING, 2)
    prompt = _named([name for name in texts if name != answer], _ASKING, 1)
    others = [name for name in texts if name not in (prompt, answer)]
    longest = sorted(others, key=lambda name: -sum(map(len, values[name])))[: (prompt, answer).count(None)]
    unnamed = (name for name in others if name in longest)  # in the order of the columns
    prompt = prompt or next(unnamed, None)
    answer = answer or next(unnamed, None)
    return None if prompt is None or answer is None else (prompt, answer)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name]


def _named(names: Sequence[str], words: frozenset[str], plainly: int) -> str | None:
    """The first of the names that say it most plainly, and at least so."""
    said = max(names, key=lambda name: _speaks(name, words), default="")
    return said if _speaks(said, words) >= plainly else None


def _speaks(name: str, words: frozenset[str]) -> int:
    """2 for a name that ends with one of the words, 1 for one that holds it before, else 0."""
    parts = [part.lower() for part in _NAMES.findall(name)]
    said = [part in words or part.removesuffix("s") in words for part in parts]
    return 0 if not any(said) else 2 if said[-1] else 1


def _worded(found: Sequence[Any]) -> bool:
    """True for text, most of which is neither a number nor a code."""
    if not found or not all(isinstance(value, str) for value in found):
        return False
    words = sum(bool(_LETTER.search(value)) and not _CODE.fullmatch(value.strip()) for value in found)
    return 2 * words > len(found)


def _kinds(found: Sequence[str]) -> bool:
    """True for few short values that come again and again."""
    return len(found) >= _ENOUGH and 2 * len(set(found)) <= len(found) and max(map(len, found)) <= _SHORT
