"""{{name}} and {{author}} in the rows, as LLaMA-Factory's identity data has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.data.convert import Example, Message
from engine.data.shapes import meant
from engine.errors import Exit, FtuiError
from engine.text import listed

if TYPE_CHECKING:
    from engine.data.dataset import Dataset

_ANY = re.compile(r"\{\{[ \t]*(\w+)[ \t]*\}\}")

NAMES = ("name", "author")  # the placeholders that say who a model is


class Filler:
    """Puts values in the place of {{name}} and counts, in rows, what was filled and what was left.

    rows  how many held {{name}} or {{author}}
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        # Only names that are meant: {{ other }} may be what a row about Jinja or Vue teaches.
        names = "|".join(map(re.escape, sorted({*NAMES, *values}, key=len, reverse=True)))
        self._pattern = re.compile(r"\{\{[ \t]*(" + names + r")[ \t]*\}\}")
        self._seen: set[str] = set()
        self.left: dict[str, int] = {}
        self.filled: dict[str, int] = {}
        self.rows = 0

    def fill(self, example: Example) -> None:
        """Fill an example in place."""
        if example.text is not None and "{{" in example.text:
            example.text = self._pattern.sub(self._put, example.text)
        for message in _messages(example):
            if "{{" in message.content:
                message.content = self._pattern.sub(self._put, message.content)
        if self._seen:
            for name in self._seen:
                counts = self.filled if name in self._values else self.left
                counts[name] = counts.get(name, 0) + 1
            self.rows += not self._seen.isdisjoint(NAMES)
            self._seen.clear()

    def _put(self, match: re.Match[str]) -> str:
        self._seen.add(match[1])
        return self._values.get(match[1], match[0])


def check(typed: Collection[str], read: Sequence[Dataset], known: Collection[str] = ()) -> None:
    """Raise USAGE for a name that a person typed a value for and that none of the rows holds.

    known  names that have a use beside the rows
    """
    # Rows about who a model is are asked about with both names, even where they hold one of them.
    used = {*known, *(name for data in read for name in (*data.filled, *(NAMES if data.identity else ())))}
    for name in typed:
        if name not in used:
            held = sorted({held for data in read for held in (*data.filled, *_left(data))})
            step = f"what the rows hold: {listed(held)}" if held else "the rows hold nothing to fill: leave --set out"
            cause = f"there is no {{{{{name}}}}} in the rows" + meant(name, held)
            raise FtuiError(Exit.USAGE, cause, f"--set {name}", step)


def _left(data: Dataset) -> Iterator[str]:
    """The names that still stand in double braces, whatever they are for."""
    for example in data.examples:
        for text in (example.text or "", *(message.content for message in _messages(example))):
            yield from _ANY.findall(text)


def _messages(example: Example) -> Iterator[Message]:
    for turns in (example.messages, example.chosen, example.rejected):
        yield from turns or ()
