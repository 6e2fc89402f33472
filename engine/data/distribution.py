"""Many numbers as how often each occurs, with sums made ahead: every question is a few binary searches."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUPS = 1024  # lengths that are told apart when rows are packed


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
        """How many bins of `size` hold all numbers, each cut to `size`: the longest first, each into the fullest bin
        that has room for it, as TRL packs ("bfd").

        Numbers that are almost alike count as their mean, so that the answer takes milliseconds.
        """
        import numpy as np

        at = self._upto(size)
        values, counts = self.values[:at].astype(np.int64), np.diff(self._below[: at + 1])
        found = self.count - int(self._below[at])  # what is cut fills a bin of its own
        if at > _GROUPS:
            group = (np.arange(at) * _GROUPS) // at
            weights = np.bincount(group, counts)
            values = np.rint(np.bincount(group, values * counts) / weights).astype(np.int64)
            counts = weights.astype(np.int64)
        kept = values > 0
        return found + _packed(values[kept].tolist(), counts[kept].tolist(), size)

    def _upto(self, limit: int) -> int:
        return int(self.values.searchsorted(limit, side="right"))


def _packed(values: list[int], counts: list[int], size: int) -> int:
    """Best fit, longest first, many of a kind at once. `values` go up."""
    bins = 0
    open_bins = [0] * (size + 1)  # how many bins have so much room left
    rooms = 0  # the same as bits: set where there is such a bin

    def leave(room: int, count: int) -> None:
        nonlocal rooms
        if room and count:
            open_bins[room] += count
            rooms |= 1 << room

    for value, count in zip(reversed(values), reversed(counts), strict=True):
        while count:
            enough = rooms >> value
            room = (enough & -enough).bit_length() - 1 + value if enough else size
            each = room // value
            # Bins that are filled as far as they go, then one that takes the rest.
            full = count // each if not enough else min(open_bins[room], count // each)
            used, rest = (full, each) if full else (1, count)
            leave(room - rest * value, used)
            count -= used * rest
            if enough:
                open_bins[room] -= used
                if not open_bins[room]:
                    rooms &= ~(1 << room)
            else:
                bins += used
    return bins
