"""A progress bar for things that last before a run starts: fetching, converting, counting."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.draft import Report

_PATIENCE = 2.0  # seconds
_EVERY = 15.0  # seconds


@contextmanager
def shown(quiet: bool = False) -> Iterator[Report]:
    """A function to report to. A bar on a terminal's stderr; else a line now and then for what lasts."""
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

    subject, said = "", 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal subject, said
        now = time.monotonic()
        if what != subject:
            # What is over in a moment needs no line: the first comes after _PATIENCE.
            subject, said = what, now - _EVERY + _PATIENCE
        if now - said < _EVERY:
            return
        said = now
        share = f" {100 * done // total} %" if total else ""
        print(f"{safe(what)}{share}", file=sys.stderr, flush=True)

    return report
