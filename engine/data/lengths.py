"""How long the rows are in tokens, and what a cutoff costs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from math import ceil

from engine.data.dataset import Dataset
from engine.data.measure import Measured
from engine.data.tokenizer import AnyTokenizer

Flags = tuple[bool, bool, bool]  # rewritten, diverges, holds control tokens as text
_FIRST, _CHUNK = 64, 1024  # rows encoded together: few at first, so that something is there at once


class Cut:
    """What keeping only the first `cutoff` tokens of each row costs.

    rows_cut               rows that are longer
    lose_end               rows whose last answer loses its end token: the model is not taught to stop there
    untrained              rows of which nothing that has a loss is left
    trained_lost_fraction  of all tokens with a loss, those that are cut off
    """

    def __init__(self, lengths: Lengths, cutoff: int) -> None:
        self.cutoff = cutoff
        self.rows_cut = lengths._total.count_over(cutoff)
        self.lose_end = lengths._end.count_over(cutoff)
        # The first token of a row is never predicted, and a row is untrained when its answer begins at the cutoff.
        self.untrained = lengths._first.count_over(cutoff - 1)
        lost = lengths._stop.excess(cutoff) - lengths._start.excess(cutoff)
        self.trained_lost_fraction = lost / lengths.trained if lengths.trained else 0.0
        self._lengths = lengths

    def padding_fraction(self, micro_batch: int) -> float:
        """Of all tokens computed, those that are padding, to be expected when rows are batched in random order.

        Each batch is as long as its longest row (after the cut).
        """
        lengths = self._lengths._total
        rows = len(lengths.values)
        if not rows:
            return 0.0
        full, rest = divmod(rows, micro_batch)
        computed = full * micro_batch * lengths.longest_of(micro_batch, self.cutoff) if full else 0.0
        computed += rest * lengths.longest_of(rest, self.cutoff) if rest else 0.0
        kept = lengths.sum - lengths.excess(self.cutoff)
        return max(0.0, 1 - kept / computed) if computed else 0.0


class Lengths:
    """Token counts of rows: `total` of the whole rendered row, `completion` of what is trained, `prompt` of the rest.

    The three lists go by row in the data set's order. `rows` are their row numbers.
    exact      False for an estimate made without the model's tokenizer
    rewritten  rows of which the chat template lets only the last answer be trained
    diverging  rows whose prompt the chat template writes differently once it is answered
    endless    rows whose last answer has no end token
    literal    rows that hold a control token as text
    """

    def __init__(
        self, rows: list[int], measured: Sequence[Measured], flags: Sequence[Flags], tokenizer: AnyTokenizer
    ) -> None:
        self.rows = rows
        self.tokenizer = tokenizer.name
        self.exact = tokenizer.exact
        self.total = [one.total for one in measured]
        self.completion = [sum(stop - start for start, stop in one.trained) for one in measured]
        self.prompt = [total - trained for total, trained in zip(self.total, self.completion, strict=True)]
        self.trained = sum(self.completion)
        self.ends = [one.end for one in measured]
        self.rewritten, self.diverging, self.literal = (
            [row for row, flag in zip(rows, flags, strict=True) if flag[which]] for which in range(3)
        )
        self.endless = [row for row, one in zip(rows, measured, strict=True) if not one.closed]
        self._total = _Sorted(self.total)
        self._end = _Sorted(self.ends)
        self._first = _Sorted([one.trained[0][0] for one in measured])
        # Tokens lost at a cutoff c are the sum over all trained spans of max(0, stop-c) - max(0, start-c).
        self._start = _Sorted([start for one in measured for start, _ in one.trained])
        self._stop = _Sorted([stop for one in measured for _, stop in one.trained])

    @property
    def max(self) -> int:
        """The longest row, in tokens."""
        return self._total.values[-1] if self._total.values else 0

    def percentile(self, p: float) -> int:
        """The length that `p` percent of the rows do not exceed (nearest rank, so it is a length that occurs)."""
        values = self._total.values
        return values[min(len(values), max(1, ceil(len(values) * p / 100))) - 1] if values else 0

    def histogram(self, bins: int, upto: int | None = None) -> list[tuple[int, int, int]]:
        """(from, to, rows) for bins of equal width from 0 to `upto` (the longest row if not given), `to` not included.

        The last bin also holds what is longer. Widths are whole tokens, so there may be fewer bins than asked for.
        """
        highest = max(upto if upto is not None else self.max, 1)
        width = max(1, ceil((highest + 1) / max(1, bins)))
        edges = list(range(0, highest + 1, width))
        below = [bisect_left(self._total.values, edge) for edge in edges] + [len(self.total)]
        return [(low, low + width, below[i + 1] - below[i]) for i, low in enumerate(edges)]

    def at(self, cutoff: int) -> Cut:
        """What a cutoff costs. A few binary searches, so it can follow a key that is held down."""
        return Cut(self, cutoff)


class _Sorted:
    """Numbers in order, with sums made ahead."""

    def __init__(self, values: list[int]) -> None:
        self.values = sorted(values)
        self._weights: dict[int, tuple[list[float], list[float]]] = {}

    @cached_property
    def _sums(self) -> list[int]:
        return list(accumulate(self.values, initial=0))

    @property
    def sum(self) -> int:
        return self._sums[-1]

    def count_over(self, limit: int) -> int:
        """How many values are larger than `limit`."""
        return len(self.values) - bisect_right(self.values, limit)

    def excess(self, limit: int) -> int:
        """Sum of what each value has above `limit`."""
        at = bisect_right(self.values, limit)
        return self._sums[-1] - self._sums[at] - limit * (len(self.values) - at)

    def longest_of(self, count: int, limit: int) -> float:
        """Expected largest of `count` values drawn without putting back, each cut to `limit`.

        The k-th smallest of n is the largest drawn with probability C(k-1, count-1) / C(n, count).
        """
        if count not in self._weights:
            n = len(self.values)
            # P(largest has rank <= k) = C(k, count) / C(n, count), from the top down.
            reached = [0.0] * (n + 1)
            reached[n] = 1.0
            for k in range(n, count, -1):
                reached[k - 1] = reached[k] * (k - count) / k
            steps = (value * (reached[k + 1] - reached[k]) for k, value in enumerate(self.values))
            self._weights[count] = reached, list(accumulate(steps, initial=0.0))
        reached, weighted = self._weights[count]
        at = bisect_right(self.values, limit)
        return weighted[at] + limit * (1.0 - reached[at])


def count(
    dataset: Dataset,
    tokenizer: AnyTokenizer,
    progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
) -> Lengths:
    """Render and encode every row, some together.

    progress  called with rows done and rows in all, the first time after a few rows
    limit     count only so many rows, evenly spread: a first picture of a large data set
    Raises FtuiError(MODEL_UNSUPPORTED) when the chat template refuses a row.
    """
    examples = dataset.examples
    if limit is not None and limit < len(examples):
        examples = [examples[at * len(examples) // limit] for at in range(limit)]
    measured: list[Measured] = []
    flags: list[Flags] = []
    at = 0
    while at < len(examples):
        part = examples[at : at + (_CHUNK if at else _FIRST)]
        rendered = [tokenizer.render(example) for example in part]
        measured.extend(tokenizer.measure(rendered))
        flags.extend((one.rewritten, one.diverges, bool(one.literal)) for one in rendered)
        at += len(part)
        if progress is not None:
            progress(at, len(examples))
    return Lengths([example.row for example in examples], measured, flags, tokenizer)
