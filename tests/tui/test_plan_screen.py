"""The Plan screen and what opens from it: why, what else fits, whether to tune at all, two plans side by side."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from engine import presets, probe
from engine.advice import fields
from engine.draft import Choice
from engine.text import number
from tests.engine.cli.conftest import Said, ftui  # noqa: F401
from tests.tui.run_files import FakeRun
from tests.tui.stage import MACHINE, seen, until
from tui.app import FtuiApp
from tui.plan_lines import AdviceLine, lines
from tui.screens.gate import GOALS
from tui.screens.plan import PlanScreen

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


def rows(count: int) -> Path:
    """Rows of a task that no preset knows."""
    path = Path("tickets.jsonl")
    lines = [
        {"instruction": f"Sort ticket {n}: the {n % 7}. pump leaks.", "output": f"Team {n % 7}."} for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@asynccontextmanager
async def plan(
    size: tuple[int, int] = (120, 40), count: int = 300, **edits: Any
) -> AsyncIterator[tuple[FtuiApp, Pilot[None]]]:
    """The plan of some rows on the tiny model, on screen."""
    path = rows(count)
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin(Choice(data=str(path), edits=edits))
        app.new_run("plan")
        await until(pilot, lambda: app.wizard.draft is not None and "› method" in seen(pilot))
        yield app, pilot


def settings(app: FtuiApp) -> Any:
    assert app.wizard.draft is not None
    return app.wizard.draft.plan.settings


async def go_to(pilot: Pilot[None], field: str) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, PlanScreen)
    screen.query_one("#plan").put_cursor(field)  # type: ignore[attr-defined]
    await pilot.pause()


@SIZES
async def test_an_edit_says_what_moved_with_it(size: tuple[int, int], tiny_starter: Path) -> None:
    async with plan(size) as (app, pilot):
        steps = app.wizard.draft.plan.steps  # type: ignore[union-attr]
        await go_to(pilot, "epochs")
        await pilot.press("e", *"1", "enter")
        await until(pilot, lambda: settings(app).epochs == 1)
        assert f"steps {steps:,} to {app.wizard.draft.plan.steps:,}" in seen(pilot)  # type: ignore[union-attr]


async def test_a_doubt_stands_above_the_plan_and_an_answer_takes_it_away(tiny_starter: Path) -> None:
    async with plan(count=40) as (app, pilot):
        assert "? unsure" in seen(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "What is it for?" in seen(pilot))
        assert all(goal in seen(pilot) for goal in GOALS)
        assert "Is there enough data?" in seen(pilot)
        await pilot.press("end", "enter")  # changing facts
        await until(pilot, lambda: "✗ do not tune" in seen(pilot))
        assert app.wizard.choice is not None and app.wizard.choice.goal == "changing facts"
        await pilot.press("escape")
        await until(pilot, lambda: "› method" in seen(pilot))
        assert "✗ do not tune" in seen(pilot)
        await pilot.press("t", "x")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.goal is None)


async def test_a_deadline_is_taken_as_a_person_types_it(tiny_starter: Path) -> None:
    async with plan() as (app, pilot):
        await pilot.press("t")
        await until(pilot, lambda: "What is it for?" in seen(pilot))
        await pilot.press("d", *"soon", "enter")
        await until(pilot, lambda: "a time looks like" in seen(pilot))
        await pilot.press("ctrl+u", *"2h", "enter")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.deadline == 7200)


@SIZES
async def test_what_else_fits_takes_another_method(size: tuple[int, int], tiny_starter: Path) -> None:
    async with plan(size) as (app, pilot):
        before = settings(app).method
        await pilot.press("o")
        await until(pilot, lambda: "for a run on" in seen(pilot) and "full" in seen(pilot).lower())
        text = seen(pilot)
        assert "✓" in text and "QLoRA" in text and "LoRA" in text
        await pilot.press("home", "enter")
        await until(pilot, lambda: "› method" in seen(pilot))
        assert settings(app).method != before


@SIZES
async def test_a_method_that_is_refused_says_why_and_is_not_taken(size: tuple[int, int], tiny_starter: Path) -> None:
    async with plan(size) as (app, pilot):
        app.screen.set("stage", "ppo")  # type: ignore[attr-defined]
        await pilot.press("o")
        await until(pilot, lambda: "for a run on" in seen(pilot))
        await pilot.press("end")
        await until(pilot, lambda: "PPO reads the layers themselves" in seen(pilot).replace("\n", " "))
        assert "prompt       " in seen(pilot) and "take method lora" in " ".join(seen(pilot).split())
        await pilot.press("enter")
        assert settings(app).method == "lora" and "rows at once" in seen(pilot)


async def test_compare_shows_what_an_edit_changed_and_other_plans(tiny_starter: Path) -> None:
    FakeRun("earlier", method="qlora").whole()
    async with plan(learning_rate=5e-4, rank=64) as (app, pilot):
        await pilot.press("v")
        await until(pilot, lambda: "what is advised" in seen(pilot) and "learning rate" in seen(pilot))
        text = seen(pilot)
        assert "5e-4" in text and "2e-4" in text and "rank" in text
        await pilot.press("left")  # the run, which is the last of the list
        await until(pilot, lambda: "run earlier" in seen(pilot))
        assert "qlora" in seen(pilot).lower()
        assert settings(app).rank == 64  # looking changes nothing


async def test_what_opens_from_the_plan_names_a_command_that_does_the_same(
    tiny_starter: Path,
    ftui: Callable[..., Said],  # noqa: F811
) -> None:
    FakeRun("earlier", method="qlora").whole()
    commands = []
    async with plan(learning_rate=5e-4, rank=64) as (app, pilot):
        for keys in (["w"], ["o"], ["v"], ["v", "left"], ["t"]):
            await pilot.press(keys[0])
            await until(pilot, lambda: not isinstance(app.screen, PlanScreen))
            if keys[0] == "v":
                await until(pilot, lambda: "what is advised" in seen(pilot))
            await pilot.press(*keys[1:])
            commands.append(app.screen.command)  # type: ignore[attr-defined]
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, PlanScreen))
    for line, words in zip(
        commands, ("--explain method", "--fits", "--what-if learning_rate=0.0005,rank=64", "--against", ""), strict=True
    ):
        assert words in line and "tickets.jsonl" in line
        assert ftui(*shlex.split(line)[1:]).code == 0, line


async def test_a_plan_is_kept_as_a_preset(tiny_starter: Path) -> None:
    async with plan(learning_rate=5e-4) as (_, pilot):
        await pilot.press("p", *"tickets", "enter")
        await until(pilot, lambda: "saved as" in seen(pilot))
        assert presets.load("tickets").settings["learning_rate"] == 5e-4
        # A name that is taken is said where it was typed.
        await pilot.press("p", *"tickets", "enter")
        await until(pilot, lambda: "already a preset" in seen(pilot))


async def test_why_says_what_each_alternative_would_move(tiny_starter: Path) -> None:
    async with plan() as (app, pilot):
        await go_to(pilot, "epochs")
        await pilot.press("w")
        await until(pilot, lambda: "Then: " in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "epochs" in app.wizard.draft.choice.edits)  # type: ignore[union-attr]


async def test_measuring_puts_a_measured_time_into_the_plan(
    tiny_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import speeds
    from engine.models import facts

    def run(folder: Path, settings: Any, progress: Any = None) -> Any:
        speed = speeds.Speed(seconds_per_batch=0.1, seconds_per_token=0.01, source="a probe of this test")
        speeds.record(MACHINE, facts.read(folder), settings, speed, "probe")
        return speed

    monkeypatch.setattr(probe, "run", run)
    async with plan() as (app, pilot):
        assert "of this test" not in app.wizard.draft.plan.seconds_source  # type: ignore[union-attr]
        await pilot.press("m")
        await until(pilot, lambda: "of this test" in app.wizard.draft.plan.seconds_source)  # type: ignore[union-attr]


async def test_a_method_is_chosen_from_a_list_or_typed(tiny_starter: Path) -> None:
    async with plan((80, 24)) as (app, pilot):
        await go_to(pilot, "method")
        await pilot.press("e")
        told = [*fields.DOES["method"], *(does[:40] for does in fields.DOES["method"].values())]
        await until(pilot, lambda: "↓ to the list" in seen(pilot) and all(word in seen(pilot) for word in told))
        assert "w Why" not in seen(pilot)  # the plan's own keys wait
        await pilot.press("down", "end")
        await until(pilot, lambda: "› full" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: settings(app).method == "full" and "› method" in seen(pilot))
        assert "rank" not in [line.key for line in lines(app.wizard.draft, True)]  # type: ignore[arg-type]
        await pilot.press("e", *"qlora", "enter")
        await until(pilot, lambda: settings(app).method == "qlora" and "› method" in seen(pilot))
        assert "bits" in [line.key for line in lines(app.wizard.draft, False)]  # type: ignore[arg-type]
        await pilot.press("e", "down", "up", "escape")
        await until(pilot, lambda: "› method" in seen(pilot))
        assert settings(app).method == "qlora"


async def test_a_stage_that_these_rows_cannot_train_says_so_in_the_list(tiny_starter: Path) -> None:
    async with plan() as (app, pilot):
        await go_to(pilot, "stage")
        await pilot.press("e")
        await until(pilot, lambda: "✗ these rows are not for DPO" in seen(pilot))
        assert "✗ it needs a reward" in seen(pilot)
        await pilot.press(*"grpo", "enter")
        await until(pilot, lambda: "reward" in seen(pilot) and "none yet" in seen(pilot))
        assert app.wizard.draft is not None and app.wizard.draft.recipe.stage == "grpo"
        await pilot.press("u")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.stage is None)
        assert app.wizard.draft.recipe.stage == "sft"


async def test_the_line_under_the_cursor_says_what_it_is_and_expert_shows_the_rest(tiny_starter: Path) -> None:
    async with plan((80, 24), weight_decay=0.1, neftune=5.0) as (app, pilot):
        for key in ("epochs", "neftune", "weight_decay"):
            await go_to(pilot, key)
            await until(pilot, lambda key=key: fields.HELP[key] in seen(pilot))  # type: ignore[misc]
        draft = app.wizard.draft
        assert draft is not None
        edited = [line.key for line in lines(draft, False)]
        assert edited[-3:] == ["expert", "weight_decay", "neftune"]
        await pilot.press("up")  # past the heading
        await until(pilot, lambda: fields.HELP["precision"] in seen(pilot))
        assert "x Expert" in seen(pilot)
        await pilot.press("down", "x")
        count = sum(isinstance(line, AdviceLine) for line in lines(draft, True))
        assert count == len(lines(draft, True)) - 1  # a heading is no setting
        await until(pilot, lambda: "x Fewer" in seen(pilot) and f"all {count} settings" in seen(pilot))
        await pilot.press("end")
        whole = [line.key for line in lines(draft, True)]
        await until(pilot, lambda: fields.HELP[whole[-1]] in seen(pilot))
        assert len(whole) > len(edited) + 10 and "bits" not in whole
        await go_to(pilot, "neftune")
        await pilot.press("e", *"none", "enter")
        await until(pilot, lambda: settings(app).neftune is None)


async def test_a_changed_value_is_offered_the_advised_one_and_not_itself(tiny_starter: Path) -> None:
    async with plan(learning_rate=1e-4) as (app, pilot):
        await go_to(pilot, "learning_rate")
        advice = {advice.field: advice for advice in app.wizard.draft.plan.advice}["learning_rate"]  # type: ignore[union-attr]
        assert 1e-4 in [other.value for other in advice.alternatives]
        await pilot.press("e")
        await until(pilot, lambda: f"{number(advice.value)} as advised or " in seen(pilot))
        assert "or 1e-4" not in seen(pilot)


async def test_a_wrong_value_is_told_whole(tiny_starter: Path) -> None:
    async with plan((80, 24)) as (_, pilot):
        for field, words in (("learning_rate", "above 0 and up to 1"), ("epochs", "above 0 and up to 1")):
            await go_to(pilot, field)
            await pilot.press("e", *"abc", "enter")
            await until(pilot, lambda words=words: f"this takes a number {words}" in seen(pilot))  # type: ignore[misc]
            await pilot.press("escape")


async def test_lengths_are_written_one_way_and_may_be_typed_so(tiny_starter: Path) -> None:
    async with plan() as (app, pilot):
        app.screen.set("max_length", "1,024")  # type: ignore[attr-defined]
        await until(pilot, lambda: "1,024" in seen(pilot))
        assert settings(app).max_length == 1024 and "1024" not in seen(pilot).replace("max_length=1024", "")


async def test_what_a_run_may_use_is_not_called_free(tiny_starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.hardware.read", lambda: msgspec.structs.replace(MACHINE, memory_back=3 * 10**9))
    async with plan() as (_app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: "once the other runs have ended." in seen(pilot))
        assert "are free" not in seen(pilot)
