"""The smaller widgets: memory bar, meters, sparkline, answers, phases, log tail, choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.widget import Widget

from tests.tui.hostile import HOSTILE, check_screen
from tui.widgets import memory, meters, phases, preview, said, tail
from tui.widgets.choice import Choice
from tui.widgets.sparkline import Sparkline


class Alone(App[None]):
    """An app that holds one widget."""

    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self.widget = widget

    def compose(self) -> ComposeResult:
        yield self.widget

    def seen(self) -> str:
        strips = self.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips).rstrip()


# memory ---------------------------------------------------------------------------------------------------------


def test_parts_share_the_bar_in_proportion() -> None:
    assert memory.split([50, 25, 25], 100, 40) == [20, 10, 10]
    assert memory.split([50], 100, 40) == [20]
    assert sum(memory.split([1, 1, 1], 3, 10)) == 10


@pytest.mark.parametrize("width", [8, 21, 40, 60])
def test_small_parts_are_seen_and_the_bar_never_overflows(width: int) -> None:
    for parts in ([10**9, 1, 1, 1], [1, 1], [10**12] * 5, [0, 5, 0]):
        cells = memory.split(parts, 10**9, width)
        assert sum(cells) <= width
        assert all((cell > 0) == (part > 0) for cell, part in zip(cells, parts, strict=True))


def test_the_verdict_says_what_is_too_much() -> None:
    assert memory.verdict([2_100_000_000], 23_000_000_000) == "2.1 GB of 23.0 GB"
    assert memory.verdict([25_000_000_000], 23_000_000_000) == "25.0 GB, 2.0 GB more than there is"
    assert memory.verdict([500], 0) == "500 B"


async def test_each_part_has_its_own_glyph_name_and_size() -> None:
    parts = [
        ("weights", 5 * 10**8),
        ("adapter", 10**8),
        ("activations", 9 * 10**8),
        ("nothing", 0),
        ("logits", 3 * 10**8),
    ]
    app = Alone(memory.MemoryBar(parts, 4 * 10**9))
    async with app.run_test(size=(60, 8)) as pilot:
        await pilot.pause()
        text = app.seen()
        assert "█ weights 500 MB" in text
        assert "░ logits 300 MB" in text
        assert "nothing" not in text
        assert text.splitlines()[0].endswith("1.8 GB of 4.0 GB")
        assert {"█", "▓", "▒", "░", "·"} <= set(text.splitlines()[0])


# meters and sparkline -------------------------------------------------------------------------------------------


def test_a_meter_keeps_its_value_whole_and_shortens_its_name() -> None:
    assert meters.line("loss", "0.41", 12) == ("loss    ", "0.41")
    assert meters.line("a very long name", "0.41", 12) == ("a very… ", "0.41")


async def test_a_sparkline_keeps_to_its_width() -> None:
    app = Alone(Sparkline([float(100 - i) for i in range(100)]))
    async with app.run_test(size=(20, 2)) as pilot:
        await pilot.pause()
        line = app.seen()
        assert len(line) == 20
        assert line[0] == "⠉"
        assert line[-1] == "⣀"


# what the model says --------------------------------------------------------------------------------------------


def test_the_first_answer_and_the_newest_are_kept() -> None:
    answers = [(step, f"at {step}") for step in range(0, 100, 10)]
    assert said.choose(answers, 4) == [(0, "at 0"), (70, "at 70"), (80, "at 80"), (90, "at 90")]
    assert said.choose(answers, 1) == [(90, "at 90")]
    assert said.choose(answers[:2], 4) == answers[:2]


def test_long_answers_break_at_spaces_and_end_in_an_ellipsis() -> None:
    assert said.fold("one two three four", 9, 3) == ["one two", "three", "four"]
    assert said.fold("one two three four", 9, 2) == ["one two", "three fo…"]
    assert said.fold("你好你好你好", 4, 2) == ["你好", "你…"]
    assert said.fold("", 9, 2) == []


# phases ---------------------------------------------------------------------------------------------------------


def test_phases_list_what_is_done_what_goes_on_and_what_comes() -> None:
    found = phases.rows([phases.Phase("preparing", 0.2), phases.Phase("loading", 12, "95 of 95 MB", 0.5)])
    assert found[0] == ("✓", "Preparing", "")
    assert found[1] == ("●", "Loading the model", "━━━━━━━━━━┄┄┄┄┄┄┄┄┄┄  95 of 95 MB")
    assert [row[:2] for row in found[2:]] == [("·", "Counting tokens"), ("·", "Training")]


def test_a_phase_without_a_measure_shows_its_time() -> None:
    assert phases.rows([phases.Phase("loading", 12)])[0] == ("●", "Loading the model", "12 s")
    assert phases.meter(7.0, 4) == "━━━━"
    assert phases.meter(-1.0, 4) == "┄┄┄┄"


# the end of a log -----------------------------------------------------------------------------------------------


def test_of_a_progress_bar_the_last_state_stays() -> None:
    assert tail.lines_of(b"a\r\n 1%\r 50%\r100%\nb\r") == ["a", "100%", "b"]
    assert tail.lines_of("\x1b[2J \udcff".encode("utf-8", "surrogateescape")) == ["␛[2J �"]


async def test_a_tail_follows_waits_for_whole_lines_and_survives_truncation(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    widget = tail.Tail(path)
    app = Alone(widget)
    async with app.run_test(size=(60, 12)) as pilot:
        widget.poll()
        path.write_text("one\ntw")
        widget.poll()
        assert list(widget.lines)[:1] == ["one"]
        assert "tw" not in list(widget.lines)
        with path.open("a") as file:
            file.write("o\n")
        widget.poll()
        assert [line for line in widget.lines if line] == ["one", "two"]
        path.write_text("new\n")
        widget.poll()
        assert [line for line in widget.lines if line] == ["new"]
        path.write_bytes(b"x" * 70_000 + b"\nlast\n")
        widget.poll()
        await pilot.pause()


# choice ---------------------------------------------------------------------------------------------------------


async def test_a_choice_goes_round_and_is_marked_by_a_glyph() -> None:
    widget = Choice([("a", "First", "one"), ("b", "Second", "two")])
    app = Alone(widget)
    async with app.run_test(size=(40, 4)) as pilot:
        widget.focus()
        await pilot.press("down")
        assert widget.chosen == "b"
        assert app.seen().splitlines() == ["○ First    one", "● Second   two"]
        await pilot.press("down")
        assert widget.chosen == "a"
        await pilot.click(Choice, offset=(2, 1))
        assert widget.chosen == "b"


# hostile text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["preview", "meters", "said", "phases", "memory", "choice", "histogram"])
async def test_no_widget_passes_foreign_text_on_to_the_terminal(kind: str) -> None:
    from tui.widgets.histogram import Histogram

    many = {
        "preview": lambda: preview.MaskedPreview(
            [(HOSTILE, preview.of_pieces([(HOSTILE, False), (f"{HOSTILE}\n", True)]))]
        ),
        "meters": meters.Meters,
        "said": said.Said,
        "phases": phases.Phases,
        "memory": lambda: memory.MemoryBar([(HOSTILE, 5)], 10),
        "choice": lambda: Choice([("a", "A", HOSTILE)]),
        "histogram": lambda: Histogram([(0, 8, 1)], 8),
    }
    widget = many[kind]()
    async with Alone(widget).run_test(size=(200, 12)) as pilot:
        match widget:
            case meters.Meters():
                widget.styles.width = 190
                widget.show([(HOSTILE, HOSTILE)])
            case said.Said():
                widget.show(HOSTILE, [(1, HOSTILE)], 8)
            case phases.Phases():
                widget.show([phases.Phase("loading", 1, HOSTILE)])
            case Histogram():
                widget.captions = (HOSTILE,)
        await pilot.pause()
        text = Alone.seen(pilot.app)  # type: ignore[arg-type]
        assert "␛[31mred" in text
        check_screen(pilot)
