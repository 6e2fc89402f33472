"""The rest of a path, while it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.widgets.paths import completed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "data/train.jsonl",
        "data/test.jsonl",
        "data/深/a.json",
        "data/.hidden.json",
        "data/ev\x1b[31mil.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"instruction": "Who?", "output": "I."}\n' * 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_last_part_is_completed(folder: Path) -> None:
    assert completed("da") == "data/"
    assert completed("data/t") == "data/test.jsonl" and completed("data/tr") == "data/train.jsonl"
    assert completed("~/data/tr") == "~/data/train.jsonl" and completed(f"{folder}/da") == f"{folder}/data/"
    assert completed("data/深") == "data/深/" and completed("./data/.h") == "./data/.hidden.json"


@pytest.mark.parametrize(
    "path", ["", "data/", "data/x", "nowhere/a", "data/ev", "data/train.jsonl/a", "a\0b", "~nobody/a"]
)
def test_nothing_is_suggested_where_nothing_begins_so(folder: Path, path: str) -> None:
    assert completed(path) is None


async def test_tab_takes_what_is_suggested_and_else_goes_on(tiny_starter: Path, folder: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.new_run("source")
        await until(pilot, lambda: "Another" in seen(pilot))
        await pilot.press("slash", "backspace", *"data/tr")
        await until(pilot, lambda: "rows data/train.jsonl" in seen(pilot))  # the rest of it faint
        field = app.focused
        assert isinstance(field, Input) and field.value == "data/tr"
        await pilot.press("tab")
        assert app.focused is field and field.value == "data/train.jsonl"
        assert "tab completes" in seen(pilot)
        for letter in " and so on, longer than what is left of the line beside it":
            await pilot.press(letter if letter != " " else "space")
        assert "tab completes" not in seen(pilot) and "left of the line beside it" in seen(pilot)
        field.value = "data/train.jsonl"
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        assert str(app.wizard.choice.data).endswith("data/train.jsonl")  # type: ignore[union-attr]
