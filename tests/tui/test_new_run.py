"""A new run, from the first step to the start, on the tiny model; nothing is trained."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.draft import Choice
from engine.hardware import Hardware
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.frame import Frame
from tui.plan_lines import reason, typed
from tui.wizard import command

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


def rows(path: Path, count: int = 30, **more: Any) -> Path:
    path.write_text(
        "\n".join(
            json.dumps({"instruction": f"Question {n}? " + "why " * n, "output": f"Answer {n}, says {{{{name}}}}."})
            for n in range(count)
        )
    )
    return path


@SIZES
async def test_from_preset_to_running_in_two_keys(
    size: tuple[int, int], tiny_starter: Path, started: list[Any]
) -> None:
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        assert "SFT with LoRA" in seen(pilot) and "author yuriko" in seen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.mode_name == "train")
        (draft,) = started
        assert draft.recipe.preset == "identity" and draft.recipe.data.values["name"] == "Congyu"
        # The next new run begins afresh.
        await pilot.press("2")
        assert app.wizard.draft is None and app.wizard.choice is None


async def test_a_preset_goes_on_with_what_was_changed_of_it_and_another_says_that_it_is_dropped(
    tiny_starter: Path,
) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("1", "enter")  # nothing was changed: nothing to speak of
        await until(pilot, lambda: app.mode_name == "new" and app.wizard.draft is not None)
        assert "dropped" not in seen(pilot)
        await pilot.press("f", *["backspace"] * 6, *"Zed", "enter", "enter")
        await until(pilot, lambda: app.wizard.choice and app.wizard.choice.values.get("name") == "Zed")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("escape", "1")
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.mode_name == "new")
        assert app.wizard.choice is not None and app.wizard.choice.values["name"] == "Zed"
        assert "dropped" not in seen(pilot)
        await pilot.press("1", "down", "enter")
        await until(pilot, lambda: "begun anew; the draft zed was dropped" in seen(pilot))
        await pilot.pause(0.5)
        assert "dropped" in seen(pilot)


@SIZES
async def test_all_steps_by_hand(size: tuple[int, int], tiny_starter: Path, started: list[Any]) -> None:
    rows(Path("mine.jsonl"))
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "LlamaForCausalLM" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "› mine.jsonl" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        assert "30 rows, alpaca" in seen(pilot)
        assert "30 rows hold {{name}}" in seen(pilot) and "f Fill in" in seen(pilot)
        assert "trained (bold)" in seen(pilot)

        # A run that would teach the model to say {{name}} does not start, and says what is missing.
        await pilot.press("enter")
        await until(pilot, lambda: "› method" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "yaml" not in seen(pilot) and "name    " in seen(pilot))
        await pilot.press("enter")
        assert "cannot start" in seen(pilot) and not started

        await pilot.press("f", *"Ada", "enter")
        await until(pilot, lambda: app.wizard.draft is not None and not app.wizard.draft.dataset.placeholders)
        await pilot.press("n", *"my run", "enter")
        await pilot.press("enter")
        await until(pilot, lambda: started)
        recipe = started[0].recipe
        assert recipe.name == "my-run" and recipe.data.values == {"name": "Ada"}
        assert "--set name=Ada" in command(started[0].choice)


async def test_an_edit_is_checked_where_it_is_made_and_can_be_taken_back(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("e")
        await until(pilot, lambda: "› method" in seen(pilot))
        advised = app.wizard.draft.plan.settings.learning_rate  # type: ignore[union-attr]
        await pilot.press("down", "e", *"fast", "enter")
        assert "✗ this takes a number" in seen(pilot)
        assert app.wizard.draft.plan.settings.learning_rate == advised  # type: ignore[union-attr]
        await pilot.press("ctrl+u", *"0.0003", "enter")
        assert app.wizard.draft.plan.settings.learning_rate == 3e-4  # type: ignore[union-attr]
        assert "✎" in seen(pilot) and "you set it" in seen(pilot)
        assert "--edit learning_rate=0.0003" in app.screen.command  # type: ignore[attr-defined]
        await pilot.press("u")
        assert app.wizard.draft.plan.settings.learning_rate == advised and "✎" not in seen(pilot)  # type: ignore[union-attr]


async def test_why_offers_alternatives_and_takes_one(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("e")
        await until(pilot, lambda: "› method" in seen(pilot))
        await pilot.press("down", "w")
        await until(pilot, lambda: "Instead" in seen(pilot))
        assert "Source:" in seen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "✎" in seen(pilot))
        assert "learning_rate" in app.wizard.draft.choice.edits  # type: ignore[union-attr]


async def test_a_model_that_is_not_there_is_said_beside_its_name(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "Another" in seen(pilot))
        await pilot.press("slash", *"/no/such/folder", "enter")
        assert "✗ no such folder" in seen(pilot)
        await pilot.press("escape")
        assert "✗" not in seen(pilot)


async def test_escape_goes_back_step_by_step(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        for step in ("plan", "data", "source", "model"):
            await pilot.press("escape")
            await until(pilot, lambda step=step: app.current_mode == f"new:{step}")
        await pilot.press("escape")
        await until(pilot, lambda: app.current_mode == "runs")


def test_reasons_are_short_and_plain() -> None:
    assert reason("rank cannot be 0: this takes a whole number from 1 on") == "this takes a whole number from 1 on"
    assert typed("yes") == "true" and typed("0.1") == "0.1"


def test_the_command_says_every_choice_and_quotes_it() -> None:
    choice = Choice(
        model="owner/name", data="my rows.jsonl", values={"name": "A B"}, edits={"gradient_checkpointing": True}
    )
    assert command(choice) == (
        "ftui train --model owner/name --data 'my rows.jsonl' --set 'name=A B' --edit gradient_checkpointing=true"
    )
    rows = msgspec.structs.replace(
        choice,
        more=["b.jsonl*0.5"],
        columns={"prompt": "q"},
        goal="changing facts",
        deadline=7200.0,
        on_bad_row="repair",
    )
    said = command(rows)
    assert "--data 'my rows.jsonl' --data 'b.jsonl*0.5' --goal changing-facts --deadline 7200s" in said
    assert "--columns prompt=q" in said
    assert said.endswith("--bad-rows repair")


async def test_a_preset_without_rows_asks_for_them_and_keeps_its_settings(tiny_starter: Path) -> None:
    rows(Path("mine.jsonl"))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("end")
        await until(pilot, lambda: "› Instructions" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "› mine.jsonl" in seen(pilot))
        assert "The preset instructions brings none." in seen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        assert app.wizard.choice is not None and app.wizard.choice.preset == "instructions"
        assert "--preset instructions" in app.screen.command and "--data" in app.screen.command  # type: ignore[attr-defined]


async def test_what_goes_wrong_in_a_thread_is_said(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.models import sources

    def broken() -> list[Any]:
        raise PermissionError("no way in")

    monkeypatch.setattr(sources, "known", broken)
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "✗ PermissionError: no way in" in seen(pilot))
        assert app.is_running


async def test_nothing_arrives_on_a_screen_that_is_being_taken_down(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.new_run("model")
        await until(pilot, lambda: "Another" in seen(pilot))
        screen, go, arrived = app.screen, threading.Event(), []
        assert isinstance(screen, Frame)
        screen.in_thread(lambda: go.wait(30), arrived.append)
        app.show("runs")
        removed = screen.remove()
        go.set()
        time.sleep(0.3)  # the result is there before the screen is gone
        await removed
        await pilot.pause(0.1)
        assert not arrived
