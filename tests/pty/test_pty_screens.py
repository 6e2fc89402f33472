"""Screens of the real app on a real terminal, everything on them hostile: keys over all of it, clicks on its markup."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pty import stream
from tests.pty.conftest import COUNT, World
from tests.pty.texts import Texts
from tests.terminal.pty import Pty

UP, DOWN = "\x1b[A", "\x1b[B"
PAGE_UP, PAGE_DOWN, HOME, END = "\x1b[5~", "\x1b[6~", "\x1b[H", "\x1b[F"
ESCAPE, ENTER, TAB = "\x1b[27u", "\r", "\t"  # escape as the kitty protocol says it: a bare one is waited for
PAGES = max(2, COUNT // 250)
_MARKUP = re.compile(r"\[@click|\[link=|\]\(javascript|https?://")


class Face:
    """The app on a terminal of 80 x 24, and what each screen of it wrote."""

    def __init__(self, terminal: Pty) -> None:
        self.terminal = terminal
        self.wrote: dict[str, bytes] = {}
        self.clicks = 0
        self._texts = Texts(60_000)

    @contextmanager
    def screen(self, name: str, shows: str = "", click: bool = False) -> Iterator[None]:
        """A stay on a screen that has to show `shows`. At its end what looks like markup is clicked on, if wanted: in a
        list that chooses the line, so that nobody knows where the app is afterwards."""
        begin = len(self.terminal.raw)
        if shows:
            self.terminal.until(lambda: shows in str(self.terminal.screen), 30)
        self.settle()
        yield
        self.settle()
        if click:
            self.click()
        self.wrote[name] = self.wrote.get(name, b"") + bytes(self.terminal.raw[begin:])

    def settle(self, moment: float = 0.08) -> None:
        """Until nothing more comes for a moment."""
        end = time.monotonic() + 5
        while self.terminal.read(moment) and time.monotonic() < end:
            pass

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.terminal.type(key)
            self.settle()
        assert not self.terminal.ended(), f"the app has gone:\n{self.terminal.screen}"

    def until(self, *shows: str) -> None:
        """Until all of this stands on the screen."""
        self.terminal.until(lambda: all(text in str(self.terminal.screen) for text in shows))

    def go(self, key: str, shows: str) -> None:
        """Press a key until it has led to a screen: while another one is still opening it may be lost."""
        end = time.monotonic() + 60
        while shows not in str(self.terminal.screen):
            assert time.monotonic() < end, f"{key!r} does not lead to {shows!r}:\n{self.terminal.screen}"
            self.keys(key)
            wait = time.monotonic() + 3
            while shows not in str(self.terminal.screen) and time.monotonic() < wait:
                self.terminal.read(0.05)

    def at(self, word: str) -> None:
        """Until the cursor stands on a line with this word."""
        self.terminal.until(lambda: re.search(f"› .*{re.escape(word)}", str(self.terminal.screen)))

    def over(self, pages: int = PAGES) -> None:
        """The cursor over what is there: line by line, by pages, to the end and back."""
        self.keys(DOWN, DOWN, DOWN, *[PAGE_DOWN] * pages, END, UP, HOME)

    def paste(self) -> None:
        self.keys(f"\x1b[200~{self._texts().encode('utf-8', 'ignore').decode()}\x1b[201~")

    def click(self) -> None:
        """On what looks like markup or a link, wherever the screen shows it; the line of the cursor is not chosen by that."""
        for row, line in enumerate(str(self.terminal.screen).splitlines()):
            place = _MARKUP.search(line)
            if place and not line.lstrip().startswith("›"):
                for kind in "Mm":
                    self.terminal.type(f"\x1b[<0;{place.start() + 3};{row + 1}{kind}")
                self.clicks += 1
        self.settle()


def test_what_screens_write(world: World, tmp_path: Path) -> None:
    """Home, help, palette, Train, Chat, Export, Doctor, Model and Source, in one process."""
    began = time.monotonic()
    ready = next(run for run in world.runs if run.result)
    os.utime(ready.plan_path)
    with world.worker(), Pty(["-m", "tests.pty.face"], cwd=world.folder) as terminal:
        face = Face(terminal)
        of_runs(face)
        of_a_new_run(face)
        face.keys("q", "q")
        code = terminal.wait()
        raw = bytes(terminal.raw)
    print(world.told("screens", raw, began), f"\n{face.clicks} clicks on markup, {len(face.wrote)} screens:")
    for name, wrote in face.wrote.items():
        print(f"  {name:<10} {len(wrote):>9,} bytes, {len(stream.tokens(wrote))} strings")
    assert code == 0
    assert not terminal.screen.left_on()
    found = stream.findings(raw, stream.APP)
    assert not found, "\n".join(found)
    assert face.clicks
    silent = [name for name, wrote in face.wrote.items() if not stream.tokens(wrote)]
    assert not silent, silent  # a screen that showed nothing of theirs was not tested


def of_runs(face: Face) -> None:
    """Home, help, palette, and the screens of runs in every state."""
    with face.screen("help", "New run from a preset"):
        face.keys("?")
        face.until("Keys")
        face.keys(PAGE_DOWN, ESCAPE)
        face.until("New run from a preset")
    with face.screen("palette"):
        face.keys("\x10")
        face.until("Search for commands")
        face.paste()
        face.keys(ESCAPE)
        face.until("New run from a preset")
    with face.screen("home", click=True):
        face.over()
        face.keys("p")
        face.over()
        face.keys("/")
        face.paste()
        face.keys(ESCAPE)
    for number in range(6):
        home(face, number)
        face.go(ENTER, "$ ftui attach")
        with face.screen("train", "$ ftui attach", click=True):
            face.keys("y", "l")
            face.over()
            face.keys("l", "?", ESCAPE)
    home(face)
    face.go(ENTER, "$ ftui attach")
    face.go("4", "$ ftui chat")
    with face.screen("chat", "Type a question", click=True):
        face.keys("h", "i", ENTER)
        face.until("tokens/s")
        face.keys(*[PAGE_UP] * PAGES, *[PAGE_DOWN] * PAGES, TAB, TAB)
        face.keys("\x13")
        face.paste()
        face.keys(ENTER, "error", ENTER, ESCAPE)
        face.paste()
        face.keys(ENTER, UP, ESCAPE)
    face.keys(ESCAPE)
    home(face, 6)
    face.go(ENTER, "$ ftui attach")
    face.go("5", "$ ftui export")
    with face.screen("export", "$ ftui export", click=True):
        face.keys(DOWN, UP, TAB, END, ENTER)
        face.terminal.until(lambda: "largest difference" in str(face.terminal.screen))
    face.go("6", "checks failed")
    with face.screen("doctor", "checks failed", click=True):
        face.over()


def home(face: Face, number: int = 0) -> None:
    """The cursor on a run of the list: a click may have gone to the presets."""
    face.keys(ESCAPE)  # a line that is edited would take the key of home for a letter
    face.settle(0.4)
    face.go("1", "New run from a preset")
    face.go("/", "part of a name")
    face.keys(ESCAPE)
    face.terminal.until(lambda: "part of a name" not in str(face.terminal.screen))
    names = re.findall(r"zq\d{5}z", str(face.terminal.screen))
    face.keys(HOME, *[DOWN] * number)
    face.at(names[0] if not number else "")


def of_a_new_run(face: Face) -> None:
    """The first steps of a new run."""
    begin(face)
    with face.screen("model", "Another …", click=True):
        face.over()
        face.keys("/")
        face.paste()
        face.keys(ENTER, ESCAPE)
    begin(face)
    face.keys(ENTER)
    with face.screen("source", "in this folder", click=True):
        face.over()
        face.keys("/")
        face.paste()
        face.keys(ENTER, ESCAPE)
    home(face)


def begin(face: Face) -> None:
    """A new run, the cursor on the first model."""
    home(face)
    face.go("n", "hub id, folder or .gguf file")
    face.keys(HOME)
    face.at("SmolLM2")
