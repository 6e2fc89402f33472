"""From numbers to places on a screen: ranges, ticks, labels and buckets. Pure functions, no widget."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct


class Axis(Struct, frozen=True):
    """A range of values, linear or logarithmic. `low` < `high`; both above 0 when `log`."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float | None:
        """Where `value` lies between low (0.0) and high (1.0), clipped; None where it has no place (NaN, 0 on a log axis)."""
        if math.isnan(value) or (self.log and value <= 0):
            return None
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low) if math.isfinite(value) else 1.0
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))

    def ticks(self, count: int) -> list[float]:
        """At most about `count` round numbers inside the range, ascending, at least one."""
        return _log_ticks(self.low, self.high, count) if self.log else _ticks(self.low, self.high, count)


def axis(values: Iterable[float], *, log: bool = False) -> Axis:
    """A range that holds every finite value of `values`, with round ends.

    A linear range starts at 0 unless the values lie close together far above it; then the curve would be a flat line.
    """
    finite = [value for value in values if math.isfinite(value) and (not log or value > 0)]
    if not finite:
        return Axis(0.1, 10.0, True) if log else Axis(0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        if high / low < 1.01:
            return Axis(low / 2, high * 2, True)
        return Axis(low * 0.95, high * 1.05, True)
    if 0 <= low < 0.6 * high:
        low = 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    step = nice((high - low) / 8)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def nice(value: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `value` (> 0)."""
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1.0, 2.0, 2.5, 5.0):
        if value <= factor * power * (1 + 1e-9):
            return factor * power
    return 10.0 * power


def _ticks(low: float, high: float, count: int) -> list[float]:
    step = nice((high - low) / max(1, count))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)] or [low]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [f * 10.0**d for d in decades for f in factors if low * (1 - 1e-9) <= f * 10.0**d <= high * (1 + 1e-9)]
        if 2 <= len(found) <= max(2, count):
            return found
    if len(found) < 2:  # the range is narrower than a factor of two: round numbers of a linear axis serve
        return [tick for tick in _ticks(low, high, count) if tick > 0] or [low]
    return found[:: math.ceil(len(found) / max(1, count))]


def whole_ticks(high: int, width: int) -> list[int]:
    """Steps to write under an x axis from 0 to `high` on `width` columns: round ones, and `high` itself at the end."""
    room = max(1, width // (len(str(high)) + 6))
    step = max(1, round(nice(high / room)))
    clear = (len(str(high)) + 2) * high / max(1, width)  # what a label at the right end hides
    return [tick for tick in range(0, high, step) if high - tick > clear] + [high]


def label(value: float, step: float) -> str:
    """`value` with as many decimals as ticks `step` apart need: "0.5", "12", "2e-5"."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return _short(value)
    decimals = max(0, min(4, math.ceil(-math.log10(step) - 1e-9))) if step > 0 else 1
    if decimals and abs(round(step * 10**decimals) - step * 10**decimals) > 1e-6:
        decimals += 1  # 0.25 needs two
    return f"{value:.{decimals}f}"


def labels(ticks: Sequence[float]) -> list[str]:
    """Texts for ticks: one number of decimals for evenly spaced ones, the shortest form for others (a log axis)."""
    if len(ticks) < 2:
        return [f"{tick:.3g}" for tick in ticks]
    gaps = [b - a for a, b in pairwise(ticks)]
    if max(gaps) < 1.01 * min(gaps):
        return [label(tick, gaps[0]) for tick in ticks]
    return [f"{tick:g}" if 1e-3 <= tick < 1e5 else _short(tick) for tick in ticks]


def _short(value: float) -> str:
    digits, power = f"{value:.0e}".split("e")
    return f"{digits}e{int(power)}"


def place(step: float, high: float, dots: int) -> int:
    """The dot column (0 … dots - 1) of `step` on an x axis from 0 to `high`."""
    return min(dots - 1, max(0, round(step / max(high, 1e-9) * (dots - 1))))


def spans(steps: Sequence[float], high: float, dots: int) -> list[tuple[int, int, int]]:
    """Which values fall on which dot column: (column, first index, index after the last), columns without any left out.

    `steps` ascend. Costs O(dots * log n), however many steps there are.
    """
    if not steps:
        return []
    found = []
    begin = 0
    for column in range(place(steps[0], high, dots), dots):
        if column == dots - 1:
            end = len(steps)
        else:
            end = bisect_left(steps, (column + 0.5) / (dots - 1) * max(high, 1e-9), begin)
        if end > begin:
            found.append((column, begin, end))
            begin = end
        if begin == len(steps):
            break
    return found


def extremes(values: Sequence[float]) -> tuple[float, float] | None:
    """Smallest and largest finite value, or None if there is none. C speed unless something is not finite."""
    values = list(values)  # an array would make its floats anew for each of the three passes
    if math.isfinite(sum(values)):
        return min(values), max(values)
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else None


def buckets(steps: Sequence[float], values: Sequence[float], high: float, dots: int) -> list[tuple[int, float, float]]:
    """At most two points for every dot column: (column, smallest, largest). Columns of NaN alone are left out."""
    found = []
    for column, begin, end in spans(steps, high, dots):
        pair = extremes(values[begin:end])
        if pair is not None:
            found.append((column, *pair))
    return found


def thin(
    steps: Sequence[float], values: Sequence[float], high: float, cells: int = 1024
) -> tuple[Sequence[float], Sequence[float]]:
    """A long series reduced to the extremes of `cells` equal parts of the x axis; a short one as it is.

    One pass at C speed; everything after it works on some thousand points, each off by less than one part.
    """
    if len(steps) <= 4 * cells:
        return steps, values
    short_steps: list[float] = []
    short_values: list[float] = []
    for _, begin, end in spans(steps, high, cells):
        pair = extremes(values[begin:end])
        for value in pair or (math.nan,):
            short_steps.append(steps[begin])
            short_values.append(value)
    return short_steps, short_values


def trace(steps: Sequence[float], values: Sequence[float], high: float, dots: int) -> list[tuple[int, float]]:
    """One point for every dot column that has values, its last: (column, value). NaN where the line must be broken."""
    return [(column, values[end - 1]) for column, _, end in spans(steps, high, dots)]
