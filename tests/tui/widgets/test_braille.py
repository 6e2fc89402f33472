"""Dots land where they should."""

from __future__ import annotations

import math

from tui.widgets.braille import Canvas, spark


def test_each_dot_of_a_cell_is_its_own_bit() -> None:
    # Dots 1-8 of Unicode braille, in the order left column, right column, bottom row.
    expected = {(0, 0): "⠁", (0, 1): "⠂", (0, 2): "⠄", (1, 0): "⠈", (1, 1): "⠐", (1, 2): "⠠", (0, 3): "⡀", (1, 3): "⢀"}
    for (x, y), char in expected.items():
        canvas = Canvas(1, 1)
        canvas.dot(x, y)
        assert canvas.lines() == [char]


def test_dots_outside_are_ignored_and_empty_cells_are_spaces() -> None:
    canvas = Canvas(2, 2)
    for x, y in ((-1, 0), (4, 0), (0, -1), (0, 8)):
        canvas.dot(x, y)
    assert canvas.lines() == ["  ", "  "]
    canvas.dot(3, 7)
    assert canvas.lines() == ["  ", " ⢀"]


def test_a_line_has_no_holes_and_both_ends() -> None:
    canvas = Canvas(2, 1)
    canvas.line(0, 3, 3, 0)
    assert canvas.lines() == ["⡠⠊"]
    canvas = Canvas(1, 2)
    canvas.line(0, 0, 0, 7)
    assert canvas.lines() == ["⡇", "⡇"]
    canvas.line(1, 7, 1, 7)
    assert canvas.lines() == ["⡇", "⣇"]


def test_a_sparkline_falls_with_its_values() -> None:
    assert spark([3.0, 2.0, 1.0, 0.0], 4) == "⠑⢄"
    assert spark([1.0, 1.0], 4) == "⠤"
    assert spark([], 4) == ""
    assert spark([math.nan], 4) == ""


def test_a_sparkline_leaves_a_gap_for_nan_and_keeps_to_its_width() -> None:
    assert spark([0.0, 3.0, math.nan, math.nan, 0.0, 3.0], 9) == "⡈ ⡈"
    assert len(spark([float(i) for i in range(1000)], 6)) == 6
    assert spark([5.0] * 999 + [0.0], 3)[-1] != spark([5.0] * 1000, 3)[-1]  # the newest value is always drawn
