"""The terminal is as it was found, whatever ended the face. After SIGKILL nobody is there to put it right: `reset` is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.terminal.pty import Pty

HOME = "New run from a preset"
# Runs the face with an error in the action of n.
BROKEN = """
from tui.screens.runs import RunsScreen
def action_new(self): raise LookupError("injected")
RunsScreen.action_new = action_new
from tui.__main__ import main
main([])
"""


def as_found(face: Pty) -> bool:
    return not face.screen.left_on() and face.attributes() == face.before


@pytest.mark.parametrize(("way", "code"), [("quit", 0), ("TERM", 143), ("HUP", 129), ("an error", 1), ("unread", 143)])
def test_every_way_out_leaves_the_terminal_as_it_was(way: str, code: int, alone: Path) -> None:
    with Pty(["-c", BROKEN], cwd=alone) as face:
        face.until(HOME)
        assert {"alternate screen", "hidden cursor", "bracketed paste"} <= face.screen.left_on()
        assert face.attributes() != face.before
        if way == "quit":
            face.type("q")
        elif way == "an error":
            face.type("n")
        elif way == "unread":  # nobody reads, so the face has things to write left
            for _ in range(40):
                face.type("2\x1b1")
            os.kill(face.pid, signal.SIGTERM)
        else:
            os.kill(face.pid, getattr(signal, f"SIG{way}"))
        assert face.wait() == code
        assert as_found(face)
        if way == "an error":
            said = face.screen.seen
            assert "unexpected: LookupError: injected" in said and "Traceback" not in said


def test_a_signal_while_it_starts(alone: Path) -> None:
    """At each of some moments between the start of Python and the first screen."""
    for bytes_seen in (0, 1):
        with Pty(["-m", "tui"], cwd=alone) as face:
            face.until(lambda face=face, seen=bytes_seen: face.bytes >= seen)  # type: ignore[misc]
            os.kill(face.pid, signal.SIGTERM)
            assert face.wait() in (143, -signal.SIGTERM)
            assert as_found(face)


def test_to_the_shell_and_back(alone: Path) -> None:
    with Pty(["-m", "tui"], cwd=alone) as face:
        face.until(HOME)
        face.type("\x1a")
        face.until(lambda: Path(f"/proc/{face.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        face.read(0.2)
        assert as_found(face)
        os.kill(face.pid, signal.SIGCONT)
        face.until(HOME)
        assert "alternate screen" in face.screen.left_on()
        face.type("q")
        assert face.wait() == 0
        assert as_found(face)
