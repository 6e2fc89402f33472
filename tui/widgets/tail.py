"""The end of a log file, followed while it is on screen."""

from __future__ import annotations

import os
from pathlib import Path

from textual.widgets import Log

from engine.text import safe

WINDOW = 64 * 1024  # bytes shown of what was there before


def lines_of(raw: bytes) -> list[str]:
    """Log bytes as safe lines. Of a line that was drawn over with carriage returns (a progress bar) the last state stays."""
    text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
    return [safe(line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]


class Tail(Log):
    """Follows `path`. Call `poll` now and then; a missing file is an empty one."""

    DEFAULT_CSS = """
    Tail { height: 1fr; background: transparent; }
    Tail:focus { background: transparent; background-tint: transparent; }
    """
    HELP = "What the training libraries printed (worker.log). The newest is at the end."

    def __init__(self, path: Path, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(highlight=False, max_lines=5000, auto_scroll=True, id=id, classes=classes)
        self.path = path
        self._offset = -1
        self._rest = b""

    def poll(self) -> None:
        """Add the whole lines that came since the last time."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if self._offset < 0 or size < self._offset:
                    self.clear()
                    self._rest = b""
                    self._offset = max(0, size - WINDOW)
                    file.seek(self._offset)
                    if self._offset:
                        self._offset += len(file.readline())  # it begins within a line
                file.seek(self._offset)
                block = file.read(4 * WINDOW)
        except OSError:
            return
        self._offset += len(block)
        whole, feed, self._rest = (self._rest + block).rpartition(b"\n")
        if feed:
            self.write_lines(lines_of(whole))
