"""Bars, the cutoff line, and the keys that move it."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from tui.widgets.histogram import Histogram, bar, rows

BUCKETS = [(0, 64, 4), (64, 128, 53), (128, 192, 28), (192, 256, 5), (256, 320, 1)]


def text(found: list[list[tuple[str, str]]]) -> list[str]:  # type: ignore[type-arg]
    return ["".join(part for part, _ in row) for row in found]


def test_bars_are_in_proportion_to_an_eighth_of_a_cell() -> None:
    assert bar(8, 8, 10) == "█" * 10
    assert bar(4, 8, 10) == "█" * 5
    assert bar(1, 16, 4) == "▎"
    assert bar(3, 16, 4) == "▊"
    assert bar(0, 8, 10) == ""


def test_one_row_among_thousands_is_still_seen() -> None:
    assert bar(1, 1_000_000, 40) == "▏"
    assert bar(1, 1_000_000, 40, cut=True) == "▒"


def test_logarithmic_bars_show_a_few_rows_beside_a_million() -> None:
    assert len(bar(9, 999_999, 60, log=True)) == 10
    assert bar(999_999, 999_999, 60, log=True) == "█" * 60
    assert bar(9, 999_999, 60) == "▏"
    linear, log = (text(rows(BUCKETS, None, "", 60, log=log))[0].count("█") for log in (False, True))
    assert log > 3 * linear


def test_the_line_stands_below_the_last_bucket_that_begins_before_it() -> None:
    lines = text(rows(BUCKETS, 256, "1 row cut", 60))
    assert len(lines) == 6
    assert lines[4].split() == ["256", "┄┄┄┄", "1", "row", "cut"]
    assert lines[3].lstrip().startswith("192 ▏█")
    assert lines[5].lstrip().startswith("256 ▏▒")
    assert text(rows(BUCKETS, 100, "", 60))[2].lstrip().startswith("100 ┄")
    assert text(rows(BUCKETS, 4096, "", 60))[-1].lstrip().startswith("4,096 ┄")


def test_what_is_cut_differs_in_shape_not_in_colour_alone() -> None:
    lines = text(rows(BUCKETS, 64, "", 60))
    assert "█" in lines[0]
    assert all("▒" in line and "█" not in line for line in lines[2:])


def test_the_bar_that_the_cutoff_falls_into_has_two_parts() -> None:
    lines = text(rows(BUCKETS, 96, "", 60, beyond=60))  # 34 of them lie in buckets above, so 26 of the 53 below 128
    kept, cut = lines[1].count("█"), lines[1].count("▒")
    assert abs(kept - cut) <= 2 and kept + cut == text(rows(BUCKETS, None, "", 60))[1].count("█")
    assert "▒" not in text(rows(BUCKETS, 96, "", 60, beyond=34))[1]
    assert "▒" in text(rows(BUCKETS, 96, "", 60, beyond=35))[1]
    assert "█" not in text(rows(BUCKETS, 65, "", 60, beyond=87))[1]
    # A row of exactly as many tokens is not cut, though it stands below the line.
    assert not any("▒" in line for line in text(rows(BUCKETS, 256, "", 60, beyond=0)))


@pytest.mark.parametrize("width", [20, 40, 77, 117])
def test_no_row_is_wider_than_its_place(width: int) -> None:
    for cutoff in (None, 8, 256, 100_000):
        assert all(len(line) <= width for line in text(rows(BUCKETS, cutoff, "a caption that is long " * 9, width)))
    assert rows([], 256, "", width) == []


class Alone(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.moved: list[int] = []

    def compose(self) -> ComposeResult:
        yield Histogram(BUCKETS, 250, most=512)

    def on_histogram_cutoff_changed(self, event: Histogram.CutoffChanged) -> None:
        self.moved.append(event.cutoff)


async def test_arrow_keys_move_the_line_to_whole_steps_within_bounds() -> None:
    app = Alone()
    async with app.run_test(size=(60, 12)) as pilot:
        app.query_one(Histogram).focus()
        await pilot.press("right", "right", "left", "shift+left")
        assert app.moved == [256, 264, 256, 192]  # far: a whole bar
        for _ in range(10):
            await pilot.press("shift+right")
        assert app.query_one(Histogram).cutoff == 512
        assert app.moved[-1] == 512
        for _ in range(10):
            await pilot.press("shift+left")
        assert app.query_one(Histogram).cutoff == 8


async def test_a_click_puts_the_line_below_that_bucket() -> None:
    app = Alone()
    async with app.run_test(size=(60, 12)) as pilot:
        await pilot.click(Histogram, offset=(12, 1))
        assert app.moved == [128]
        await pilot.click(Histogram, offset=(12, 3))  # the row after the line: bucket 128 to 192
        assert app.moved == [128, 192]


async def test_without_a_cutoff_there_is_no_line_to_move() -> None:
    app = Alone()
    async with app.run_test(size=(60, 12)) as pilot:
        histogram = app.query_one(Histogram)
        histogram.cutoff = None
        await pilot.pause()
        assert histogram.size.height == len(BUCKETS)
        await pilot.press("right")
        assert app.moved == []


async def test_far_is_a_whole_bar_and_a_caption_keeps_to_its_room() -> None:
    app = Alone()
    async with app.run_test(size=(60, 12)) as pilot:
        histogram = app.query_one(Histogram)
        histogram.buckets = ((0, 1024, 5), (1024, 2048, 1))
        histogram.most, histogram.cutoff = 4096, 1024
        histogram.focus()
        await pilot.press("shift+right")
        assert app.moved == [2048]
        for captions, seen in (
            (("short enough", "short"), "┄┄┄┄ short enough"),
            (("x" * 60, "short"), "┄┄┄┄ short"),
            (("x" * 60, "y" * 60), "yyy…"),
        ):
            histogram.captions = captions
            await pilot.pause()
            lines = ["".join(part.text for part in strip).rstrip() for strip in app.screen._compositor.render_strips()]
            assert any(line.endswith(seen) for line in lines)
