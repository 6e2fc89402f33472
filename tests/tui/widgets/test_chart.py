"""The loss chart: what is drawn where, and that nothing is drawn twice for nothing."""

from __future__ import annotations

import math
from itertools import pairwise

from textual.app import App, ComposeResult

from tui.widgets.chart import Curve, LossChart, Row, draw


def text(rows: list[Row]) -> list[str]:
    return ["".join(part for part, _ in row) for row in rows]


def roles(rows: list[Row]) -> set[str]:
    return {role for row in rows for part, role in row if part.strip()}


def falling(count: int, total: int) -> Curve:
    loss = [2.0 - 1.5 * i / total for i in range(count)]
    return Curve(list(range(1, count + 1)), loss, loss, [], total)


def test_every_row_fills_the_width_and_the_last_one_holds_the_steps() -> None:
    rows = text(draw(falling(40, 100), 60, 12))
    assert len(rows) == 12
    assert {len(row) for row in rows} == {60}
    assert rows[-1].split()[0] == "0"
    assert rows[-1].split()[-1] == "100"


def test_the_curve_falls_from_upper_left_and_the_future_is_empty() -> None:
    rows = text(draw(falling(40, 100), 60, 12))[:-1]
    drawn = [(x, y) for y, row in enumerate(rows) for x, char in enumerate(row) if "⠀" < char <= "⣿"]
    assert min(y for _, y in drawn) < min(y for x, y in drawn if x > 20)
    gutter = 4
    assert max(x for x, _ in drawn) <= gutter + 0.42 * (60 - gutter)  # 40 of 100 steps


def test_raw_smoothed_and_evaluation_are_told_apart_without_colour() -> None:
    steps = list(range(1, 101))
    curve = Curve(steps, [1.0 + (i % 2) for i in steps], [0.4] * 100, [(50, 1.8)], 100)
    rows = draw(curve, 60, 12)
    assert roles(rows) == {"axis", "raw", "smooth", "eval"}
    assert "".join(text(rows)).count("◆") == 1
    line = next(part for row in rows for part, role in row if role == "smooth")
    assert len(line) > 50  # one line without holes
    points = [part for row in rows for part, role in row if role == "raw"]
    assert all(set(part) <= set("⠉⠁⠈⠂⠐⠒⠄⠠⠤⡀⢀⣀⠑⠊⠌⠡⠘⠃⠆⠰⡄⢠⡂⢂⢐⡐⡠⢄⡁⢁⢈⡈⠔⠢⠅⠨⠥⠬⠍⠩⠕⠪") for part in points)


def test_a_gap_in_the_values_is_a_gap_in_the_line() -> None:
    loss = [1.0] * 40 + [math.nan] * 20 + [1.0] * 40
    rows = draw(Curve(list(range(100)), loss, loss, [], 99), 54, 8)
    line = next(row for row in rows if any(role == "smooth" for _, role in row))
    parts = [(part, role) for part, role in line if role != "axis"]
    assert [role for _, role in parts] == ["smooth", "none", "smooth"]
    assert len(parts[1][0]) >= 9


def test_the_log_axis_makes_a_geometric_fall_a_straight_line() -> None:
    loss = [10 * 0.5 ** (i / 10) for i in range(100)]
    curve = Curve(list(range(100)), loss, loss, [], 99)
    rows = draw(curve, 100, 20, log=True)[:-1]
    ends = {}
    for y, row in enumerate(rows):
        x = 0
        for part, role in row:
            if role == "smooth":
                ends.setdefault(y, x)
            x += len(part)
    ys = sorted(ends)
    slopes = [ends[b] - ends[a] for a, b in pairwise(ys)]
    assert len(slopes) > 15
    assert max(slopes) - min(slopes[1:-1]) <= 3
    linear = draw(curve, 100, 20)[:-1]
    assert text(linear) != text(rows)


def test_an_empty_chart_invents_no_numbers() -> None:
    rows = text(draw(Curve(total=115), 50, 8))
    assert [row.strip() for row in rows[:-1] if row.strip()] == ["no step yet"]
    assert rows[-1].split()[-1] == "115"


def test_too_small_a_place_draws_nothing() -> None:
    assert draw(falling(10, 10), 5, 10) == []
    assert draw(falling(10, 10), 50, 2) == []


def test_odd_values_never_raise() -> None:
    for loss in ([math.inf, 1.0], [0.0, 0.0], [-1.0, 5.0], [1e-12, 1e12], [math.nan, math.nan], [5.0, -math.inf]):
        for log in (False, True):
            draw(Curve([1, 2], loss, loss, [(1, loss[0])], 2), 40, 8, log=log)
    draw(falling(1, 1), 40, 8)
    draw(Curve([1, 2, 3], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [], 0), 40, 8)


async def test_the_widget_draws_again_only_on_change() -> None:
    class Alone(App[None]):
        def compose(self) -> ComposeResult:
            yield LossChart()

    app = Alone()
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LossChart)
        chart.show(falling(10, 100))
        await pilot.pause()
        first = chart.render()
        chart.show(falling(10, 100))
        assert chart.render() is first
        chart.show(falling(11, 100))
        second = chart.render()
        assert second is not first
        chart.log_axis = True
        assert chart.render() is not second
