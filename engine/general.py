"""Plain questions with short certain answers, the same for every run: whether tuning has cost what the model could do before.

presets/general.jsonl, written for ftui, a question a line: `ask`; `lead`, the beginning of the sentence that answers it, and
`answer`, the part of it that is to be known; `expect`, words of which an answer in any form has to hold one. None of them
stands in the rows or the checks of a preset.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources

import msgspec
from msgspec import Struct


class Question(Struct, frozen=True):
    ask: str
    lead: str
    answer: str
    expect: list[str]

    def right(self, said: str) -> bool:
        """Whether `said` holds an expected word, letter case ignored; 7 is not in 17, nor ten in often."""
        folded = said.casefold()
        return any(re.search(_whole(word.casefold()), folded) is not None for word in self.expect)


def questions() -> list[Question]:
    return msgspec.json.decode(b"[" + b",".join(_content().splitlines()) + b"]", type=list[Question])


def sha256() -> str:
    """Of the questions: scores on others cannot be compared."""
    return hashlib.sha256(_content()).hexdigest()


@cache
def _content() -> bytes:
    return (resources.files("presets") / "general.jsonl").read_bytes()


def _whole(word: str) -> str:
    """A pattern for the word by itself; in writing without spaces it may stand anywhere."""
    return rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word)
