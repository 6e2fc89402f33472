"""Little goes over the line: nothing while nothing changes, and a line that is too slow gets the newest picture last."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.terminal.pty import Pty
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun

TOTAL = 4000  # optimizer steps
# A machine whose figures never change, in the face's process.
STILL = """
import sys
from engine import hardware
from engine.hardware import Hardware
machine = Hardware(cpu="Test", cores=2, memory_total=25_000_000_000, memory_free=20_000_000_000, disk_free=10**12)
hardware.read = lambda: machine
import tui.app
from tui.app import FtuiApp
from tui.__main__ import main
tui.app.LOOK = 0.5  # so that three of them cover a second, the slowest of the other intervals
looks = FtuiApp._read_machine
def look(self):
    looks(self)
    self.call_from_thread(self.bell)  # so that whoever looks on knows that another interval has gone
FtuiApp._read_machine = look
main(sys.argv[1:])
"""


def settled(face: Pty) -> None:
    """Wait until nothing stands between the bells of three looks; where something is sent all the time, this never comes."""
    face.raw.clear()
    face.until(lambda: face.raw.endswith(b"\x07\x07\x07"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [([], "New run from a preset"), (["attach", "congyu"], "smoothed"), (["chat", "congyu"], "Type a")],
)
def test_nothing_is_sent_while_nothing_changes(arguments: list[str], text: str, alone: Path) -> None:
    """Over looks at the machine, at the runs, at the journal and at the worker."""
    run = FakeRun("congyu")
    run.whole()
    with FakeWorker(run.run, lambda side, messages: ["Yes."]), Pty(["-c", STILL, *arguments], cwd=alone) as face:
        face.until(text)
        settled(face)


def test_a_step_costs_little(alone: Path) -> None:
    """A new step changes some figures and a dot, not the chart, and what is on the screen comes out whole."""
    run = FakeRun("congyu")
    run.alive()
    run.begin(TOTAL)
    run.steps(1, 300, TOTAL)
    with Pty(["-c", STILL, "attach", "congyu"], cwd=alone) as face:
        face.until("step 300/")
        before = face.bytes
        for number in range(301, 321):
            run.steps(number, number, TOTAL)
            face.until(f"step {number}/")
        assert (face.bytes - before) / 20 < 600  # Textual alone: 12,000
        settled(face)
        drawn = str(face.screen)
        face.type("\x0c")  # everything anew, whatever was believed to be there
        face.until(lambda: face.raw.count(b"\x1b[1;1H"))
        settled(face)
        assert str(face.screen) == drawn


def test_a_slow_line_gets_the_newest_picture_and_holds_nobody_up(alone: Path) -> None:
    run = FakeRun("congyu")
    run.alive()
    run.begin(TOTAL)
    run.steps(1, 10, TOTAL)
    with Pty(["-c", STILL, "attach", "congyu"], cwd=alone, size=(120, 40)) as face:
        face.until("smoothed")
        for number in range(11, 1200, 10):
            run.steps(number, number + 9, TOTAL)
            face.type("y")  # the axis: the whole chart changes
            face.read(0.05, 50)  # a kilobyte a second
        before = face.bytes
        face.until("step 1200/")
        assert face.bytes - before < 120 * 40 * 40  # some pictures, not all of them
        for _ in range(300):
            face.type("y")
        os.kill(face.pid, signal.SIGTERM)
        assert face.wait() == 143  # without anybody who reads
