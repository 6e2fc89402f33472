"""What an epoch is made of where rows are not taken as they come: long texts in parts, short rows together in packs.

Lengths are tokens. The plan counts by these functions what the worker trains by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Content = tuple[tuple[int, int], ...]  # (tokens of a row, how many such rows), the longest first


def divided(lengths: NDArray[Any], most: int, around: int = 0) -> NDArray[Any]:
    """Tokens of each part, text by text: all have `most` but the last, which has what is left.

    A last part of one token could learn nothing, so the one before gives it another.
    around  tokens of the tokenizer's own that stand around each text, and then around each of its parts
    """
    import numpy as np

    bare, room = np.maximum(np.asarray(lengths, np.int64) - around, 1), most - around
    counts = -(-bare // room)
    found = np.full(counts.sum(), room)
    last = counts.cumsum() - 1
    found[last] = bare - (counts - 1) * room
    short = last[(counts > 1) & (found[last] == 1)]
    found[short] += 1
    found[short - 1] -= 1
    return np.asarray(found + around)


def parts(length: int, most: int) -> list[tuple[int, int]]:
    """Where each part of one text begins and ends, as `divided` has them.

    >>> parts(20, 8), parts(17, 8)
    ([(0, 8), (8, 16), (16, 20)], [(0, 8), (8, 15), (15, 17)])
    """
    import numpy as np

    return list(pairwise([0, *divided(np.array([length]), most).cumsum().tolist()]))


def packed(lengths: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """The numbers of the rows in each pack, from the first row on: each row once, at most `size` tokens together.

    Best fit decreasing, as TRL packs ("bfd"): the longest row first, each into the fullest pack that has room for it. The same
    lengths make the same packs. No row may be longer than `size`.
    """
    import numpy as np

    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    values, begins = np.unique(-lengths[order], return_index=True)
    at = dict(zip((-values).tolist(), begins.tolist(), strict=True))  # the next row of each length
    found = []
    for content, times in kinds(*_counted(lengths), size):
        for _ in range(times):
            rows = []
            for value, count in content:
                rows.append(order[at[value] : at[value] + count])
                at[value] += count
            found.append(np.sort(np.concatenate(rows)))
    return sorted(found, key=lambda pack: int(pack[0]))


def count(lengths: NDArray[Any], size: int) -> int:
    """How many packs `packed` makes. It hangs on how often each length occurs alone, so that a million rows are quick."""
    return sum(times for _, times in kinds(*_counted(lengths), size))


def _counted(lengths: NDArray[Any]) -> tuple[list[int], list[int]]:
    import numpy as np

    values, counts = np.unique(lengths, return_counts=True)
    return values.tolist(), counts.tolist()


def kinds(values: list[int], counts: list[int], size: int) -> Iterable[tuple[Content, int]]:
    """(what a pack holds, how many packs hold that), of `counts` rows of `values` tokens each. `values` go up, from 1 on."""
    started: dict[int, list[tuple[Content, int]]] = {}  # by the room that is left in them
    rooms = 0  # the same as bits: set where there is such a pack
    for value, left in zip(reversed(values), reversed(counts), strict=True):
        while left:
            enough = rooms >> value
            room = (enough & -enough).bit_length() - 1 + value if enough else size
            content, packs = started[room].pop() if enough else ((), left)
            each = room // value
            # Packs that are filled as far as they go, then one that takes the rest.
            full = min(packs, left // each)
            used, rows = (full, each) if full else (1, left)
            if enough and packs > used:
                started[room].append((content, packs - used))
            elif enough and not started[room]:
                rooms &= ~(1 << room)
            after = room - rows * value
            started.setdefault(after, []).append(((*content, (value, rows)), used))
            if after:
                rooms |= 1 << after
            left -= used * rows
    return [kind for some in started.values() for kind in some]
