"""The line before a training, as the verbs tell of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.cli import show
from engine.runs import occupancy, slots, status

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

_SAID_WITHIN = 10.0  # seconds for a worker to say that it waits, or that it does not


def told(run: RunDir) -> str:
    """What a run that was started just now waits for; empty where its turn has come. Its worker says so soon."""
    if all(spot.free or slots.has(run) for spot in occupancy.look()):
        return ""
    until = time.monotonic() + _SAID_WITHIN
    while time.monotonic() < until and not slots.has(run):
        now = status.read(run)
        if now.state != "preparing":
            return now.detail if now.state == "queued" else ""
        time.sleep(0.05)
    return ""


def warn(need: int) -> None:
    """Before a start that waits for nobody: who is there already. `need`: bytes that the plan takes, 0 if not known."""
    spot = occupancy.best(occupancy.look())
    if spot.beside:
        show.say(f"! beside {spot.beside} on {spot.title}: both will be slower, and may run out of memory", "yellow")
    if short := spot.short_of(need, now=True):
        show.say(f"! {short}", "yellow")
