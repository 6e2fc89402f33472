"""A progress bar for things that last before a run starts: fetching, converting, counting."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.draft import Report

_PATIENCE = 2.0  # seconds
_EVERY = 15.0  # seconds
# What is counted while it lasts, by the first word of what is done.
_UNITS = {"counting": (1, "rows"), "looking": (1, "rows"), "reading": (1e6, "MB"), "fetching": (1, "MB")}


@contextmanager
def shown(quiet: bool = False) -> Iterator[Report]:
    """A function to report to. A bar on a terminal's stderr; else a line now and then for what lasts."""
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        yield from _bar()
    else:
        yield _lines()


def _bar() -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from engine.cli.show import console
    from engine.text import safe

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(rate(task.description, task.speed), style="dim")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn("{task.percentage:>3.0f} %"),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, visible=False)
                tasks[what] = bars.add_task(safe(what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield report


def rate(what: str, speed: float | None) -> str:
    """ "12,000 rows/s", "3.1 MB/s"; empty where it is not known or says nothing."""
    unit = _UNITS.get(what.partition(" ")[0])
    if not speed or unit is None:
        return ""
    shown = speed / unit[0]
    return f"{shown:,.{0 if shown >= 10 else 1}f} {unit[1]}/s"


def _lines() -> Report:
    from engine.text import safe

    subject, said, line = "", 0.0, ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal subject, said, line
        now = time.monotonic()
        if what != subject:
            # What is over in a moment needs no line: the first comes after _PATIENCE.
            subject, said = what, now - _EVERY + _PATIENCE
        if now - said < _EVERY:
            return
        before, line = line, f"{safe(what)}{f' {100 * done // total} %' if total else ''}"
        if line != before:
            said = now
            print(line, file=sys.stderr, flush=True)

    return report
