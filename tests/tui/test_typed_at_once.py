"""A path is typed or pasted onto a list faster than a field can open: all of it lands in the field."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.ask import after_slash, first_line

STEPS = pytest.mark.parametrize("step", ["source", "model"])


def rows(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps({"instruction": f"Question {n}?", "output": f"{n}."}) for n in range(12)))
    return path


async def at_once(pilot: Pilot[None], text: str) -> None:
    """All keys are there before the first one is acted on, as where a terminal sends them in one piece."""
    for character in text:
        pilot.app.post_message(events.Key(_character_to_key(character), character))
    await pilot.pause()
    await pilot.pause()


async def paste(pilot: Pilot[None], text: str) -> None:
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()
    await pilot.pause()


async def arrive(pilot: Pilot[None], step: str) -> None:
    app = pilot.app
    assert isinstance(app, FtuiApp)
    app.new_run(step)
    await until(pilot, lambda: "Another" in seen(pilot) and "›" in seen(pilot).partition("Another")[0])


def field(pilot: Pilot[None]) -> str:
    assert isinstance(pilot.app.focused, Input)
    return pilot.app.focused.value


@STEPS
@pytest.mark.parametrize("root", ["/", "~/"])
async def test_a_path_typed_at_once_lands_in_the_field(step: str, root: str, tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, step)
        await at_once(pilot, f"{root}data/my rows/a1q?~.json")  # letters that are keys here and everywhere among them
        assert field(pilot) == f"{root}data/my rows/a1q?~.json"
        assert app.current_mode == f"new:{step}"


@STEPS
async def test_a_path_typed_while_the_screen_opens_keeps_the_field(step: str, tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:

        async def busy() -> None:
            """The app is held up meanwhile, as on a slow machine: the keys are there when the screen is."""
            while not app.screen.is_mounted:
                await asyncio.sleep(0.01)

        app.new_run(step)
        app.call_later(busy)
        await at_once(pilot, "/data/rows.json")
        await until(pilot, lambda: "Another" in seen(pilot))
        assert field(pilot) == "/data/rows.json"


@STEPS
@pytest.mark.parametrize("pasted", ["/data/rows.json", "\n  /data/rows.json \n/data/more.json\n"])
async def test_a_paste_onto_the_list_lands_in_the_field(step: str, pasted: str, tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, step)
        await paste(pilot, pasted)
        assert field(pilot) == "/data/rows.json"
        await at_once(pilot, ".gz")  # it goes on behind what is there
        assert field(pilot) == "/data/rows.json.gz"


@STEPS
async def test_a_paste_of_nothing_opens_nothing(step: str, tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, step)
        await paste(pilot, " \n ")
        assert not isinstance(app.focused, Input)


async def test_what_is_typed_at_once_is_taken(tiny_starter: Path, tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.json")
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, "source")
        await at_once(pilot, str(path))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.data == str(path))


@pytest.mark.parametrize("typed", ["{}", "/{}"])  # the key is one letter of the path, or stands before it
async def test_a_folder_typed_behind_the_key_is_the_model(typed: str, tiny_starter: Path, tiny_model: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, "model")
        await pilot.press("slash", *typed.format(str(tiny_model).removeprefix("/")), "enter")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.model == str(tiny_model))


async def test_a_name_behind_the_key_is_that_name(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, "model")
        await pilot.press("slash", *"owner/name", "enter")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.model == "owner/name")


async def test_the_key_alone_names_nothing(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, "source")
        await pilot.press("slash")
        assert field(pilot) == "/"
        await pilot.press("enter")
        assert "✗ type a path, or escape" in seen(pilot)
        await pilot.press("escape")
        await at_once(pilot, "/data")  # the list has the focus again: the next one begins anew
        assert field(pilot) == "/data"


async def test_enter_on_another_offers_the_path_that_is_chosen_to_be_edited(tiny_starter: Path) -> None:
    path = rows(Path("mine.json"))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await arrive(pilot, "source")
        app.wizard.picked().data = str(path)
        await pilot.press("end", "enter")
        assert field(pilot) == str(path)
        await pilot.press(*"/else")
        assert field(pilot) == "/else"


def test_the_slash_of_the_key_counts_where_it_leads_somewhere(tmp_path: Path) -> None:
    there = str(tmp_path / "rows.json")
    assert after_slash(there) == after_slash("/" + there) == there
    for text in ("rows.json", "hub:owner/name", "owner/name", "~/rows.json", "preset:identity", ""):
        assert after_slash("/" + text) == after_slash(text) == text


def test_a_field_takes_the_first_line_of_a_paste() -> None:
    assert first_line("\n\n a b \nc") == "a b" and first_line(" \n") == ""
