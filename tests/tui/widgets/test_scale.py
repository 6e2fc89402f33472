"""Ranges, ticks, labels and buckets."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tui.widgets import scale

NAN = math.nan


def test_a_linear_axis_starts_at_zero_and_ends_on_a_round_number() -> None:
    found = scale.axis([0.41, 2.31, 1.0])
    assert found.low == 0.0
    assert found.high == pytest.approx(2.5)
    assert found.fraction(1.25) == pytest.approx(0.5)


def test_values_close_together_far_from_zero_get_the_whole_height() -> None:
    found = scale.axis([10.0, 10.4])
    assert 9.5 < found.low <= 10.0
    assert 10.4 <= found.high < 11.0


def test_a_constant_or_missing_series_still_has_a_range() -> None:
    for values in ([], [NAN], [0.0], [3.0, 3.0], [-2.0]):
        for log in (False, True):
            found = scale.axis(values, log=log)
            assert found.low < found.high
            assert math.isfinite(found.low + found.high)


def test_not_finite_values_do_not_stretch_the_axis() -> None:
    assert scale.axis([1.0, math.inf, NAN, 2.0]) == scale.axis([1.0, 2.0])


def test_a_log_axis_gives_equal_room_to_equal_factors() -> None:
    found = scale.Axis(0.01, 100.0, True)
    assert found.fraction(0.01) == 0.0
    assert found.fraction(1.0) == pytest.approx(0.5)
    assert found.fraction(10.0) == pytest.approx(0.75)
    assert found.fraction(0.0) is None
    assert found.fraction(-1.0) is None
    assert found.fraction(NAN) is None


def test_values_outside_the_range_are_clipped() -> None:
    found = scale.Axis(0.0, 1.0)
    assert found.fraction(7.0) == 1.0
    assert found.fraction(-7.0) == 0.0
    assert scale.Axis(0.1, 10.0, True).fraction(math.inf) == 1.0


def test_ticks_are_round_and_inside() -> None:
    assert scale.Axis(0.0, 2.5).ticks(3) == [0.0, 1.0, 2.0]
    assert scale.labels([0.0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert scale.labels([0.0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert scale.labels([0.0, 1.0, 2.0]) == ["0", "1", "2"]
    assert scale.Axis(0.05, 40.0, True).ticks(4) == pytest.approx([0.1, 1.0, 10.0])
    assert scale.Axis(0.3, 3.0, True).ticks(4) == pytest.approx([0.5, 1.0, 2.0])
    assert scale.labels([0.1, 1.0, 10.0]) == ["0.1", "1", "10"]
    assert scale.labels([1e-5, 1e-3, 1e6]) == ["1e-5", "0.001", "1e6"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("low", "high"), [(0.4, 0.41), (1.0, 1.5), (1e-6, 1e6), (2.0, 300.0)])
@pytest.mark.parametrize("log", [False, True])
def test_every_range_has_ticks_inside_it(low: float, high: float, count: int, log: bool) -> None:
    found = scale.Axis(low, high, log).ticks(count)
    assert found == sorted(found)
    assert 1 <= len(found) <= 2 * count + 2
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_x_ticks_are_round_end_at_the_total_and_leave_room() -> None:
    assert scale.whole_ticks(115, 50) == [0, 25, 50, 75, 100, 115]
    for total in (1, 2, 3, 7, 99, 100, 115, 12_345, 1_000_000):
        for width in (10, 20, 50, 100):
            ticks = scale.whole_ticks(total, width)
            assert ticks[-1] == total
            assert ticks == sorted(set(ticks))
            places = [tick / total * width for tick in ticks]
            room = min((b - a for a, b in pairwise(places)), default=width)
            assert room >= len(str(total)) or len(ticks) <= 2


def test_steps_land_on_their_dot_columns() -> None:
    assert scale.place(0, 100, 101) == 0
    assert scale.place(100, 100, 101) == 100
    assert scale.place(50, 100, 101) == 50
    assert scale.place(1000, 100, 101) == 100
    assert scale.spans([0, 50, 51, 100], 100, 3) == [(0, 0, 1), (1, 1, 3), (2, 3, 4)]


def test_spans_agree_with_place_for_every_step() -> None:
    steps = list(range(1, 778))
    for column, begin, end in scale.spans(steps, 900, 97):
        assert begin < end
        for step in steps[begin:end]:
            # A step exactly between two columns may fall on either.
            assert abs(step / 900 * 96 - column) <= 0.5 + 1e-9
    assert scale.spans(steps, 900, 97)[-1][2] == len(steps)


def test_buckets_keep_the_extremes_of_every_column() -> None:
    steps = list(range(1, 1001))
    values = [1.0] * 1000
    values[500] = 9.0  # a single spike must not be averaged away
    found = scale.buckets(steps, values, 1000, 40)
    assert len(found) == 40
    assert [top for _, _, top in found].count(9.0) == 1
    assert all(low == 1.0 for _, low, _ in found)


def test_buckets_leave_columns_of_nan_out_and_ignore_single_ones() -> None:
    assert scale.buckets([0, 50, 100], [1.0, NAN, 2.0], 100, 3) == [(0, 1.0, 1.0), (2, 2.0, 2.0)]
    assert scale.buckets([50, 51], [NAN, 3.0], 100, 3) == [(1, 3.0, 3.0)]
    assert scale.extremes([1.0, math.inf, -2.0]) == (-2.0, 1.0)
    assert scale.extremes([NAN]) is None


def test_a_trace_takes_the_last_value_of_a_column() -> None:
    assert scale.trace([0, 49, 50, 100], [1.0, 2.0, 3.0, 4.0], 100, 3) == [(0, 1.0), (1, 3.0), (2, 4.0)]


def test_thinning_keeps_the_ends_and_spares_short_series() -> None:
    steps, values = list(range(1, 10_001)), [float(i % 100) for i in range(10_000)]
    values[4321] = 777.0
    short_steps, short_values = scale.thin(steps, values, 10_000, cells=64)
    assert len(short_steps) == len(short_values) <= 128
    assert max(short_values) == 777.0
    assert min(short_values) == 0.0
    assert list(short_steps) == sorted(short_steps)
    assert scale.thin(steps[:50], values[:50], 10_000, cells=64) == (steps[:50], values[:50])
