"""Many numbers as how often each occurs, with sums made ahead: every question is a few binary searches."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from engine.data import packs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Distribution:
    """Numbers from 0 on. It holds each that occurs once, so a million lengths are some thousand entries."""

    def __init__(self, values: NDArray[Any]) -> None:
        import numpy as np

        self.values, counts = np.unique(values, return_counts=True)
        self._below = np.concatenate(([0], counts.cumsum()))  # how many stand before each
        self._sums = np.concatenate(([0], (self.values.astype(np.int64) * counts).cumsum()))
        self._reached: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    @property
    def count(self) -> int:
        return int(self._below[-1])

    @property
    def sum(self) -> int:
        return int(self._sums[-1])

    @property
    def min(self) -> int:
        return int(self.values[0]) if self.count else 0

    @property
    def max(self) -> int:
        return int(self.values[-1]) if self.count else 0

    def percentile(self, p: float) -> int:
        """The number that `p` percent do not exceed (nearest rank, so it is one that occurs)."""
        if not self.count:
            return 0
        rank = min(self.count, max(1, ceil(self.count * p / 100)))
        return int(self.values[self._below[1:].searchsorted(rank)])

    def count_over(self, limit: int) -> int:
        """How many are larger than `limit`."""
        return self.count - int(self._below[self._upto(limit)])

    def counts_below(self, edges: list[int]) -> list[int]:
        """How many are smaller, for each edge."""
        return [int(count) for count in self._below[self.values.searchsorted(edges)]]

    def excess(self, limit: int) -> int:
        """Sum of what each has above `limit`."""
        at = self._upto(limit)
        return int(self.sum - self._sums[at] - limit * (self.count - self._below[at]))

    def longest_of(self, count: int, limit: int) -> float:
        """Expected largest of `count` numbers drawn without putting back, each cut to `limit`.

        The largest drawn is among the k smallest of n with probability C(k, count) / C(n, count).
        """
        import numpy as np

        if count not in self._reached:
            reached = np.ones(len(self._below))
            for drawn in range(count):
                reached *= np.maximum(self._below - drawn, 0) / (self.count - drawn)
            self._reached[count] = reached, np.concatenate(([0.0], (self.values * np.diff(reached)).cumsum()))
        reached, weighted = self._reached[count]
        at = self._upto(limit)
        return float(weighted[at] + limit * (1.0 - reached[at]))

    def bins(self, size: int) -> int:
        """How many packs of `size` hold all numbers, each cut to `size` (engine.data.packs)."""
        at = self._upto(size)
        values, counts = self.values[:at].tolist(), (self._below[1 : at + 1] - self._below[:at]).tolist()
        if values and not values[0]:
            values, counts = values[1:], counts[1:]
        cut = self.count - int(self._below[at])  # each fills a pack of its own
        return cut + sum(times for _, times in packs.kinds(values, counts, size))

    def _upto(self, limit: int) -> int:
        return int(self.values.searchsorted(limit, side="right"))
