"""Numbers of counted rows: packing, padding, histograms."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data import lengths, tokenizer
from engine.data.dataset import Dataset
from engine.data.distribution import Distribution
from tests.engine.data.counted_rows import conversations


def naive_bins(values: list[int], size: int) -> int:
    """Best fit, longest first, one by one."""
    rooms: list[int] = []
    bins = 0
    for value in sorted((min(value, size) for value in values), reverse=True):
        fitting = [room for room in rooms if room >= value]
        if fitting:
            room = min(fitting)
            rooms.remove(room)
        else:
            room, bins = size, bins + 1
        rooms.append(room - value)
    return bins


@pytest.mark.parametrize("size", [1, 7, 50, 64, 300])
def test_packing_is_best_fit(size: int) -> None:
    chance = random.Random(size)
    for _ in range(20):
        values = [min(chance.randrange(1, 90), chance.randrange(1, 400)) for _ in range(chance.randrange(1, 120))]
        assert Distribution(np.array(values)).bins(size) == naive_bins(values, size)


def test_packing_many_lengths_is_best_fit() -> None:
    chance = random.Random(3)
    values = [int(chance.lognormvariate(6, 1)) + 1 for _ in range(2000)]
    assert Distribution(np.array(values)).bins(2048) == naive_bins(values, 2048)


def test_what_packing_saves(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    counted = lengths.count(read(conversations(60)), tokenizer.load(tiny_model))
    cut = counted.at(200)
    padded = sum(min(total, 200) for total in counted.total) / (1 - cut.padding_fraction(8))
    bins = naive_bins(list(counted.total), 200)
    assert 0 < cut.packing(8) == pytest.approx(1 - bins * 200 / padded)
    assert counted.at(counted.max).packing(1) == 0, "single rows have no padding to save"


def test_prompt_and_completion_have_their_own_pictures(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    counted = lengths.count(read(conversations(60)), tokenizer.load(tiny_model))
    for name in ("prompt", "completion"):
        values = sorted(getattr(counted, name))
        assert counted.percentile(50, of=name) == values[29] and counted.mean(name) == pytest.approx(sum(values) / 60)
        bins = counted.histogram(7, of=name)
        assert sum(count for _, _, count in bins) == 60 and bins[0][2] == sum(value < bins[0][1] for value in values)
    assert counted.mean() == pytest.approx(counted.mean("prompt") + counted.mean("completion"))
