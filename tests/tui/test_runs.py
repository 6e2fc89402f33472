"""Home: the table of runs as data and on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.hardware import Hardware
from engine.runs import control
from engine.runs.events import Progress
from tests.tui.run_files import T0, FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.listing import Columns, Listing, presets
from tui.rows import Rows
from tui.screens.runs import RunsScreen


def lines_of(now: float = T0 + 3600) -> dict[str, object]:
    return {line.name: line for line in Listing().read(now)}


def test_columns_fill_the_line_at_every_width() -> None:
    for width in range(75, 200):
        columns = Columns.of(width)
        assert len(columns.heading()) <= width
    assert Columns.of(75).evaluation == 0 < Columns.of(115).evaluation


def test_a_line_says_how_a_run_stands() -> None:
    FakeRun("done").whole()
    training = FakeRun("going")
    training.alive()
    training.begin()
    training.steps(1, 60)
    failed = FakeRun("broken")
    failed.begin()
    failed.steps(1, 3)
    failed.fail("out of memory at batch 4")
    found = lines_of()
    done, going, broken = (str(found[name].line(75).plain) for name in ("done", "going", "broken"))  # type: ignore[attr-defined]
    assert done.startswith("✓ done") and "115/115" in done and "LoRA r8" in done and done.endswith("ago")
    assert going.startswith("● going") and "60/115" in going
    assert broken.startswith("! broken") and "out of memory" in broken


def test_every_state_has_a_word_that_fits_the_step_column() -> None:
    from typing import get_args

    from engine.runs.events import StateName
    from tui.listing import STATES

    assert all(len(STATES.get(state, state)) <= Columns.of(75).step for state in get_args(StateName))


def test_every_line_fits_its_width() -> None:
    FakeRun("a" * 70).whole()
    for line in Listing().read(T0):
        for width in (40, 75, 115, 160):
            assert line.line(width).cell_length <= width


def test_foreign_names_are_shown_and_not_obeyed() -> None:
    run = FakeRun("plain")
    run.whole()
    text = run.run.recipe_path.read_text()
    run.run.recipe_path.write_text(text.replace("name: plain", 'name: "\\e[2J[@click=app.quit]x"'))
    (line,) = Listing().read(T0)
    assert "\x1b" not in line.name and "[@click=app.quit]x" in line.name


def test_a_broken_folder_does_not_hide_the_others() -> None:
    FakeRun("good").whole()
    bad = FakeRun("bad")
    bad.run.recipe_path.write_text("nonsense: [")
    states = {line.name: line for line in Listing().read(T0)}
    assert "good" in states and len(states) == 2


def test_presets_that_bring_rows_come_first() -> None:
    found = [line.brings_rows for line in presets()]
    assert found and found == sorted(found, reverse=True) and found[0]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_without_runs_the_presets_have_the_focus(machine: Hardware, size: tuple[int, int]) -> None:
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.focused is not None and app.focused.id == "presets" and app.focused.items)
        await until(pilot, lambda: "› Identity" in seen(pilot))
        assert "No runs yet" in seen(pilot)
        assert "$ ftui train --preset identity" in seen(pilot)


async def test_the_cursor_stays_on_its_run_when_a_new_one_comes(machine: Hardware) -> None:
    FakeRun("first").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ first" in seen(pilot))
        FakeRun("second").whole()
        assert isinstance(app.screen, RunsScreen)
        app.screen.poll()
        await until(pilot, lambda: "second" in seen(pilot))
        assert "› ✓ first" in seen(pilot)


async def test_down_past_the_runs_reaches_the_presets(machine: Hardware) -> None:
    FakeRun("only").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ only" in seen(pilot) and app.screen.query_one("#presets", Rows).items)
        await pilot.press("down")
        assert app.focused is not None and app.focused.id == "presets"
        await pilot.press("up")
        assert app.focused is not None and app.focused.id == "runs"


async def test_up_and_down_go_line_by_line_through_both_lists_and_stay_at_the_ends(machine: Hardware) -> None:
    FakeRun("older").whole()
    FakeRun("newer").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "older" in seen(pilot) and app.screen.query_one("#presets", Rows).items)

        def at() -> str:
            assert isinstance(app.focused, Rows) and app.focused.current is not None
            return app.focused.current.key

        there = [item.key for name in ("#runs", "#presets") for item in app.screen.query_one(name, Rows).items]
        assert at() == there[0]
        for way, order in (("down", there), ("up", there[::-1]), ("down", there)):
            for following in [*order[1:], order[-1]]:
                await pilot.press(way)
                assert at() == following
        await pilot.press("home", "up", "up", "p", "up")
        assert at() == there[1], "whatever line the list above was left at"


async def test_when_tells_of_the_training_whatever_came_later(machine: Hardware) -> None:
    done, going = FakeRun("done"), FakeRun("going")
    done.whole()
    going.alive()
    going.begin()
    going.steps(1, 2)
    done.alive("export")
    done.event(Progress(what="weights", done=1, total=2), 5000)
    found = lines_of(done.clock)
    assert found["done"].when == "1 h ago"  # type: ignore[attr-defined]
    assert found["going"].when == "now"  # type: ignore[attr-defined]


async def test_filter_and_back(machine: Hardware) -> None:
    FakeRun("apple").whole()
    FakeRun("pear", method="full").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "apple" in seen(pilot))
        await pilot.press("slash", *"full")
        assert "pear" in seen(pilot) and "apple" not in seen(pilot)
        await pilot.press("escape")
        assert "apple" in seen(pilot)


async def test_stop_is_offered_only_for_what_runs_and_is_passed_on(
    machine: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(control, "stop", lambda run: stopped.append(run.name))
    FakeRun("done").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ done" in seen(pilot))
        await pilot.press("s")
        assert not stopped and "Stop" not in seen(pilot).splitlines()[-1]
        run = FakeRun("going")
        run.alive()
        run.begin()
        run.steps(1, 5)
        assert isinstance(app.screen, RunsScreen)
        app.screen.poll()
        await until(pilot, lambda: "● going" in seen(pilot))
        await pilot.press("home")
        await until(pilot, lambda: "Stop" in seen(pilot).splitlines()[-1])
        await pilot.press("s")
        await until(pilot, lambda: stopped == [run.run.name])
        await until(pilot, lambda: "keeps a checkpoint" in seen(pilot))


async def test_two_quick_enters_start_the_preset(machine: Hardware, tiny_starter: Path, started: list[object]) -> None:
    """Typed ahead: the second enter arrives before the review screen does."""
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        app.simulate_key("enter")
        app.simulate_key("enter")
        await until(pilot, lambda: started)
        await until(pilot, lambda: app.mode_name == "train")


async def test_back_from_a_run_the_cursor_is_on_it(machine: Hardware) -> None:
    first = FakeRun("first")
    first.whole()
    FakeRun("second").whole()
    app = FtuiApp("train", first.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.mode_name == "train")
        await pilot.press("escape")
        await until(pilot, lambda: "› ✓ first" in seen(pilot), 8)
        await pilot.press("p", "3", "escape")  # left from the presets
        await until(pilot, lambda: "› ✓ first" in seen(pilot), 8)
        await pilot.press("up", "2", "escape")  # where no run was looked at, the cursor stays
        await until(pilot, lambda: "› ✓ second" in seen(pilot), 8)


async def test_back_from_a_run_just_started_the_cursor_is_on_it(
    machine: Hardware, tiny_starter: Path, started: list[object]
) -> None:
    FakeRun("older").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ older" in seen(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "› Identity" in seen(pilot), 8)
        await pilot.press("enter")
        await until(pilot, lambda: app.mode_name == "new")
        await pilot.press("enter")
        await until(pilot, lambda: app.mode_name == "train")
        await pilot.press("escape")
        await until(pilot, lambda: app.mode_name == "runs" and app.focused is not None and app.focused.id == "runs", 8)
        assert isinstance(app.focused, Rows) and app.focused.current is not None
        assert app.run_shown is not None and app.focused.current.key == app.run_shown.name
