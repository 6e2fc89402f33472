"""A loss curve as lines of text, in braille dots: for `ftui attach` in a pipe and for terminals without screens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

# Bit of each dot of a braille cell, by (column, row from the top).
_DOT = {(0, 0): 1, (0, 1): 2, (0, 2): 4, (1, 0): 8, (1, 1): 16, (1, 2): 32, (0, 3): 64, (1, 3): 128}


def curve(
    steps: Sequence[int],
    values: Sequence[float],
    marks: Sequence[tuple[int, float]] = (),
    *,
    last: int | None = None,
    width: int = 64,
    height: int = 8,
) -> list[str]:
    """`values` over `steps` as `height` lines of braille plus one line of step numbers; [] without a finite value.

    marks   points shown as ◆ (loss on held-out rows)
    last    step at the right edge; the newest step where None
    width   of the drawing in cells, two dots each; the labels on the left come on top
    """

    def points() -> Iterator[tuple[int, float]]:
        """Gone through again and again, not kept: a long run has a million."""
        return ((s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v))

    finite_marks = [(s, v) for s, v in marks if math.isfinite(v)]
    first = min((s for s, _ in points()), default=None)
    if first is None:
        return []
    end = max(last or 0, max(s for s, _ in chain(points(), finite_marks)))
    low, high = _range(
        min(v for _, v in chain(points(), finite_marks)), max(v for _, v in chain(points(), finite_marks))
    )
    columns, rows = width * 2, height * 4

    def column(step: int) -> int:
        return 0 if end == first else round((step - first) / (end - first) * (columns - 1))

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (rows - 1))

    cells = [[0] * width for _ in range(height)]
    before: tuple[int, int] | None = None
    for x, y in _means((column(s), v) for s, v in points()):
        dot = (x, row(y))
        for px, py in _line(before or dot, dot):
            cells[py // 4][px // 2] |= _DOT[px % 2, py % 4]
        before = dot
    picture = [[chr(0x2800 + bits) if bits else " " for bits in line] for line in cells]
    for step, value in finite_marks:
        picture[row(value) // 4][column(step) // 2] = "◆"
    labels = {0: f"{high:.2f}", height - 1: f"{low:.2f}"}
    labels[height // 2] = f"{high - (high - low) * (height // 2) / (height - 1):.2f}"
    margin = max(map(len, labels.values()))
    lines = [f"{labels.get(i, ''):>{margin}} {''.join(line).rstrip()}".rstrip() for i, line in enumerate(picture)]
    return [*lines, f"{'':>{margin}} {first:<{width // 2}}{end:>{width - width // 2}}"]


def _range(low: float, high: float) -> tuple[float, float]:
    """Lowest and highest value shown; the loss is shown from 0 where that costs less than half of the height."""
    if 0 < low < high / 2:
        low = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _means(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """One point a dot column: the mean of those that fall into it. Columns must ascend."""
    sums: dict[int, tuple[float, int]] = {}
    for x, y in points:
        total, count = sums.get(x, (0.0, 0))
        sums[x] = (total + y, count + 1)
    return [(x, total / count) for x, (total, count) in sums.items()]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from `start` to `end`, both included."""
    (x0, y0), (x1, y1) = start, end
    count = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [(round(x0 + (x1 - x0) * i / count), round(y0 + (y1 - y0) * i / count)) for i in range(count + 1)]
