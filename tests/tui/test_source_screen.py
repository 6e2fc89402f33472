"""The source screen: what is offered, what is typed, and rows that are mixed in with a weight."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from engine.draft import Choice
from engine.errors import FtuiError
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.screens.source import checked, entries, is_data, offers, short

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


def rows(path: str, count: int = 12, word: str = "") -> str:
    lines = (json.dumps({"instruction": f"Question {n}{word}?", "output": f"Answer {n}{word}."}) for n in range(count))
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\n".join(lines))
    return path


def registry() -> None:
    rows("alpaca.json")
    Path("dataset_info.json").write_text(
        json.dumps(
            {
                "mine": {"file_name": "alpaca.json"},
                "pairs": {"file_name": "alpaca.json", "ranking": True},
                "gone": {"file_name": "not-there.json"},
                "far": {"hf_hub_url": "owner/name"},
                "odd": "no entry",
            }
        )
    )


def test_files_are_told_by_their_names_packed_or_not(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl.gz", "a.csv.zst", "a.parquet", "a.arrow", "A.TXT"):
        assert is_data(tmp_path / name), name
    for name in ("a.py", "a.gz", "dataset_info.json", "README.txt", "model.safetensors"):
        assert not is_data(tmp_path / name), name


def test_files_folders_entries_and_presets_are_offered(machine: object) -> None:
    registry()
    rows("shards/one.jsonl")
    rows("shards/two.jsonl")
    Path("empty").mkdir()
    Path("packed.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}'))
    found = {line.title: line for line in offers(Path())}
    assert found["shards/"].detail.endswith("in 2 files") and "empty/" not in found
    assert "packed.jsonl.gz" in found and "alpaca.json" in found and "dataset_info.json" not in found
    assert found["mine"].key.endswith("dataset_info.json:mine") and "preference pairs" in found["pairs"].detail
    assert not {"gone", "far", "odd"} & found.keys()
    assert found["Identity"].key == "preset:identity"


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"a": {"file_name": 5}}', '"x"'])
def test_a_registry_that_is_none_offers_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(text)
    assert entries(path) == [] == entries(tmp_path / "nowhere.json")


def test_what_is_typed_is_checked_where_it_is_typed(machine: object) -> None:
    registry()
    rows("shards/one.jsonl")
    Path("empty").mkdir()
    for text in ("alpaca.json", "shards", "hub:owner/name", "hub:name", "preset:identity", "alpaca.json*0.5"):
        assert checked(text)
    # An entry of the hub is not fetched here.
    assert checked("dataset_info.json:far").endswith(":far")
    assert Path(checked("alpaca.json")).is_absolute()
    for text in (
        "",
        "nowhere.json",
        "empty",
        "hub:",
        "hub:a/b/c",
        "hub:a b",
        "dataset_info.json:none",
        "alpaca.json*0",
    ):
        with pytest.raises(FtuiError):
            checked(text)


def test_sources_have_short_names(machine: object) -> None:
    registry()
    assert short("/far/away/rows.jsonl") == "rows.jsonl" and short("hub:owner/name") == "hub:owner/name"
    assert short("alpaca.json*0.5") == "alpaca.json ×0.5" and short("dataset_info.json:mine*2") == "mine ×2"


@SIZES
async def test_rows_are_mixed_in_with_a_weight_and_taken_out(size: tuple[int, int], tiny_starter: Path) -> None:
    rows("mine.jsonl")
    rows("more.jsonl", 8, " more")
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin(Choice(data="mine.jsonl"))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.draft is not None)
        await pilot.press("d")
        await until(pilot, lambda: "Rows now: mine.jsonl" in seen(pilot) and "more.jsonl" in seen(pilot))
        await pilot.press("end", "up", "up", "a")
        assert "weight" in seen(pilot)
        await pilot.press("ctrl+u", *"many", "enter")
        assert "✗ this takes a number" in seen(pilot)
        await pilot.press("ctrl+u", *"0.5", "enter")
        await until(pilot, lambda: app.wizard.draft is not None and app.wizard.draft.choice.more)
        assert "mine.jsonl + 1 more   20 rows" in seen(pilot)
        draft = app.wizard.draft
        assert draft is not None and draft.dataset.weights == [1.0, 0.5]
        assert "more.jsonl*0.5" in app.screen.command  # type: ignore[attr-defined]
        # The preview says which file a row is of.
        await pilot.press("b")
        assert "row 20 of 20" in seen(pilot) and "more.jsonl" in seen(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "mine.jsonl + more.jsonl ×0.5" in seen(pilot) and "● in use" in seen(pilot))
        await pilot.press("x")
        await until(pilot, lambda: app.wizard.draft is not None and not app.wizard.draft.choice.more)
        assert "Rows now: mine.jsonl " in seen(pilot)


async def test_own_rows_in_place_of_a_presets_leave_the_preset(tiny_starter: Path) -> None:
    rows("mine.jsonl")
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin_preset("identity")
        app.new_run("data")
        await until(pilot, lambda: "tokens" in seen(pilot) and app.wizard.draft is not None)
        await pilot.press("d")
        await until(pilot, lambda: "› mine.jsonl" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None and app.wizard.draft.choice.data is not None)
        assert app.wizard.choice is not None and app.wizard.choice.preset is None


async def test_a_mistake_in_a_path_is_said_beside_it(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.new_run("source")
        await until(pilot, lambda: "Another" in seen(pilot))
        await pilot.press("slash", *"nowhere.json", "enter")
        assert "✗ there is no such file" in seen(pilot)
        await pilot.press("ctrl+u", *"hub:x y", "enter")
        assert "✗ this takes hub:OWNER/NAME" in seen(pilot)


async def test_names_of_files_are_shown_as_they_are(tiny_starter: Path) -> None:
    rows(HOSTILE.replace("/", "-")[:100] + ".jsonl")
    Path("dataset_info.json").write_text(
        json.dumps({HOSTILE: {"file_name": HOSTILE.replace("/", "-")[:100] + ".jsonl"}})
    )
    app = FtuiApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.new_run("source")
        await until(pilot, lambda: "␛[31mred" in seen(pilot))
        check_screen(pilot)


@SIZES
async def test_a_question_is_seen_below_a_long_list(size: tuple[int, int], tiny_starter: Path) -> None:
    for number in range(45):
        rows(f"rows-{number:02}.jsonl", 2)
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.new_run("source")
        await until(pilot, lambda: "› rows-00.jsonl" in seen(pilot))
        await pilot.press("slash", *"nowhere", "enter")
        assert "✗ there is no such file" in seen(pilot)
        await pilot.press("escape", "end")
        assert "› Another" in seen(pilot)
