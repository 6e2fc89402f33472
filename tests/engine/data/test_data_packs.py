"""Parts of long texts and packs of short rows: nothing lost, nothing twice, nothing too long."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.data import packs


def drawn(seed: int) -> tuple[list[int], int]:
    chance = random.Random(seed)
    size = chance.choice([8, 50, 64, 300, 1000])
    most = chance.choice([2, size // 3 + 1, size])
    return [chance.randrange(1, most + 1) for _ in range(chance.randrange(1, 200))], size


@pytest.mark.parametrize("seed", range(40))
def test_packs_hold_every_row_once_and_none_is_too_long(seed: int) -> None:
    lengths, size = drawn(seed)
    found = packs.packed(np.array(lengths), size)
    assert sorted(row for pack in found for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= size for pack in found)
    assert all(list(pack) == sorted(pack) for pack in found) and [pack[0] for pack in found] == sorted(
        pack[0] for pack in found
    )
    assert packs.count(np.array(lengths), size) == len(found) >= sum(lengths) / size
    # Best fit: no two packs could be one.
    fullest = sorted(sum(lengths[row] for row in pack) for pack in found)
    assert len(found) < 2 or fullest[0] + fullest[1] > size
    again = packs.packed(np.array(lengths), size)
    assert [list(pack) for pack in again] == [list(pack) for pack in found]


def test_how_many_packs_does_not_hang_on_the_order() -> None:
    lengths, size = drawn(7)
    shuffled = random.Random(0).sample(lengths, len(lengths))
    assert packs.count(np.array(shuffled), size) == packs.count(np.array(lengths), size)


def test_what_fits_goes_where_least_is_left() -> None:
    found = packs.packed(np.array([6, 3, 7, 2, 4, 1]), 10)
    assert [list(pack) for pack in found] == [[0, 4], [1, 2], [3, 5]]


@pytest.mark.parametrize("around", [0, 2])
@pytest.mark.parametrize("most", [8, 9, 64])
def test_parts_lose_nothing(most: int, around: int) -> None:
    lengths = [*range(around + 1, 4 * most), 1000]
    found = packs.divided(np.array(lengths), most, around).tolist()
    for length in lengths:
        own, left = [], length - around
        while left > 0:
            own.append(found.pop(0))
            left -= own[-1] - around
        assert left == 0 and all(part <= most for part in own)
        assert len(own) == -(-(length - around) // (most - around)), "no more parts than it takes"
        assert all(part == most for part in own[:-2]) and (len(own) == 1 or own[-1] - around > 1)
    assert not found


def test_parts_follow_each_other() -> None:
    assert packs.parts(20, 8) == [(0, 8), (8, 16), (16, 20)]
    assert packs.parts(17, 8) == [(0, 8), (8, 15), (15, 17)], "a part of one token learns nothing"
    assert packs.parts(8, 8) == [(0, 8)] and packs.parts(1, 8) == [(0, 1)]
