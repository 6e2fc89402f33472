"""The engine's next steps name the keys of the screens, not the options of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import draft as drafts
from engine.data.rows import WAY_OUT
from engine.draft import Choice
from engine.errors import Exit, FtuiError
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.frame import told
from tui.spoken import spoken


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "85 rows still hold {{author}} or {{name}}: give --set author=… --set name=…",
            "85 rows still hold {{author}} or {{name}}: f on Data or Review fills them in",
        ),
        (
            "2 rows cannot be used: leave them out (--bad-rows skip), or have mended what can be (--bad-rows repair)",
            "2 rows cannot be used: s on Data leaves them out, r mends what can be",
        ),
        ("mend the file, or have it mended (--bad-rows repair)", "mend the file, or let r on Data mend it"),
        ("mend it, or leave such rows out (--bad-rows skip)", "mend it, or let s on Data leave such rows out"),
        (
            f"mend or delete the line; or {WAY_OUT}",
            "mend or delete the line; or let s on Data leave such rows out, or let r on Data mend what can be",
        ),
        ("give yours with --data FILE", "d chooses rows"),
        (
            "check the network, or give --model a local folder, a GGUF file or `starter`",
            "check the network, or choose a local folder, a GGUF file with / on Model",
        ),
        ("300 tokens hold every row whole (--length 300); or leave", "300 tokens hold every row whole; or leave"),
        ("try --edit micro_batch=1", "try e on Plan: micro_batch 1"),
        ("a row of ours -- as it is -- stays", "a row of ours -- as it is -- stays"),
    ],
)
def test_an_option_is_said_as_a_key(text: str, words: str) -> None:
    assert spoken(text) == words


def test_an_error_is_told_in_keys() -> None:
    error = FtuiError(
        Exit.DATA_ROW, "row 3 has no answer", "rows.json", "mend it, or leave such rows out (--bad-rows skip)"
    )
    assert told(error).endswith("let s on Data leave such rows out")


async def test_plan_and_review_name_the_key_that_fills_in(tiny_starter: Path) -> None:
    Path("names.json").write_text('[{"instruction": "Who are you?", "output": "I am {{name}}, by {{author}}."}]')
    app = FtuiApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.wizard.begin(Choice(data="names.json"))
        app.new_run("plan")
        await until(pilot, lambda: "1 row still holds" in seen(pilot))
        assert "f on Data or Review fills them in" in seen(pilot) and "--set" not in seen(pilot)
        app.new_run("review")
        await until(pilot, lambda: "name " in seen(pilot) and "fills them in" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "cannot start" in seen(pilot))
        assert "--set" not in seen(pilot)
        draft = app.wizard.draft
        assert draft is not None and "--set name=…" in drafts.refusals(draft)[0]  # as the command line says it
