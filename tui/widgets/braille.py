"""A canvas of braille dots: each character cell holds 2 x 4 of them. Pure, no widget."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLANK = 0x2800
# Bit of the dot at (x, y) inside a cell, y downwards (Unicode 16, chapter 21.1: dots 1-3, 4-6, then 7 and 8 below).
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


class Canvas:
    """`columns` x `rows` cells, so 2*columns x 4*rows dots; (0, 0) is the upper left dot."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.cells = [bytearray(columns) for _ in range(rows)]

    def dot(self, x: int, y: int) -> None:
        """Set one dot; outside the canvas nothing happens."""
        if 0 <= x < self.columns * 2 and 0 <= y < self.rows * 4:
            self.cells[y // 4][x // 2] |= _BITS[y % 4][x % 2]

    def line(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Set the dots of a straight line, both ends included (Bresenham)."""
        dx, dy = abs(x1 - x0), -abs(y1 - y0)
        step_x, step_y = (1 if x0 < x1 else -1), (1 if y0 < y1 else -1)
        error = dx + dy
        while True:
            self.dot(x0, y0)
            if (x0, y0) == (x1, y1):
                return
            double = 2 * error
            if double >= dy:
                error += dy
                x0 += step_x
            if double <= dx:
                error += dx
                y0 += step_y

    def char(self, column: int, row: int) -> str:
        """The braille character of a cell, or a space if it holds no dot."""
        bits = self.cells[row][column]
        return chr(BLANK + bits) if bits else " "

    def lines(self) -> list[str]:
        return ["".join(self.char(column, row) for column in range(self.columns)) for row in range(self.rows)]


def spark(values: Sequence[float], width: int) -> str:
    """The course of `values` as one line of at most `width` braille cells, two values a cell, highest to lowest.

    More values than fit are drawn by the last of each group; NaN and infinities leave a gap.
    """
    if not values or width < 1:
        return ""
    room = 2 * width
    if len(values) > room:
        values = [values[(index + 1) * len(values) // room - 1] for index in range(room)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    canvas = Canvas((len(values) + 1) // 2, 1)
    for x, value in enumerate(values):
        if math.isfinite(value):
            # An unchanging course lies in the lower middle: neither good nor bad.
            canvas.dot(x, round((high - value) / (high - low) * 3) if high > low else 2)
    return canvas.lines()[0]
