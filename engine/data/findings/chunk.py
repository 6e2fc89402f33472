"""Some hundred rows with their texts laid out once, so that each check goes over them at the speed of memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from engine.data.convert import Example, Message

SEPARATOR = "\x1e"  # between texts; no check looks for it


class Chunk:
    """Rows that are looked at together.

    texts      every text of every row, in order: turns, then the turns of both answers of a preference pair
    roles      the role of each text; "text" for plain text, "rejected" for the worse answer of a pair
    owners     ends of each row's texts: those of row i are texts[owners[i-1]:owners[i]]
    turns      of each row the roles and the contents of its conversation (of a pair: with the chosen answer)
    answers    of each row what is taught at last: the last answer (of a pair the chosen one), plain text, or ""
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.texts: list[str] = []
        self.roles: list[str] = []
        self.owners: list[int] = []
        self.turns: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.answers: list[str] = []
        texts, roles = self.texts, self.roles
        for example in examples:
            messages = example.messages
            if messages is None:
                text = example.text or ""
                texts.append(text)
                roles.append("text")
                self.turns.append((("text",), (text,)))
                self.answers.append(text)
            else:
                if example.chosen is not None:
                    messages = messages + example.chosen
                names = tuple([message.role for message in messages])
                contents = tuple([message.content for message in messages])
                texts.extend(contents)
                roles.extend(names)
                self.turns.append((names, contents))
                self.answers.append(contents[-1] if names and names[-1] == "assistant" else _answer(messages))
                if example.rejected is not None:
                    texts.extend([message.content for message in example.rejected])
                    roles.extend(["rejected"] * len(example.rejected))
            self.owners.append(len(texts))

    @cached_property
    def flat(self) -> bytes:
        """All texts, one byte a character ("?" for what is not Latin-1), so that a place here is a place in them."""
        flat = SEPARATOR.join(self.texts)
        if flat.count(SEPARATOR) >= len(self.texts):  # somebody writes it
            flat = SEPARATOR.join(text.replace(SEPARATOR, " ") for text in self.texts)
        return flat.encode("latin-1", "replace")

    @cached_property
    def wide(self) -> list[int]:
        """Indices of the texts that are not plain ASCII."""
        return [at for at, text in enumerate(self.texts) if not text.isascii()]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((len(text) + 1 for text in self.texts), initial=0))

    def at(self, place: int) -> tuple[int, int]:
        """The text that a place in `flat` falls into, and the place in that text."""
        index = bisect_right(self._starts, place) - 1
        return index, place - self._starts[index]

    def holding(self, char: bytes, then: tuple[bytes, ...] = ()) -> Iterator[int]:
        """Indices of the texts that hold `char` with one of `then` behind it, each once, in order.

        A single character is found many times faster than a longer piece.
        """
        flat = self.flat
        place = flat.find(char)
        while place >= 0:
            if not then or flat.startswith(then, place + 1):
                index = bisect_right(self._starts, place) - 1
                yield index
                place = flat.find(char, self._starts[index + 1])
            else:
                place = flat.find(char, place + 1)

    def example(self, index: int) -> Example:
        """The row that the text belongs to."""
        return self.examples[bisect_right(self.owners, index)]


def _answer(messages: list[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "assistant"), "")
