"""What the tests of screens share: a machine that never changes, the tiny model in the starter's place, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine import hardware
from engine.hardware import Hardware
from engine.models import starter

MACHINE = Hardware(
    cpu="Test Processor", cores=2, memory_total=25_000_000_000, memory_free=20_000_000_000, disk_free=10**12
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hardware:
    """Fixed hardware, an empty hub cache, an empty current folder, and no worker that warms up."""
    from engine.runs import control

    empty = tmp_path / "here"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hardware, "read", lambda: MACHINE)
    monkeypatch.setattr(control, "prewarm", lambda: None)
    return MACHINE


@pytest.fixture
def tiny_starter(machine: Hardware, tiny_model: Path) -> Path:
    """The tiny model where the starter model is looked for."""
    folder = starter.folder()
    folder.symlink_to(tiny_model, target_is_directory=True)
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Drafts given to `draft.start`, which makes the run's folder as always and starts nothing."""
    import msgspec

    from engine import draft
    from engine.runs import directory

    drafts: list[Any] = []

    def start(made: Any, gpu: Any = None, warm: Any = None, now: bool = False) -> Any:
        drafts.append(made)
        return directory.create(made.recipe, msgspec.to_builtins(made.plan))

    monkeypatch.setattr(draft, "start", start)
    return drafts


async def until(pilot: Pilot[None], true: Callable[[], object], seconds: float = 60.0) -> None:
    """Let the app work until something is true; fails when that takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not true():
        assert loop.time() < end, f"still not true after {seconds} s, in {pilot.app.current_mode}:\n{seen(pilot)}"
        await pilot.pause(0.02)
    await pilot.pause()


def seen(pilot: Pilot[None]) -> str:
    """What is on the screen, as text."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)
