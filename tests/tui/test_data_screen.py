"""The Data screen by its keys: cutoff, measures, findings, rows, placeholders, rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from engine.draft import Choice
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.stage import seen, until
from tui import inspection
from tui.app import FtuiApp
from tui.widgets.histogram import Histogram
from tui.widgets.preview import MaskedPreview

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


def write(path: str, rows: list[dict[str, Any]]) -> str:
    Path(path).write_text("\n".join(map(json.dumps, rows)))
    return path


def plain(count: int = 30) -> list[dict[str, Any]]:
    return [{"instruction": f"Question {n}? " + "why " * n, "output": f"Answer {n}, as it was."} for n in range(count)]


async def opened(pilot: Any, **choice: Any) -> FtuiApp:
    """The Data screen with the draft of a choice on it."""
    app = pilot.app
    app.wizard.begin(Choice(**choice))
    app.new_run("data")
    await until(pilot, lambda: app.wizard.draft is not None and app.focused is not None)
    return app


@SIZES
async def test_everything_fits_at_once(size: tuple[int, int], tiny_starter: Path) -> None:
    rows = plain()
    rows += [rows[3], rows[4]]
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", rows))
        text = seen(pilot)
        for words in ("32 rows, alpaca", "p50", "┄┄┄┄ nothing is cut", "padding", "packing", "memory", "2 rows repeat"):
            assert words in text
        assert "Question 0?" in text and "row 1 of 32" in text
        assert app.screen.query_one(MaskedPreview).size.height >= 4
        check_screen(pilot)


@SIZES
async def test_the_cutoff_moves_and_says_what_it_costs(size: tuple[int, int], tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", plain(60)))
        assert "nothing is cut" in seen(pilot)
        draft: Any = app.wizard.draft
        memory = draft.plan.memory.total
        for _ in range(60):
            await pilot.press("shift+left")
            if "end token" in seen(pilot):
                break
        moved: Any = app.wizard.draft
        assert moved.plan.settings.max_length < draft.plan.settings.max_length
        assert moved.plan.settings.max_length % 8 == 0
        cut = moved.lengths.at(moved.plan.settings.max_length)
        assert cut.rows_cut
        assert f"{cut.rows_cut} row" in seen(pilot) or f"{cut.rows_cut} cut" in seen(pilot)
        # The forecast follows: shorter rows need less.
        assert moved.plan.memory.total < memory
        assert "--edit max_length" in app.screen.command  # type: ignore[attr-defined]


async def test_measures_go_round_and_counts_can_be_logarithmic(tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", plain()))
        lengths: Any = app.wizard.draft.lengths  # type: ignore[union-attr]
        await pilot.press("t")
        assert "● prompt" in seen(pilot) and f"max {lengths.percentile(100, of='prompt')}" in seen(pilot)
        await pilot.press("t")
        assert "● answer" in seen(pilot) and f"p50 {lengths.percentile(50, of='completion')}" in seen(pilot)
        await pilot.press("t", "l")
        assert "● row" in seen(pilot) and "● log" in seen(pilot) and app.screen.query_one(Histogram).logarithmic


async def test_rows_are_stepped_through_and_found_by_number(tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        await opened(pilot, data=write("rows.jsonl", plain()))
        await pilot.press("n", "n")
        assert "row 3 of 30" in seen(pilot) and "Question 2?" in seen(pilot)
        await pilot.press("b", "b", "b")
        assert "row 30 of 30" in seen(pilot)
        await pilot.press("g", *"x7", "enter")
        assert "✗ type the number of a row" in seen(pilot)
        await pilot.press("ctrl+u", *"31", "enter")
        assert "✗ there is no row 31" in seen(pilot)
        await pilot.press("ctrl+u", *"7", "enter")
        assert "row 7 of 30" in seen(pilot) and "Question 6?" in seen(pilot)


@SIZES
async def test_a_finding_is_walked_row_by_row_and_left_by_escape(size: tuple[int, int], tiny_starter: Path) -> None:
    rows = plain()
    rows[9] = rows[19] = rows[4]
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", rows))
        await pilot.press("down")
        assert "2 rows repeat an earlier one" in next(
            line for line in seen(pilot).splitlines() if "›" in line[:6]
        ) and "→" in seen(pilot)
        await pilot.press("enter")
        assert "row 10, 1 of 2 found" in seen(pilot)
        await pilot.press("n")
        assert "row 20, 2 of 2 found" in seen(pilot)
        await pilot.press("enter")
        assert "row 10, 1 of 2 found" in seen(pilot)
        await pilot.press("escape", "n")
        assert "row 11 of 30" in seen(pilot) and app.current_mode == "new:data"


async def test_the_text_can_have_the_whole_screen(tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", plain()))
        before = app.screen.query_one(MaskedPreview).size.height
        await pilot.press("p")
        await pilot.pause()
        assert app.screen.query_one(MaskedPreview).size.height >= 15 > before and "p50" not in seen(pilot)
        await pilot.press("n")
        assert "row 2 of 30" in seen(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert "p50" in seen(pilot) and app.current_mode == "new:data"
        assert isinstance(app.focused, Histogram)


async def test_placeholders_ask_for_their_values(tiny_starter: Path) -> None:
    rows = [{"instruction": f"Who are you, {n}?", "output": "I am {{name}} by {{author}}."} for n in range(9)]
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", rows))
        assert "✗ 9 rows hold" in seen(pilot)
        await pilot.press("f", "enter")
        assert "✗ this cannot be empty" in seen(pilot)
        await pilot.press(*"Ada", "enter", *"Yuriko", "enter")
        await until(pilot, lambda: app.wizard.draft is not None and not app.wizard.draft.dataset.placeholders)
        assert "I am Ada by Yuriko." in seen(pilot) and "9 rows hold" not in seen(pilot)


async def test_rows_with_markup_and_escapes_are_shown_as_they_are(tiny_starter: Path) -> None:
    evil = [
        {"instruction": "[@click=app.quit]x[/]", "output": "\u001b[2J[/bold] \u202e"},
        {"instruction": HOSTILE, "output": HOSTILE},
    ]
    async with FtuiApp().run_test(size=(120, 40)) as pilot:
        await opened(pilot, data=write("evil\x1b[2J.jsonl", evil))
        assert "[@click=app.quit]x[/]" in seen(pilot) and "␛[2J[/bold]" in seen(pilot)
        check_screen(pilot)
        await pilot.press("n")
        assert "␛[31mred" in seen(pilot)
        check_screen(pilot)


@SIZES
async def test_what_a_key_does_is_said_by_help(size: tuple[int, int], tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=size) as pilot:
        await opened(pilot, data=write("rows.jsonl", plain()))
        footer = seen(pilot).splitlines()[-1]
        assert all(words in footer for words in ("←→ Cutoff", "enter Plan", "p Read", "m Mapping", "? Help"))
        # Whatever does not fit there stands in the help.
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys" in seen(pilot))
        pages = []
        for _ in range(4):
            pages.append(seen(pilot))
            await pilot.press("pagedown")
            await pilot.pause(0.4)
        for words in (
            "Logarithmic or linear counts",
            "Show where each token begins",
            "by a whole bar",
            "Lengths of row, prompt",
        ):
            assert any(words in page for page in pages)


def damaged() -> str:
    """Twenty rows: one cut off in the middle, one without an answer, one with a comma too many."""
    lines = [json.dumps(row) for row in plain(20)]
    lines[3] = lines[3][:20]
    lines[7] = '{"instruction": "Empty?", "output": ""}'
    lines[12] = '{"instruction": "x", "output": "trailing",}'
    Path("damaged.jsonl").write_text("\n".join(lines))
    return "damaged.jsonl"


@SIZES
async def test_rows_that_cannot_be_used_are_listed_with_place_and_reason(
    size: tuple[int, int], tiny_starter: Path
) -> None:
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=damaged())
        assert "17 rows, alpaca, 3 cannot be used" in seen(pilot) and "✗ 3 rows cannot be used" in seen(pilot)
        await pilot.press("f")
        await until(pilot, lambda: "nothing starts until you say" in seen(pilot))
        assert "line 4, column 21" in seen(pilot) and "line 13, column" in seen(pilot)
        assert "row 8 has no answer" in seen(pilot)
        await pilot.press("s")
        await until(pilot, lambda: app.wizard.draft is not None and not app.wizard.making)
        assert app.wizard.draft.choice.on_bad_row == "skip"  # type: ignore[union-attr]
        assert "17 rows, alpaca, 3 left out" in seen(pilot)


async def test_rows_whose_meaning_is_plain_are_mended(tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        app = await opened(pilot, data=damaged())
        await pilot.press("r")
        await until(pilot, lambda: "18 rows, alpaca, 2 left out" in seen(pilot))
        assert "--bad-rows repair" in app.screen.command  # type: ignore[attr-defined]
        await pilot.press("f")
        await until(pilot, lambda: "1 row mended" in seen(pilot))
        assert "✓ line 13" in seen(pilot)


@SIZES
async def test_fixes_are_marked_and_written_to_a_copy(size: tuple[int, int], tiny_starter: Path) -> None:
    rows = plain()
    rows[9] = rows[19] = rows[4]
    rows[2]["output"] = "The cafÃ© is open."
    path = write("rows.jsonl", rows)
    before = Path(path).read_text()
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=path)
        await pilot.press("down", "space")
        assert "✓ marked" in seen(pilot)
        for _ in range(6):
            if "repeat" in next((line for line in seen(pilot).splitlines() if line[2:3] == "›"), ""):
                break
            await pilot.press("down")
        await pilot.press("f")
        assert "rows.cleaned.jsonl" in seen(pilot) and "2 fixes" in seen(pilot)
        await pilot.press("ctrl+u", *"rows.jsonl", "enter")
        assert "✗ there is such a file" in seen(pilot)
        await pilot.press("ctrl+u", *"copy.jsonl", "enter")
        await until(
            pilot, lambda: app.wizard.draft is not None and str(app.wizard.draft.choice.data).endswith("copy.jsonl")
        )
        assert "✓ 28 rows written to copy.jsonl, 1 changed, 2 left out" in seen(pilot)
        assert "copy.jsonl   28 rows" in seen(pilot) and "The café is open." in Path("copy.jsonl").read_text()
        assert Path(path).read_text() == before


async def test_tokens_and_the_place_of_the_cut_are_shown_on_demand(tiny_starter: Path) -> None:
    async with FtuiApp().run_test(size=(120, 40)) as pilot:
        app = await opened(pilot, data=write("rows.jsonl", plain(60)), edits={"max_length": 40})
        total: Any = app.wizard.draft.lengths.total  # type: ignore[union-attr]
        assert f"{total[0]} tokens" in seen(pilot) and f"✂ {total[0] - 40} cut off" in seen(pilot)
        assert "▏<|im_start|>" not in seen(pilot)
        await pilot.press("o")
        assert "▏<|im_start|>" in seen(pilot)
        assert f"cut here: {total[0] - 40} tokens more" in seen(pilot)


async def test_tokens_of_a_long_row_are_told_apart_without_holding_up_the_keys(
    tiny_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, begun, real = Event(), Event(), inspection.sides

    def sides(draft: Any, example: Any, tokens: bool, answer: bool) -> Any:
        if tokens:
            begun.set()
            assert may_end.wait(60), "the screen waits for it"
        return real(draft, example, tokens, answer)

    rows = plain(40)
    rows[-1] = dict(zip(rows[0], ("Say it.", "well " * 15_000), strict=False))
    async with FtuiApp().run_test(size=(120, 40)) as pilot:
        await opened(pilot, data=write("rows.jsonl", rows))
        await pilot.press("b")  # to the last row
        await until(pilot, lambda: "Say it." in seen(pilot))
        monkeypatch.setattr(inspection, "sides", sides)
        await pilot.press("o")
        await until(pilot, begun.is_set)
        assert "telling its tokens apart" in seen(pilot)
        may_end.set()
        await until(pilot, lambda: "▏<|im_start|>" in seen(pilot))


@SIZES
async def test_both_sides_of_a_pair_and_ratings_in_words(size: tuple[int, int], tiny_starter: Path) -> None:
    pairs = [{"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(12)]
    rated = [{"prompt": f"Question {n}?", "completion": f"Answer {n}.", "label": n % 2 == 0} for n in range(12)]
    async with FtuiApp().run_test(size=size) as pilot:
        app = await opened(pilot, data=write("pairs.jsonl", pairs))
        assert "12 rows, preference" in seen(pilot)
        await pilot.press("p")
        await pilot.pause()
        assert "✓ chosen" in seen(pilot) and "✗ rejected" in seen(pilot)
        assert "Good 0." in seen(pilot) and "Bad 0." in seen(pilot) and seen(pilot).count("Question 0?") == 1
        app.wizard.begin(Choice(data=write("rated.jsonl", rated)))
        await until(pilot, lambda: "rated.jsonl   12 rows, rated" in seen(pilot))
        assert "✓ good" in seen(pilot)
        await pilot.press("n")
        assert "✗ bad" in seen(pilot)


async def test_each_size_shows_everything(tiny_starter: Path) -> None:
    rows = plain()
    rows += [rows[3], rows[4]]
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        await opened(pilot, data=write("rows.jsonl", rows))
        for size in ((120, 24), (100, 30), (80, 40), (160, 50), (70, 22), (80, 24)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: "row 1 of 32" in seen(pilot) and "2 rows repeat" in seen(pilot))
            text = seen(pilot)
            for words in ("p50", "┄┄┄┄ nothing is cut", "memory", "padding", "Question 0?"):
                assert words in text, (size, words, text)


async def test_the_first_rows_are_shown_while_the_rest_is_read(
    tiny_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole is held back until the first picture was used."""
    import threading

    from engine.data import dataset

    monkeypatch.setattr("engine.making.FIRST_LOOK", 10)
    seen_enough, load = threading.Event(), dataset.load

    def held_back(*args: Any, **more: Any) -> Any:
        if more.get("limit") is None:
            more["progress"](1_000_000, 2_000_000)
            assert seen_enough.wait(20)
        return load(*args, **more)

    monkeypatch.setattr(dataset, "load", held_back)
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        app = pilot.app
        app.wizard.begin(Choice(data=write("rows.jsonl", plain())))  # type: ignore[attr-defined]
        app.new_run("data")  # type: ignore[attr-defined]
        await until(pilot, lambda: "first 10 rows" in seen(pilot) and "reading 1 of 2 MB" in seen(pilot))
        assert isinstance(app.focused, Histogram)
        await pilot.press("enter")
        assert "the plan waits until every row is counted" in seen(pilot)
        await pilot.press("n", "right")
        assert "row 2 of 10" in seen(pilot)
        cutoff = app.wizard.draft.plan.settings.max_length  # type: ignore[attr-defined]
        seen_enough.set()
        await until(pilot, lambda: "rows.jsonl   30 rows, alpaca" in seen(pilot))
        # Where the person was and what they changed is kept.
        assert "row 2 of 30" in seen(pilot)
        assert app.wizard.draft.plan.settings.max_length == cutoff  # type: ignore[attr-defined]


async def test_many_rows_that_cannot_be_used_leave_room_for_the_reason(tiny_starter: Path) -> None:
    Path("damaged.jsonl").write_text("\n".join([json.dumps(row) for row in plain(3)] + ['{"cut'] * 60))
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        await opened(pilot, data="damaged.jsonl")
        await pilot.press("f")
        await until(pilot, lambda: "60 rows cannot be used" in seen(pilot))
        await pilot.press("end")
        await until(pilot, lambda: "damaged.jsonl, row 63" in seen(pilot))
