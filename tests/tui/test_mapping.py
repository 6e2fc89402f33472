"""Mapping: roles and columns, by themselves and on the screen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine import draft as drafts
from engine.draft import Choice
from engine.errors import FtuiError
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.screens.mapping import NONE, Roles, Sample, words

DIALOGUES = [
    {"id": n, "dialogue": f"A: Hello {n}. B: Hi.", "summary": f"They greet, {n}.", "topic": "greeting"}
    for n in range(3)
]


def roles(rows: list[dict[str, object]] | None = None, **given: str) -> Roles:
    return Roles(Sample(rows or DIALOGUES, {}, {}), given, {})


def test_roles_that_are_played_come_first_with_a_value_each() -> None:
    lines = roles([{"instruction": "", "output": "x"}, {"instruction": "Who?", "output": "Me."}]).lines()
    assert [(line.key, line.column, line.value) for line in lines[:2]] == [
        ("prompt", "instruction", "Who?"),
        ("completion", "output", "x"),
    ]
    assert all(not line.column for line in lines[2:]) and NONE in lines[2].line(75).plain


def test_another_column_is_a_correction_and_the_one_found_takes_it_back() -> None:
    found = roles()
    assert found.column("completion") == "summary"
    found.step("completion", 1)
    assert found.given == {"completion": "topic"} and found.column("completion") == "topic"
    assert next(line for line in found.lines() if line.key == "completion").said
    found.step("completion", -1)
    assert found.given == {}
    found.step("completion", 1)
    found.reset()
    assert found.column("completion") == "summary"


def test_columns_go_round_by_way_of_none() -> None:
    found = roles()
    seen_ = []
    for _ in range(5):
        found.step("system", 1)
        seen_.append(found.column("system"))
    assert seen_ == ["id", "dialogue", "summary", "topic", ""]
    assert found.given == {}


def test_roles_that_make_nothing_say_why() -> None:
    found = roles()
    found.step("chosen", 1)
    assert found.shape is None and found.error is not None and "chosen and rejected" in found.error.cause
    found.step("chosen", -1)
    assert found.shape is not None


def test_a_template_is_made_of_columns_and_refused_where_it_names_none() -> None:
    found = roles()
    found.template("prompt", "About {topic}: {dialogue}")
    assert found.shape is not None and found.shape.name == "template"
    line = next(line for line in found.lines() if line.key == "prompt")
    assert line.value == "About greeting: A: Hello 0. B: Hi." and line.said
    for wrong in ("no column", "{nothing}"):
        with pytest.raises(FtuiError, match="template"):
            found.template("prompt", wrong)
        assert found.templates == {"prompt": "About {topic}: {dialogue}"}
    found.template("prompt", "")
    assert found.column("prompt") == "dialogue"


def test_values_are_one_safe_line() -> None:
    assert words([{"from": "human", "value": "Hi\x1b[2J"}, {"from": "gpt", "value": "Yes"}]) == "2 turns: Hi␛[2J"
    assert (
        words([{"role": "user", "content": "Hi"}]) == "1 turn: Hi" and words({"from": "gpt", "value": "Yes"}) == "Yes"
    )
    assert words("a\nb") == "a⏎b" and words(True) == "true" and words({"a": [1]}) == '{"a": [1]}'


@asynccontextmanager
async def mapping(size: tuple[int, int]) -> AsyncIterator[tuple[FtuiApp, Pilot[None]]]:
    """The screen of the columns of DIALOGUES."""
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, DIALOGUES)))
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin(Choice(data="rows.jsonl"))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("m")
        yield app, pilot


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_column_chosen_by_key_is_read(size: tuple[int, int], tiny_starter: Path) -> None:
    async with mapping(size) as (app, pilot):
        await until(pilot, lambda: "They greet, 0." in seen(pilot) and "not used: id, topic" in seen(pilot))
        await pilot.press("down", "right")
        assert "✎" in seen(pilot) and "not used: id, summary" in seen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None and app.wizard.draft.choice.columns)
        assert app.wizard.draft.choice.columns == {"completion": "topic"}  # type: ignore[union-attr]
        assert "--columns completion=topic" in app.screen.command  # type: ignore[attr-defined]
        assert app.wizard.draft.dataset.examples[0].messages[-1].content == "greeting"  # type: ignore[union-attr, index]


async def test_rows_without_a_shape_get_one_here(tiny_starter: Path) -> None:
    path = Path("rows.jsonl")
    path.write_text(
        "\n".join(json.dumps({"left": f"Question {n}", "right": f"Answer {n}", "evil": HOSTILE}) for n in range(3))
    )
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin(Choice(data=str(path)))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.error is not None)
        assert "m says which column is what" in seen(pilot)
        await pilot.press("m")
        await until(pilot, lambda: "✗ no known shape" in seen(pilot))
        # Enter does not read rows that are nothing yet.
        await pilot.press("enter")
        assert app.screen.TITLE == "Mapping"
        await pilot.press("right", "down", "t", *"{right}", "enter")
        await until(pilot, lambda: "✗" not in seen(pilot).splitlines()[2])
        check_screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        assert "3 rows" in seen(pilot)


async def test_escape_leaves_the_mapping_as_it_was(tiny_starter: Path) -> None:
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, DIALOGUES)))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin(Choice(data="rows.jsonl"))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.draft is not None)
        before = app.wizard.draft
        await pilot.press("m")
        await until(pilot, lambda: "not used" in seen(pilot))
        await pilot.press("right", "escape")
        assert app.wizard.draft is before and app.current_mode == "new:data"


async def test_each_of_several_sources_has_columns_of_its_own(tiny_starter: Path) -> None:
    Path("one.jsonl").write_text("\n".join(map(json.dumps, DIALOGUES)))
    other = [{"ask": f"What is {n}?", "left": "no", "right": f"{n} it is"} for n in range(3)]
    Path("two.jsonl").write_text("\n".join(map(json.dumps, other)))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin(Choice(data="one.jsonl", more=["two.jsonl*0.5"]))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.error is not None)
        await pilot.press("m")
        await until(pilot, lambda: "1/2  one.jsonl" in seen(pilot) and "not used" in seen(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "2/2  two.jsonl*0.5" in seen(pilot) and "✗" in seen(pilot).splitlines()[2])
        check_screen(pilot)
        # Enter on what is nothing yet says so, also from the other source.
        await pilot.press("s", "enter")
        await until(pilot, lambda: "2/2" in seen(pilot))
        assert app.screen.TITLE == "Mapping"
        for role, key in (("prompt", "right"), ("completion", "left")):  # the first column, and the last one
            app.screen.query_one("#roles").put_cursor(role)  # type: ignore[attr-defined]
            await pilot.press(key)
        await until(pilot, lambda: "✗" not in seen(pilot).splitlines()[2])
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        draft = app.wizard.draft
        assert draft is not None and not draft.choice.columns and set(draft.choice.said) == {"two.jsonl*0.5"}
        assert draft.dataset.examples[len(DIALOGUES)].messages[-1].content == "0 it is"  # type: ignore[index]
        assert "--columns 2:prompt=ask --columns 2:completion=right" in app.screen.command  # type: ignore[attr-defined]
        assert drafts.from_recipe(draft.recipe).recipe.data == draft.recipe.data


WRONG = "✗ a template names {dialog} (did you mean dialogue?), but the columns are: id, dialogue, summary, topic"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_wrong_template_is_said_whole_with_what_was_meant(size: tuple[int, int], tiny_starter: Path) -> None:
    async with mapping(size) as (_, pilot):
        await until(pilot, lambda: "not used" in seen(pilot))
        await pilot.press("t", *"Summarise this please: {dialog}", "enter")
        await until(pilot, lambda: WRONG in " ".join(seen(pilot).split()))
        check_screen(pilot)
        await pilot.press("backspace")
        await until(pilot, lambda: "did you mean" not in seen(pilot))
