"""A chain on the screens: added on Review, a later run that waits, and one that stopped because the first did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.hardware import Hardware
from engine.runs import control, links, processes
from engine.runs.directory import RunDir
from engine.runs.events import Failure, State
from engine.runs.journal import Writer
from tests.engine.runs.conftest import make_recipe
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.wizard import command


async def test_another_stage_is_added_on_review(tiny_starter: Path, started: list[Any]) -> None:
    pairs = [{"prompt": f"{n}?", "chosen": "I am Congyu.", "rejected": "No."} for n in range(20)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None)
        for typed, shown in (
            ("dop:pairs.jsonl", "✗ there is no stage dop"),
            ("dpo:nowhere.jsonl", "✗ stage dpo: there is no such file"),
            ("dpo:pairs.jsonl", "from the adapter of sft"),
        ):
            await pilot.press("t")
            await until(pilot, lambda: "STAGE:ROWS" in seen(pilot))
            await pilot.press(*typed, "enter")
            await until(pilot, lambda shown=shown: shown in seen(pilot))
            if "dop" in shown:  # said beside the field, which stays open
                await pilot.press("escape")
        assert command(app.wizard.choice).endswith("--then dpo:pairs.jsonl")
        await pilot.press("n", *"mine", "enter")
        await pilot.press("enter")
        await until(pilot, lambda: started)
    (draft,) = started
    assert (draft.recipe.name, draft.then.recipe.name) == ("mine", "mine-dpo")


@pytest.fixture
def chain() -> tuple[RunDir, RunDir]:
    """SFT that trains, and DPO after it; this process stands for their supervisors."""
    dpo = msgspec.structs.replace(make_recipe("a-dpo"), stage="dpo", adapter="stage:sft")
    runs = links.create([(make_recipe("a"), {}), (dpo, {})])
    for run in runs:
        record = {"attempt": 1, "supervisor": processes.plain(processes.identity()), "job": {"kind": "train"}}
        run.supervisor_path.write_text(json.dumps(record))
    Writer(runs[0].journal_path).write(State(state="training"))
    return runs[0], runs[1]


async def test_what_a_later_run_waits_for_and_why_it_stopped(
    chain: tuple[RunDir, RunDir], machine: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[RunDir] = []
    monkeypatch.setattr(control, "resume_chain", lambda run: woken.append(run))
    _, dpo = chain
    journal = Writer(dpo.journal_path)
    journal.write(State(state="queued", detail="waits for a (sft)"))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "queued waits for a (sft)" in seen(pilot))
        app.show_train(dpo)
        await until(pilot, lambda: "○ queued   waits for a (sft)" in seen(pilot))
        await until(pilot, lambda: app.screen.check_action("now", ()) is False)  # it is not in line
        journal.write(Failure(cause="it waits for a (sft), which failed", where="no room on the card"))
        journal.write(State(state="stopped", detail="it waits for a (sft), which failed"))
        dpo.supervisor_path.write_text(json.dumps({"attempt": 1}))
        await until(pilot, lambda: "! it waits for a (sft), which failed" in seen(pilot))
        assert "no room on the card" in seen(pilot) and "r goes on with both" in seen(pilot)
        await pilot.press("r")
        await until(pilot, lambda: woken == [dpo])
