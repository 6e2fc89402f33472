"""Rows in tokens: where trained tokens lie in one, and the table of what is known about all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

_END = itemgetter(1)

# Flags of a row, in Table.flags
OPEN, REWRITTEN, DIVERGES, LITERAL, TOOLS_UNSEEN = 1, 2, 4, 8, 16

# Tokens at the end of an answer among which its end token stands: at most a line end follows it. Further back, a
# control token does not end the answer.
END_WITHIN = 3


class Measured(Struct):
    """One row in tokens.

    ids      the tokens; empty for an estimate
    total    how many there are
    trained  spans of tokens with a loss, in order, the end not included
    end      how many tokens must be kept for the last answer to keep its end token
    closed   False if no end token stands in the last answer: a model trained so never stops
    """

    ids: list[int]
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


class Table:
    """What is known of each row of a data set, in arrays: thirty bytes a row or so, a million rows are nothing much.

    total       tokens of the row; of a preference pair those of the longer side
    completion  those with a loss
    first       the first token with a loss, or -1 where there is none; of a pair the later one
    end         how many tokens must be kept for the last answer to keep its end token
    flags       OPEN no end token, REWRITTEN only the last answer is trained, DIVERGES the prompt is written otherwise
                once it is answered, LITERAL control tokens stand in the text, TOOLS_UNSEEN the template does not show the tools
    `close` then gives all trained spans as `starts` and `stops`, row by row: those of row i are [at[i]:at[i + 1]].
    """

    def __init__(self, rows: int) -> None:
        import numpy as np

        self.total: NDArray[Any] = np.zeros(rows, np.int32)
        self.completion: NDArray[Any] = np.zeros(rows, np.int32)
        self.first: NDArray[Any] = np.full(rows, -1, np.int32)
        self.end: NDArray[Any] = np.zeros(rows, np.int32)
        self.flags: NDArray[Any] = np.zeros(rows, np.uint8)
        self.at: NDArray[Any] = np.zeros(rows + 1, np.int64)
        self.starts: NDArray[Any] = np.zeros(0, np.int32)
        self.stops: NDArray[Any] = np.zeros(0, np.int32)
        self._spans: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []

    def put(
        self, rows: NDArray[Any], total: Any, starts: NDArray[Any], stops: NDArray[Any], end: Any, flags: Any
    ) -> None:
        """Note rows of which each has the same number of trained spans: `starts` and `stops` are [rows, spans].

        The second side of a preference pair is put like a row of its own.
        """
        import numpy as np

        completion = (stops - starts).sum(1)
        longer = total > self.total[rows]
        self.total[rows] = np.where(longer, total, self.total[rows])
        self.completion[rows] = np.where(longer, completion, self.completion[rows])
        self.end[rows] = np.maximum(end, self.end[rows])
        self.flags[rows] |= flags
        if spans := starts.shape[1]:
            self.first[rows] = np.maximum(starts[:, 0], self.first[rows])
            self._spans.append((np.repeat(rows, spans), starts.ravel(), stops.ravel()))

    def close(self) -> None:
        """Bring the spans into the order of the rows. Call it once, when all rows are there."""
        import numpy as np

        if not self._spans:
            return
        rows, starts, stops = (np.concatenate(parts).astype(np.int32) for parts in zip(*self._spans, strict=True))
        self._spans = []
        order = np.argsort(rows, kind="stable")
        self.starts, self.stops = starts[order], stops[order]
        self.at[1:] = np.bincount(rows, minlength=len(self.total)).cumsum()

    def row(self, at: int) -> tuple[int, ...]:
        """All that is known of one row, after `close`."""
        spans = slice(self.at[at], self.at[at + 1])
        known = (column[at : at + 1] for column in (self.total, self.completion, self.first, self.end, self.flags))
        return tuple(int(value) for part in (*known, self.starts[spans], self.stops[spans]) for value in part)
