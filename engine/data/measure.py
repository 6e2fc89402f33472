"""Where trained tokens lie in a row of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

from msgspec import Struct

_END = itemgetter(1)


class Measured(Struct):
    """One row in tokens.

    trained  spans of tokens with a loss, in order, the end not included
    end      how many tokens must be kept for the last answer to keep its end token
    closed   False if no end token stands in the last answer: a model trained so never stops
    """

    total: int
    trained: list[tuple[int, int]]
    end: int
    closed: bool


def located(spans: Sequence[tuple[int, int]], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of characters as spans of tokens: every token that holds a character of the span.

    offsets  (first character, character after the last) of each token. Byte-level tokenizers leave the white space at
             the ends of a token out, so that a token of white space alone has no width: it belongs to what ends there.
    A token that reaches over a span's edge is trained, as TRL's comparison of prompt and whole has it.
    """
    found = []
    for start, stop in spans:
        first = bisect_right(offsets, start, key=_END)
        last = bisect_right(offsets, stop, key=_END)
        if last < len(offsets) and offsets[last][0] < stop:
            last += 1
        found.append((first, max(first, last)))
    return found
