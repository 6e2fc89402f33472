"""{{name}} and {{author}} in the rows, as LLaMA-Factory's identity data has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.data.convert import Example

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
        for turns in (example.messages, example.chosen, example.rejected):
            for message in turns or ():
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
