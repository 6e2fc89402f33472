"""Pictures of home, the new run and doctor at both sizes, on a machine, a clock and a model that never change.

After a wanted change: pytest tests/snapshots --snapshot-update, look at the report, commit the pictures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine import doctor
from engine.doctor import Check
from engine.draft import Choice
from tests.tui.run_files import T0, FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])

CHECKS = [
    Check(name="python", level="ok", detail="3.12.4"),
    Check(name="packages", level="ok", detail="torch 2.13.0, transformers 5.23.0, trl 1.16.0, peft 0.21.2"),
    Check(name="memory", level="ok", detail="20.0 GB of 25.0 GB free"),
    Check(name="gpu", level="warning", detail="none: small models train on the processor"),
    Check(name="disk for runs", level="bad", detail="1.2 GB free", fix="make room, or set XDG_STATE_HOME to another disk"),
]


@pytest.fixture(autouse=True)
def fixed(machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "report", lambda: CHECKS)
    monkeypatch.setattr("tui.screens.runs.now", lambda: T0 + 7200)


def some_runs() -> None:
    """One of each kind: failed, stopped, ready, at work."""
    broken = FakeRun("legal-v2")
    broken.begin(600)
    broken.steps(1, 88, 600)
    broken.fail("out of memory at batch 4")
    stopped = FakeRun("dialogs", method="full")
    stopped.begin()
    stopped.steps(1, 60)
    stopped.state("stopped")
    time.sleep(0.01)
    FakeRun("support-bot", method="qlora").whole()
    going = FakeRun("congyu")
    going.alive()
    going.begin()
    going.steps(1, 96)


def rows() -> Path:
    """Thirty rows with a placeholder, two alike, one of them long."""
    path = Path("rows.jsonl")
    lines = [{"instruction": f"Question {n}?" + " why" * (n % 9), "output": f"I am {{{{name}}}}, answer {n}."} for n in range(28)]
    lines += [{"instruction": "Twice?", "output": "Yes."}, {"instruction": "Twice?", "output": "Yes."}]
    lines[5]["output"] += " And on and on." * 12
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@SIZES
def test_home_without_runs(snap_compare: Any, size: tuple[int, int]) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "› Identity" in seen(pilot) and "cores" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_home(snap_compare: Any, size: tuple[int, int]) -> None:
    some_runs()

    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "› ● congyu" in seen(pilot) and "Identity" in seen(pilot) and "cores" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_model(snap_compare: Any, size: tuple[int, int], tiny_starter: Path) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: "LlamaForCausalLM" in seen(pilot) and "cores" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_source(snap_compare: Any, size: tuple[int, int], tiny_starter: Path) -> None:
    rows()

    async def before(pilot: Pilot[None]) -> None:
        pilot.app.new_run("source")  # type: ignore[attr-defined]
        await until(pilot, lambda: "› rows.jsonl" in seen(pilot) and "cores" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
@pytest.mark.parametrize("step", ["data", "plan", "review"])
def test_new_run(snap_compare: Any, size: tuple[int, int], tiny_starter: Path, step: str) -> None:
    rows()

    async def before(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, FtuiApp)
        if step == "data":
            app.wizard.begin(Choice(data="rows.jsonl"))
        else:  # a preset, whose recipe names no path
            app.wizard.begin_preset("identity")
        app.new_run(step)
        await until(pilot, lambda: app.wizard.draft is not None and "cores" in seen(pilot))
        await pilot.pause(0.2)

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_why(snap_compare: Any, size: tuple[int, int], tiny_starter: Path) -> None:
    async def before(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, FtuiApp)
        app.wizard.begin_preset("identity")
        app.new_run("plan")
        await until(pilot, lambda: "› method" in seen(pilot) and "cores" in seen(pilot))
        await pilot.press("down", "w")
        await until(pilot, lambda: "Instead" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_doctor(snap_compare: Any, size: tuple[int, int]) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await pilot.press("6")
        await until(pilot, lambda: "→ make room" in seen(pilot) and "cores" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)


@SIZES
def test_help(snap_compare: Any, size: tuple[int, int]) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "› Identity" in seen(pilot) and "cores" in seen(pilot))
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys" in seen(pilot))

    assert snap_compare(FtuiApp(), terminal_size=size, run_before=before)
