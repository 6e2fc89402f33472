"""A process on a pseudo-terminal, and the little of a terminal that it takes to see what stands on it.

    with Pty(["-m", "tui"]) as face:
        face.until("No runs yet")
        face.type("q")
        face.wait()

Nothing sleeps for a fixed time: whoever waits, waits for something to be true, and fails after `PATIENCE`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.cells import cell_len

PATIENCE = 120.0  # seconds; only a failing test waits as long
ROOT = Path(__file__).parents[2]
_TOKEN = re.compile(
    r"\x1b\[([<>=?]?)([\d;:]*)([ -/]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]]|[\r\n\b\x07]"
)
# What a program switches on, by the sequence; each has to be off again when it has gone.
MODES = {
    "1049": "alternate screen",
    "1000": "mouse",
    "1002": "mouse",
    "1003": "mouse",
    "1006": "mouse",
    "1015": "mouse",
    "1016": "mouse",
    "2004": "bracketed paste",
    "1004": "focus reports",
    "2048": "size reports",
    "2026": "held updates",
}


class Screen:
    """The cells of a terminal of `columns` x `rows`, its modes, and how many bytes of text and of sequences came."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.styles = [[""] * columns for _ in range(rows)]
        self.x = self.y = 0
        self.style = ""
        self.on: set[str] = set()  # of MODES
        self.cursor = True
        self.wrap = True
        self.keyboard = 0  # how many times the kitty protocol was pushed and not popped
        self.seen = ""  # everything that was text
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def resize(self, columns: int, rows: int) -> None:
        for grid, blank in ((self.cells, " "), (self.styles, "")):
            del grid[rows:]
            for line in grid:
                del line[columns:]
                line.extend([blank] * (columns - len(line)))
            grid.extend([blank] * columns for _ in range(rows - len(grid)))
        self.columns, self.rows = columns, rows

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decode(data)
        self._rest = ""
        at = 0
        while at < len(text):
            match = _TOKEN.search(text, at)
            self._put(text[at : match.start() if match else len(text)])
            if match is None:
                break
            at = match.end()
            self._act(match)

    def _put(self, text: str) -> None:
        if "\x1b" in text:  # the beginning of a sequence whose end is still to come
            text, _, rest = text.partition("\x1b")
            self._rest = "\x1b" + rest
        self.seen += text
        for char in text:
            width = cell_len(char)
            if width and self.y < self.rows and self.x + width <= self.columns:
                self.cells[self.y][self.x : self.x + width] = [char, *[""] * (width - 1)]
                self.styles[self.y][self.x : self.x + width] = [self.style] * width
            self.x += width

    def _act(self, match: re.Match[str]) -> None:
        private, numbers, _, final = match.groups()
        token = match.group()
        if token == "\n":
            self.seen += "\n"
            self.x, self.y = (0 if "1049" not in self.on else self.x), min(self.y + 1, self.rows - 1)
        elif token == "\r":
            self.x = 0
        elif final == "H":
            row, column = ([int(part or 1) for part in numbers.split(";")] + [1, 1])[:2] if numbers else (1, 1)
            self.x, self.y = column - 1, row - 1
        elif final == "m" and not private:
            self.style = numbers if numbers not in ("", "0") else ""
        elif private == "?" and final in ("h", "l"):
            for number in numbers.split(";"):
                if number in MODES:
                    (self.on.add if final == "h" else self.on.discard)(number)
                    if number == "1049":
                        self.cells = [[" "] * self.columns for _ in range(self.rows)]
                elif number == "25":
                    self.cursor = final == "h"
                elif number == "7":
                    self.wrap = final == "h"
        elif final == "u" and private in ("<", ">"):
            # An empty stack stays empty (the protocol's document): each screen of the terminal has its own.
            self.keyboard = max(0, self.keyboard + (1 if private == ">" else -1))

    def left_on(self) -> set[str]:
        """What is not as a shell expects it."""
        found = {MODES[number] for number in self.on}
        if not self.cursor:
            found.add("hidden cursor")
        if not self.wrap:
            found.add("no line wrap")
        if self.keyboard:
            found.add("kitty keyboard")
        return found

    def __str__(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.cells)


class Pty:
    """`python ARGUMENTS` as the leader of a session of its own on a pseudo-terminal."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str | None] | None = None,
        size: tuple[int, int] = (80, 24),
        cwd: Path = ROOT,
        program: str = sys.executable,
    ) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
        environment["OMP_NUM_THREADS"] = "1"
        for name, value in (env or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        self.screen = Screen(*size)
        self.bytes = 0  # that came so far
        self.raw = bytearray()
        self.code: int | None = None
        self.master, slave = pty.openpty()
        self._slave: int | None = slave  # kept open, so that the terminal can be looked at when the process has gone
        self._set_size(size)
        self.before = termios.tcgetattr(slave)
        self.pid = os.fork()
        if not self.pid:
            with contextlib.suppress(BaseException):
                os.setsid()
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that were started by nohup ignore it
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
                for number in (0, 1, 2):
                    os.dup2(slave, number)
                os.closerange(3, 256)
                os.chdir(cwd)
                os.execve(program, [program, *arguments], environment)
            os._exit(127)

    def __enter__(self) -> Pty:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.hang_up()

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(columns, rows)
        self._set_size((columns, rows))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read(self, seconds: float, most: int = 65536) -> int:
        """Take what comes within `seconds`, at most one piece of `most` bytes; how many those were."""
        if self.master < 0 or not select.select([self.master], [], [], seconds)[0]:
            return 0
        try:
            data = os.read(self.master, most)
        except OSError as problem:
            if problem.errno != errno.EIO:
                raise
            return 0
        self.bytes += len(data)
        self.raw += data
        self.screen.feed(data)
        return len(data)

    def watch(self, seconds: float) -> int:
        """Look on for so long; how many bytes came."""
        before, end = self.bytes, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)
        return self.bytes - before

    def until(self, true: str | Callable[[], object], seconds: float = PATIENCE) -> None:
        """Look on until a text stands on the screen, or something is true."""
        end = time.monotonic() + seconds
        check = (lambda: true in str(self.screen)) if isinstance(true, str) else true
        while not check():
            if time.monotonic() > end or (self.ended() and not self.read(0)):
                raise AssertionError(
                    f"{true!r} did not come true; exit code {self.code}; on the screen:\n{self.screen}"
                )
            self.read(0.05)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, as subprocess gives it (negative: the signal); reads to the end meanwhile."""
        end = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < end, f"process {self.pid} does not end; on the screen:\n{self.screen}"
            self.read(0.05)
        while self.read(0.05):
            pass
        assert self.code is not None
        return self.code

    def attributes(self) -> list[object]:
        """What tcgetattr says of the terminal now."""
        assert self._slave is not None
        return list(termios.tcgetattr(self._slave))

    def hang_up(self) -> None:
        """Close the terminal, as a connection that breaks does."""
        for name in ("master", "_slave"):
            number = getattr(self, name)
            if number is not None and number >= 0:
                os.close(number)
        self.master, self._slave = -1, None


def family(pid: int) -> set[int]:
    """A process and all that descend from it and are still there, by pid."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(folder.name)] = int(fields[1])
    found = {pid} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
