"""A progress bar for things that last before a run starts: fetching, converting, counting."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.draft import Report


@contextmanager
def shown(quiet: bool = False) -> Iterator[Report]:
    """A function to report to. A bar on a terminal's stderr; else a line whenever the subject changes or 15 s have gone."""
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        yield from _bar()
    else:
        yield _lines()


def _bar() -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from engine.cli.show import console
    from engine.text import safe

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        TextColumn("{task.percentage:>3.0f} %"),
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


def _lines() -> Report:
    from engine.text import safe

    last_what, last_time = "", 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last_what, last_time
        now = time.monotonic()
        if what == last_what and now - last_time < 15:
            return
        last_what, last_time = what, now
        share = f" {100 * done // total} %" if total else ""
        print(f"{safe(what)}{share}", file=sys.stderr, flush=True)

    return report
