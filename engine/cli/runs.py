"""Newest first. `ftui attach RUN` shows one of them. "queued" waits for its turn, or for the run before it in its chain."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from engine.cli import options as shared
from engine.cli import show
from engine.text import ago

if TYPE_CHECKING:
    from engine.runs.status import Status

GLYPHS = {
    "queued": ("○", "cyan"),
    "ready": ("✓", "green"),
    "stopped": ("◼", "yellow"),
    "failed": ("!", "red"),
    "lost": ("?", "red"),
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", action="store_true", help="who uses each card (or the processor), and who waits")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.runs import directory, status

    if args.gpus:
        return _places(args.json)
    found = [status.read(one) for one in directory.all_runs()]
    if args.json:
        show.emit(found)
        return 0
    if not found:
        show.say("no runs yet: `ftui demo` makes one in a few minutes, `ftui train --help` says how to make your own")
        return 0
    rows = [_row(one) for one in found]
    columns = ("", "run", "state", "model", "method", "step", "loss", "when")
    show.console().print(show.table(columns, rows, right=("step", "loss"), wrap="state"))
    return 0


def _places(as_json: bool) -> int:
    from engine.runs import occupancy

    spots = occupancy.look()
    if as_json:
        show.emit(spots)
        return 0
    rows = [
        [spot.title, spot.name, spot.words, ", ".join(spot.training) or (spot.strangers and "others") or "free"]
        for spot in spots
    ]
    show.console().print(show.table(("place", "what", "memory and who", "trains there"), rows, wrap="memory and who"))
    return 0


def _row(one: Status) -> list[object]:
    from engine.models import sources

    glyph, colour = GLYPHS.get(one.state, ("●", "cyan"))
    state = one.state + (f": {one.detail}" if one.detail else "")
    if one.after and not any(name in one.detail for name in one.after):
        state += f", after {' and '.join(one.after)}"
    step = f"{one.step}/{one.total_steps}" if one.total_steps else ""
    loss = f"{one.loss:.2f}" if one.loss is not None else ""
    when = ago(time.time() - one.updated) if one.updated else ""
    return [
        show.styled(glyph, colour),
        one.name,
        show.styled(state, colour),
        sources.short_name(one.model),
        one.method,
        step,
        loss,
        when,
    ]
