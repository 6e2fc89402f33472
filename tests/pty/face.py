"""`python -m tests.pty.face [VERB …]`: ftui's entry on a machine whose own words are hostile, with no worker ahead of time.

For whoever drives it, the app says when it has dealt with what was typed: the key f35, which means nothing to ftui, is
answered by a byte in the pipe FTUI_QUIET names, once every message is handled and all that came of it is on the terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from textual import events
from textual.pilot import Pilot

from tests.pty import machine

machine.pretend()

from tui.__main__ import main  # noqa: E402
from tui.app import FtuiApp  # noqa: E402

LASTING = ("machine", "listing", "places", "journal", "status", "watch", "prewarm")  # what looks again and again
_take = FtuiApp.on_event
_waiting: set[asyncio.Task[None]] = set()


async def on_event(app: FtuiApp, event: events.Event) -> None:
    if isinstance(event, events.Key) and event.key == "f35":
        _waiting.add(task := asyncio.create_task(answer(app)))
        task.add_done_callback(_waiting.discard)
    else:
        await _take(app, event)


async def answer(app: FtuiApp) -> None:
    """Twice in a row nothing to do: what was done last may have brought something to do."""
    quiet = 0
    while quiet < 2:
        await Pilot(app)._wait_for_screen()
        quiet = quiet + 1 if not busy(app) else 0
        await asyncio.sleep(0.005)
    with Path(os.environ["FTUI_QUIET"]).open("wb", buffering=0) as pipe:
        pipe.write(b".")


def busy(app: FtuiApp) -> bool:
    """Whether a message waits, a widget is to be drawn, work in a thread will come back, or bytes are still to be written."""
    screen, writer = app.screen, getattr(app._driver, "_writer_thread", None)
    return bool(
        any(pump.message_queue_size or pump._next_callbacks for pump in (app, *app._registry))
        or (screen._dirty_widgets or screen._layout_required or screen._callbacks or app._batch_count)
        or any(not worker.is_finished for worker in app.workers if worker.group not in LASTING)
        or (writer is not None and (writer._busy or writer._waiting))
    )


FtuiApp.on_event = on_event  # type: ignore[method-assign]
sys.exit(main())
