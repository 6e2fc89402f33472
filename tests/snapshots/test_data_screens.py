"""Pictures of what the Data screen opens and shows on demand, at both sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.draft import Choice
from tests.tui.stage import seen, until
from tui.app import FtuiApp

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


@pytest.fixture(autouse=True)
def fixed(tiny_starter: Path) -> None:
    """The tiny model, on a machine that never changes."""


def plain(count: int = 40) -> list[dict[str, Any]]:
    """Rows of which some are long, one repeats another, one was read in the wrong encoding."""
    rows = [
        {"instruction": f"What is number {n}?" + " And why?" * (n % 7), "output": f"It is {n}, as ever."}
        for n in range(count)
    ]
    rows[11] = rows[3]
    rows[17]["output"] = "The cafÃ© is open."
    rows[29]["output"] += " It was so before, and will be so after." * 8
    return rows


def pairs(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What is number {n}?",
            "chosen": f"It is {n}, as ever.",
            "rejected": "I would rather not say." * (n % 3 + 1),
        }
        for n in range(count)
    ]


def damaged() -> list[str]:
    lines = [json.dumps(row) for row in plain()]
    lines[3] = lines[3][:31]
    lines[8] = '{"instruction": "Nothing?", "output": ""}'
    lines[21] = '{"instruction": "A comma?", "output": "Too many.",}'
    return lines


STATES: dict[str, tuple[list[str], list[str], str]] = {
    # name: the lines of the file, the keys, what has to be on the screen
    "finding": ([json.dumps(row) for row in plain()], ["down", "space"], "✓ marked"),
    "tokens": ([json.dumps(row) for row in plain()], ["t", "l", "o"], "▏<|im_start|>"),
    "pairs": ([json.dumps(row) for row in pairs()], ["p"], "✗ rejected"),
    "mapping": ([json.dumps(row) for row in plain()], ["m", "down", "down", "right"], "✎"),
    "badrows": (damaged(), ["f", "down"], "nothing starts until"),
}


@SIZES
@pytest.mark.parametrize("state", STATES)
def test_data(snap_compare: Any, size: tuple[int, int], state: str) -> None:
    lines, keys, words = STATES[state]
    Path("rows.jsonl").write_text("\n".join(lines))

    async def before(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, FtuiApp)
        app.wizard.begin(Choice(data="rows.jsonl"))
        app.new_run("data")
        await until(pilot, lambda: app.wizard.draft is not None and app.focused is not None and "cores" in seen(pilot))
        await pilot.press(keys[0])
        if state in ("mapping", "badrows"):
            await until(pilot, lambda: "column" in seen(pilot) and "cores" in seen(pilot))
        await pilot.press(*keys[1:])
        await until(pilot, lambda: words in seen(pilot))
        await pilot.pause(0.2)

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)
