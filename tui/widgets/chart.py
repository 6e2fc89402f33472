"""The loss curve: raw points faint, the smoothed curve bright, evaluations as ◆, and the future still empty.

Drawn without colour the kinds differ in shape: raw losses are single dots, the smoothed curve is one line, an
evaluation is a diamond. `draw` is pure; `LossChart` only puts its rows on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.widgets import scale
from tui.widgets.braille import Canvas

Role = Literal["axis", "raw", "smooth", "eval", "none"]
EMPTY = "no step yet"
Row = list[tuple[str, Role]]


class Curve(Struct):
    """What there is to draw. `steps`, `loss` and `smooth` have one length; steps ascend; NaN is a gap."""

    steps: Sequence[float] = ()
    loss: Sequence[float] = ()
    smooth: Sequence[float] = ()
    evaluated: Sequence[tuple[float, float]] = field(default_factory=list)  # (step, loss on held-out rows)
    total: int = 1  # the last step there will be


def draw(curve: Curve, width: int, height: int, *, log: bool = False) -> list[Row]:
    """The chart as `height` rows of at most `width` cells, each a list of (text, role).

    At most two raw points stand in one of the 2 * columns dot columns, so the cost hardly grows with the steps.
    """
    rows = height - 1  # the last one is the x axis
    if rows < 2 or width < 12:
        return []
    high = max(curve.total, 1)
    steps, loss = scale.thin(curve.steps, curve.loss, high)
    ends = scale.extremes(loss) if loss else None
    values = list(ends or ())
    y_axis = scale.axis([*values, *(value for _, value in curve.evaluated)], log=log)
    ticks = y_axis.ticks(max(2, (rows + 1) // 3))
    marks = {_row(y_axis, tick, rows): text for tick, text in zip(ticks, scale.labels(ticks), strict=True)}
    if not values and not curve.evaluated:
        marks = {}  # numbers beside an empty chart would be invented ones
    gutter = max((len(text) for text in marks.values()), default=3) + 1
    columns = width - gutter
    raw, smooth = Canvas(columns, rows), Canvas(columns, rows)
    for column, low, top in scale.buckets(steps, loss, high, 2 * columns):
        for value in (low, top):
            part = y_axis.fraction(value)
            if part is not None:
                raw.dot(column, _dot(part, rows))
    previous: tuple[int, int] | None = None
    for column, value in scale.trace(curve.steps, curve.smooth, high, 2 * columns):
        part = y_axis.fraction(value)
        here = None if part is None else (column, _dot(part, rows))
        if here:
            x, y = previous or here
            for thickness in (0, 1):  # two dots, so that a line never looks like a row of raw points
                smooth.line(x, y - thickness, here[0], here[1] - thickness)
        previous = here
    diamonds = set()
    for step, value in curve.evaluated:
        part = y_axis.fraction(value)
        if part is not None and math.isfinite(value):
            diamonds.add((scale.place(step, high, 2 * columns) // 2, _dot(part, rows) // 4))
    picture = [
        [(f"{marks.get(row, ''):>{gutter - 1}} ", "axis"), *_cells(raw, smooth, diamonds, row)] for row in range(rows)
    ]
    if not marks:
        picture[rows // 2] = [(f"{'':{gutter}}{EMPTY:^{columns}}", "axis")]
    picture.append([(_x_axis(high, gutter, columns), "axis")])
    return picture


def _dot(fraction: float, rows: int) -> int:
    return round((1 - fraction) * (4 * rows - 1))


def _row(y_axis: scale.Axis, tick: float, rows: int) -> int:
    return _dot(y_axis.fraction(tick) or 0.0, rows) // 4


def _cells(raw: Canvas, smooth: Canvas, diamonds: set[tuple[int, int]], row: int) -> Row:
    """One row of the plot, neighbours of one role joined. The curve covers the points, a diamond covers both."""
    cells: Row = []
    for column in range(raw.columns):
        role: Role
        if (column, row) in diamonds:
            char, role = "◆", "eval"
        elif (char := smooth.char(column, row)) != " ":
            role = "smooth"
        elif (char := raw.char(column, row)) != " ":
            role = "raw"
        else:
            role = "none"
        if cells and cells[-1][1] == role:
            cells[-1] = (cells[-1][0] + char, role)
        else:
            cells.append((char, role))
    return cells


def _x_axis(high: int, gutter: int, columns: int) -> str:
    line = [" "] * (gutter + columns)
    for tick in scale.whole_ticks(high, columns):
        text = str(tick)
        middle = gutter + scale.place(tick, high, 2 * columns) // 2
        begin = min(max(gutter, middle - len(text) // 2), gutter + columns - len(text))
        line[begin : begin + len(text)] = text
    return "".join(line)


class LossChart(Widget):
    """A chart of a `Curve`. Give it `show(curve)`; it draws again only when the curve, the axis or the size changed."""

    DEFAULT_CSS = """
    LossChart {
        height: 1fr;
        min-height: 4;

        & > .loss-chart--axis { color: $foreground 60%; }
        & > .loss-chart--raw { color: $foreground 45%; }
        & > .loss-chart--smooth { color: $primary; text-style: bold; }
        & > .loss-chart--eval { color: $warning; text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {f"loss-chart--{role}" for role in ("axis", "raw", "smooth", "eval")}
    HELP = (
        "The loss over optimizer steps. Single dots are the loss of each step, the line is their smoothed course, "
        "◆ is the loss on held-out rows. The empty part at the right is still to come. y changes the axis."
    )

    log_axis: reactive[bool] = reactive(False)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._curve = Curve()
        self._shown = _print(self._curve)
        self._drawn: tuple[object, ...] = ()
        self._content = Content("")

    def show(self, curve: Curve) -> None:
        """Show another curve; the same one (same lengths, ends and marks) costs nothing."""
        shown = _print(curve)
        if shown != self._shown:
            self._curve, self._shown = curve, shown  # the curve's arrays may grow under us; this print does not
            self.refresh()

    def render(self) -> Content:
        width, height = self.content_size
        key = (width, height, self.log_axis, self.app.theme, self._shown)
        if key != self._drawn:
            self._drawn = key
            rows = draw(self._curve, width, height, log=self.log_axis)
            self._content = Content("\n").join(self._row_content(row) for row in rows)
        return self._content

    def _row_content(self, row: Row) -> Content:
        return Content.assemble(
            *(text if role == "none" else (text, self.get_visual_style(f"loss-chart--{role}")) for text, role in row)
        )


def _print(curve: Curve) -> tuple[object, ...]:
    """What tells two states of one growing curve apart without reading all of it."""
    last = (curve.steps[-1], repr(curve.loss[-1])) if curve.steps else ()
    return (len(curve.steps), last, len(curve.evaluated), curve.total)
