"""What a screen sends over the line: bytes a second, counted on a pseudo-terminal.

    python tests/bench/terminal.py [SECONDS]        60 where nothing is given

A run that trains is a journal written here, two steps a second; nothing is trained.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.terminal.pty import Pty
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun

STEPS_A_SECOND = 2
SIZES = ((80, 24), (120, 40))


def training(seconds: float) -> FakeRun:
    """A run in the middle of its training, which gets its next steps while it is looked at."""
    total = 400
    run = FakeRun()
    run.alive()
    run.begin(total)
    run.steps(1, 100, total)

    def go_on() -> None:
        for step in range(101, 101 + int(seconds * STEPS_A_SECOND) + 20):
            time.sleep(1 / STEPS_A_SECOND)
            run.steps(step, step, total)

    threading.Thread(target=go_on, daemon=True).start()
    return run


def paused() -> FakeRun:
    run = FakeRun()
    run.alive()
    run.begin()
    run.steps(1, 60)
    return run


def loading() -> FakeRun:
    run = FakeRun()
    run.alive()
    run.loading()
    return run


def finished() -> FakeRun:
    run = FakeRun()
    run.whole()
    return run


def measure(arguments: list[str], text: str, size: tuple[int, int], seconds: float) -> tuple[int, float]:
    """(bytes until it stands, bytes a second from then on)."""
    with Pty(["-m", "tui", *arguments], size=size) as face:
        face.until(text)
        face.watch(4)  # the machine's figures, the terminal's answers
        first = face.bytes
        return first, face.watch(seconds) / seconds


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    # screen, what prepares it, its verb, what stands on it
    cases: list[tuple[str, Callable[[], FakeRun], list[str], str]] = [
        ("Runs, nothing goes on", lambda: finished(), [], "New run from a preset"),
        ("Runs, one trains", lambda: training(seconds), [], "New run from a preset"),
        ("Train, 2 steps a second", lambda: training(seconds), ["attach", "congyu"], "smoothed"),
        ("Train, nothing new", lambda: paused(), ["attach", "congyu"], "smoothed"),
        ("Train, before step 1", lambda: loading(), ["attach", "congyu"], "Counting tokens"),
        ("Train, over", lambda: finished(), ["attach", "congyu"], "identity"),
        ("Chat, nothing asked", lambda: finished(), ["chat", "congyu"], "Type a question"),
    ]
    print(f"{'screen':<26}{'size':>8}{'first paint, B':>16}{'then, B/s':>12}", flush=True)
    for name, prepare, arguments, text in cases:
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["XDG_STATE_HOME"] = folder
                made = prepare()
                worker = FakeWorker(made.run, lambda side, messages: ["Yes."]) if "chat" in arguments else None
                first, rate = measure(arguments, text, size, seconds)
                if worker is not None:
                    worker.close()
            print(f"{name:<26}{size[0]:>4}x{size[1]:<3}{first:>16,}{rate:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
