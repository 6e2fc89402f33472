"""What matters is never cut: warnings, sources, names, keys; at the sizes people work at, and at narrow ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Region, Size
from textual.pilot import Pilot

from engine.advice import numbers
from engine.draft import Choice
from engine.hardware import Hardware
from tests.tui.measured_run import MeasuredRun
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen
from tests.tui.stage import until as _until
from tui.app import FtuiApp
from tui.frame import Keys
from tui.plan_lines import AdviceLine, lines
from tui.screens.help import together
from tui.screens.versus import ChangeLine, heads

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])
LONG = "Summarise: " + "#Person1#: Hello, how are you?\n#Person2#: I have had trouble breathing lately.\n" * 40


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    await _until(pilot, true, 20)


def sft(count: int = 60) -> Path:
    """Rows whose prompts are longer than the tiny model reads."""
    return _written([{"instruction": f"{LONG}{n}", "output": f"They greet, {n}."} for n in range(count)])


def dpo(count: int = 60) -> Path:
    return _written([{"prompt": f"{LONG}{n}", "chosen": "Yes. " * 9, "rejected": "No. " * 9} for n in range(count)])


def _written(rows: list[dict[str, str]]) -> Path:
    path = Path("rows.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@asynccontextmanager
async def step(
    name: str, path: Path, size: tuple[int, int], **given: Any
) -> AsyncIterator[tuple[FtuiApp, Pilot[None]]]:
    """One step of a new run from these rows, once its plan is there."""
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin(Choice(data=str(path), **given))
        app.new_run(name)
        await until(pilot, lambda: app.wizard.draft is not None)
        yield app, pilot


def flat(text: str) -> str:
    """Text without the breaks of its lines."""
    return " ".join(text.split())


def warnings(app: FtuiApp) -> list[str]:
    assert app.wizard.draft is not None
    return app.wizard.draft.plan.warnings


# Review and Plan ------------------------------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("rows", [sft, dpo])
async def test_review_keeps_its_warnings_in_sight_however_long_the_prompt(
    size: tuple[int, int], rows: Any, tiny_starter: Path
) -> None:
    async with step("review", rows(), size) as (app, pilot):
        shown = seen(pilot)
        assert len(warnings(app)) >= 2
        assert all(warning in flat(shown) for warning in warnings(app))
        asked = [line for line in shown.splitlines() if "asks" in line or "while it trains" in line]
        assert len(asked) == 2 and asked[0].rstrip().endswith("…”") and "“Summarise: #Person1#: Hello" in asked[0]
        method = [line for line in shown.splitlines() if "all linear layers" in line]
        assert len(method) == 1 and "rank" in method[0]
        # The page shows that it goes on, and does.
        page = app.screen.query_one("#page")
        assert page.show_vertical_scrollbar
        before = seen(pilot)
        page.focus()
        await pilot.press("end")
        await until(pilot, lambda: "then: null" in seen(pilot))
        await pilot.press("home")
        await until(pilot, lambda: seen(pilot) == before)
        # A name is asked for below the page, which keeps its width.
        await pilot.press("n")
        await until(pilot, lambda: "Leave as it was" in seen(pilot))
        assert asked[0].rstrip() in seen(pilot)


@SIZES
@pytest.mark.parametrize("rows", [sft, dpo])
@pytest.mark.parametrize("key", ["x", "e"])
async def test_plan_shows_each_warning_whole(size: tuple[int, int], rows: Any, key: str, tiny_starter: Path) -> None:
    async with step("plan", rows(), size) as (app, pilot):
        assert len(warnings(app)) >= 2
        for _ in range(3):
            assert all(warning in flat(seen(pilot)) for warning in warnings(app))
            assert not app.screen.query_one("#body").show_vertical_scrollbar
            await pilot.press(key if not app.screen.query_one("#ask").display else "escape")


@SIZES
async def test_the_line_below_the_plan_is_whole(size: tuple[int, int], tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin_preset("identity")
        app.new_run("plan")
        await until(pilot, lambda: "› method" in seen(pilot))
        draft = app.wizard.draft
        assert draft is not None
        for item in lines(draft, False):
            if isinstance(item, AdviceLine):
                app.screen.query_one("#plan").put_cursor(item.key)  # type: ignore[attr-defined]
                await until(pilot, lambda: item.help in flat(seen(pilot)))  # noqa: B023
                assert f"{item.why} ({item.source})" in flat(seen(pilot))


@pytest.mark.parametrize("width", [75, 114])
def test_a_source_is_never_cut(width: int) -> None:
    names = [value for name, value in vars(numbers).items() if name.isupper() and isinstance(value, str)]
    assert numbers.GUIDE in names
    for source in [*names, "preset identity", "your data", "you"]:
        for why in ("short", "exactly forty cells of reasons, no more!!"):
            line = AdviceLine("learning_rate", "2e-4", why, source, False).line(width).plain
            assert len(line) <= width and not line.endswith("…")
            assert (source if width > 100 else "") in line and (why in line or width < 100)
    guide = AdviceLine("method", "lora", "x", numbers.GUIDE, False)
    assert guide.line(75).plain.endswith("  vendor guide  ".rstrip())
    # Where there is room for one of them only, the reason stands.
    assert guide.line(43).plain.split() == ["method", "lora", "x"]


# Compare --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [74, 114])
def test_names_and_values_of_two_plans_are_whole(width: int) -> None:
    assert "what is advised" in heads("what is advised", width).plain
    line = ChangeLine("0", "optimizer", "paged_adamw_8bit", "adamw_torch_fused", "AdamW in one kernel").line(width)
    assert "paged_adamw_8bit  adamw_torch_fused  AdamW" in " ".join(line.plain.split("   ")).replace("   ", "  ")
    assert line.cell_length <= width
    plain = ChangeLine("1", "rank", "32", "64", "").line(width).plain
    assert heads("x", width).plain.index("this plan") + len("this plan") == plain.rindex("64") + 2


@SIZES
async def test_what_a_change_means_stands_below_the_list(size: tuple[int, int], tiny_starter: Path) -> None:
    async with step("plan", sft(), size, edits={"learning_rate": 0.01, "rank": 64}) as (app, pilot):
        await pilot.press("v")
        await until(pilot, lambda: "what is advised" in seen(pilot) and "this plan" in seen(pilot))
        await pilot.press("right")
        await until(pilot, lambda: "2 of" in seen(pilot))
        await pilot.press("end")
        item = app.screen.query_one("#changes").current  # type: ignore[attr-defined]
        await until(pilot, lambda: not item.effect or flat(seen(pilot)).count(item.effect) >= 1)


async def test_help_has_a_key_while_a_field_is_typed_in(machine: Hardware) -> None:
    run = MeasuredRun().run
    async with FtuiApp("compare", run).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "enter Measure" in seen(pilot))
        assert seen(pilot).splitlines()[-1].endswith("f1 Help")
        await pilot.press("f1")
        await until(pilot, lambda: "Rows whose answers are known" in flat(seen(pilot)))
        await pilot.press("f1")
        await until(pilot, lambda: "enter Measure" in seen(pilot))


# Keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 120])
@pytest.mark.parametrize("mode", ["chat", "export", "new", "runs"])
async def test_the_footer_leaves_out_whole_keys_and_keeps_help(machine: Hardware, width: int, mode: str) -> None:
    run = FakeRun("congyu")
    run.whole()
    app = FtuiApp(mode, run.run)
    async with app.run_test(size=(width, 24)) as pilot:
        for now in (width, 45, 80, width):
            await pilot.resize_terminal(now, 24)
            await until(pilot, lambda: len(app.screen.query("FooterKey")) > 1)
            await pilot.pause(0.05)
            keys = list(app.screen.query("FooterKey").results())
            room = Region(0, 23, now, 1)
            assert all(room.contains_region(key.region) for key in keys), seen(pilot).splitlines()[-1]
            assert seen(pilot).splitlines()[-1].endswith("Help")
            assert seen(pilot).splitlines()[-1].count("Help") == 1


async def test_the_footer_is_whole_after_a_size_that_lasted_a_moment(machine: Hardware) -> None:
    """Two changes of the terminal that are told as none: keys that change in between are drawn for the size that stays."""
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(app.screen.query("FooterKey")) > 2)
        before = seen(pilot).splitlines()[-1]
        keys, size = app.screen.query_one(Keys), app.size
        app._size = Size(1, 1)
        await keys.recompose()
        app._size = size
        await pilot.pause()
        assert seen(pilot).splitlines()[-1] == before


def test_keys_of_one_action_are_told_together() -> None:
    assert together(["↑", "k", "↓", "j", "pgup"]) == ["↑↓", "k", "j", "pgup"]
    assert together(["shift+←", "shift+→"]) == ["shift+←→"]
    assert together(["enter", "a"]) == ["enter", "a"]


@SIZES
@pytest.mark.parametrize("screen", ["data", "export", "review"])
async def test_help_tells_each_key_once_in_a_column(size: tuple[int, int], screen: str, tiny_starter: Path) -> None:
    run = FakeRun("congyu")
    run.whole()
    async with step("data" if screen == "export" else screen, sft(), size) as (app, pilot):
        if screen == "export":
            app.show_export(run.run)
            await until(pilot, lambda: "Merged" in seen(pilot))
        await pilot.press("f1")
        await until(pilot, lambda: "Keys" in seen(pilot))
        text = app.screen.query_one("#text").visual.plain  # type: ignore[attr-defined]
        keys = text[text.index("Keys\n") :].split("\n\n")[0].splitlines()[1:]
        assert all(line[14:16] == "  " and line[16] != " " for line in keys if line[14:].strip())
        words = [word for line in keys for word in line[:14].split()]
        assert len(words) == len(set(words))
        single = [arrow for word in words if set(word) <= set("←→↑↓") for arrow in word]
        assert len(single) == len(set(single))
        if screen == "data":
            assert "←→              Move the cutoff line" in keys
