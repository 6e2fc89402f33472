"""Driving the app on a terminal: what it is sent is dealt with before the next is sent, and what it wrote is kept by screen."""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.pty import stream
from tests.pty.conftest import COUNT, World
from tests.pty.texts import Texts
from tests.terminal.pty import Pty

UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"
PAGE_UP, PAGE_DOWN, HOME, END = "\x1b[5~", "\x1b[6~", "\x1b[H", "\x1b[F"
ESCAPE, ENTER, TAB = "\x1b[27u", "\r", "\t"  # escape as the kitty protocol says it: a bare one is waited for
QUIET = "\x1b[57398u"  # f35: tests/pty/face.py answers it
SIZE = (200, 80) if COUNT > 1000 else (100, 40)
PAGES = max(2, COUNT // 1000)
PATIENCE = 60.0  # seconds for what a key leads to; only a failing test waits as long
_MARKUP = re.compile(r"\[@click|\[link=|\]\(javascript|https?://")


class Face:
    """The app in the world's folder on a terminal of `SIZE`; `wrote` has the bytes of each screen."""

    def __init__(self, world: World, folder: Path) -> None:
        self.wrote: dict[str, bytes] = {}
        self.clicks = 0
        self._began = time.monotonic()
        self._world = world
        self._texts = Texts(60_000)
        pipe = folder / "quiet"
        os.mkfifo(pipe)
        self._quiet = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self.terminal = Pty(["-m", "tests.pty.face"], cwd=world.folder, env={"FTUI_QUIET": str(pipe)}, size=SIZE)

    def __enter__(self) -> Face:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminal.__exit__(kind, error, trace)
        os.close(self._quiet)

    @property
    def shown(self) -> str:
        return str(self.terminal.screen)

    # keys ----------------------------------------------------------------------------------------------------------

    def keys(self, *keys: str) -> None:
        """One key after another, each dealt with before the next."""
        for key in keys:
            self.terminal.type(key + QUIET)
            self._settle()

    def move(self, *keys: str) -> None:
        """Keys of which only where they lead is wanted."""
        self.keys("".join(keys))

    def _settle(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            ready, _, _ = select.select([self._quiet, self.terminal.master], [], [], 1)
            while self.terminal.read(0):
                pass
            if self._quiet in ready:
                os.read(self._quiet, 1)
                return
            assert not self.terminal.ended(), f"the app has gone:\n{self.shown}"
            assert time.monotonic() < end, f"the app is busy for ever:\n{self.shown}"

    def until(self, *shows: str) -> None:
        """Until all of this stands on the screen."""
        for text in shows:
            self.terminal.until(text, PATIENCE)

    def go(self, key: str, *shows: str) -> None:
        """A key, and what it has to lead to."""
        self.keys(key)
        self.until(*shows)

    def at(self, word: str) -> None:
        """Until the cursor stands on a line with this word."""
        self.terminal.until(lambda: re.search(f"› .*{re.escape(word)}", self.shown), PATIENCE)

    def over(self) -> None:
        """The cursor over what is there: line by line, by pages, to the end and back."""
        self.keys(DOWN, DOWN, *[PAGE_DOWN] * PAGES, END, UP)
        self.move(HOME)

    def pasted(self) -> str:
        return f"\x1b[200~{self._texts().encode('utf-8', 'ignore').decode()}\x1b[201~"

    def click(self) -> None:
        """On what looks like markup or a link, wherever the screen shows it; the line of the cursor is not chosen by that."""
        for row, line in enumerate(self.shown.splitlines()):
            place = _MARKUP.search(line)
            if place and not line.lstrip().startswith("›"):
                self.keys("".join(f"\x1b[<0;{place.start() + 3};{row + 1}{kind}" for kind in "Mm"))
                self.clicks += 1

    # screens -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def screen(self, name: str, *shows: str, click: bool = False) -> Iterator[None]:
        """A stay on a screen that has to show `shows`. At its end what looks like markup is clicked on, if wanted: in a
        list that chooses the line, so that nobody knows where the app is afterwards."""
        begin = len(self.terminal.raw)
        self.keys("\x0c")  # ctrl+l: all of it is drawn anew
        self.until(*shows)
        yield
        if click:
            self.click()
        self.wrote[name] = self.wrote.get(name, b"") + bytes(self.terminal.raw[begin:])

    def home(self, number: int = 0) -> None:
        """The cursor on a run of the list, whatever is on the screen: escape leaves a line that is edited."""
        self.keys(ESCAPE, ESCAPE)
        self.go("1", "New run from a preset", "LoRA r8")  # the runs are read after the first picture
        self.go("/", "part of a name")  # leads to the runs, wherever a click has gone
        self.keys(ESCAPE)
        self.move(HOME, *[DOWN] * number)
        self.terminal.until(lambda: re.search(r"› .*zq\d", self.shown), PATIENCE)

    def leave(self) -> None:
        """q, and q again where something trains; then look at all that came."""
        self.home()
        self.terminal.type("qq")
        code = self.terminal.wait()
        raw = bytes(self.terminal.raw)
        print(
            self._world.told("screens", raw, self._began),
            f"\n{self.clicks} clicks on markup, {len(self.wrote)} screens:",
        )
        for name, wrote in self.wrote.items():
            print(f"  {name:<10} {len(wrote):>9,} bytes, {len(stream.tokens(wrote))} strings")
        assert code == 0
        assert not self.terminal.screen.left_on()
        found = stream.findings(raw, stream.APP)
        assert not found, "\n".join(found)
        assert self.clicks
        silent = [name for name, wrote in self.wrote.items() if not stream.tokens(wrote)]
        assert not silent, silent  # a screen that showed nothing of theirs was not tested
