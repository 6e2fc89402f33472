"""Doctor: checks on the screen, the worst first under the cursor."""

from __future__ import annotations

import pytest

from engine import doctor
from engine.doctor import Check
from engine.hardware import Hardware
from tests.tui.stage import seen, until
from tui.app import FtuiApp

GOOD = Check(name="memory", level="ok", detail="20 GB free")
KNOWN = Check(name="gpu", level="warning", detail="none found")
BROKEN = Check(name="disk", level="bad", detail="1 GB free", fix="make room")


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([GOOD], "Ready to train"),
        ([GOOD, KNOWN], "Ready to train, with 1 thing to know"),
        ([GOOD, KNOWN, BROKEN], "1 of 3 checks failed"),
    ],
)
async def test_verdict_and_worst(
    machine: Hardware, monkeypatch: pytest.MonkeyPatch, checks: list[Check], verdict: str
) -> None:
    monkeypatch.setattr(doctor, "report", lambda: checks)
    app = FtuiApp("doctor")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: verdict in seen(pilot))
        if BROKEN in checks:
            assert "› ✗ disk" in seen(pilot) and "→ make room" in seen(pilot)


async def test_look_again(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = iter([[BROKEN], [GOOD]])
    monkeypatch.setattr(doctor, "report", lambda: next(reports))
    app = FtuiApp("doctor")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "checks failed" in seen(pilot))
        await pilot.press("r")
        await until(pilot, lambda: "Ready to train" in seen(pilot))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_there_is_to_know_comes_first(
    machine: Hardware, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    hub = Check(
        name="hub", level="warning", detail="cannot be reached: its name is not found", fix="offline work goes on"
    )
    monkeypatch.setattr(doctor, "report", lambda: [*[GOOD] * 14, KNOWN, *[GOOD] * 4, hub])
    app = FtuiApp("doctor")
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "2 things to know" in seen(pilot))
        assert "› ! gpu" in seen(pilot) and "! hub               cannot be reached: its name is not found" in seen(
            pilot
        )
        await pilot.press("down")
        await until(pilot, lambda: "→ offline work goes on" in seen(pilot))
