"""Which rows are held out for evaluation: drawn by the seed alone, so that the same recipe holds out the same rows."""

from __future__ import annotations

import random


def held_out(rows: int, fraction: float, seed: int) -> list[int]:
    """Indices, in order, of the rows held out: `fraction` of `rows`, rounded, whatever is in them.

    >>> held_out(10, 0.2, seed=1)
    [6, 8]
    """
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return sorted(order[: round(rows * fraction)])
