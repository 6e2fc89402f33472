"""Screens of the real app on a real terminal, everything on them hostile: keys over all of it, clicks on its markup."""

from __future__ import annotations

import os
from pathlib import Path

from tests.pty.conftest import World
from tests.pty.driving import DOWN, END, ENTER, ESCAPE, HOME, LEFT, PAGE_DOWN, PAGE_UP, PAGES, RIGHT, TAB, UP, Face


def test_what_the_screens_of_runs_write(world: World, tmp_path: Path) -> None:
    """Home, help, palette, Train, Chat, Compare, Export and Doctor, in one process."""
    ready = next(run for run in world.runs if run.result)
    os.utime(ready.plan_path)
    with world.worker(), Face(world, tmp_path) as face:
        face.until("New run from a preset")
        of_home(face)
        of_runs(face)
        face.leave()


def of_home(face: Face) -> None:
    with face.screen("help", "New run from a preset"):
        face.go("?", "Keys")
        face.keys(PAGE_DOWN, ESCAPE)
    with face.screen("palette", "New run from a preset"):
        face.go("\x10", "Search for commands")
        face.keys(face.pasted(), ESCAPE)
    with face.screen("home", "New run from a preset", click=True):
        face.over()
        face.keys("p")
        face.over()
        face.keys("/", face.pasted(), ESCAPE)


def of_runs(face: Face) -> None:
    """Screens of runs in every state."""
    for number in range(6):
        face.home(number)
        face.go(ENTER, "$ ftui attach")
        with face.screen("train", click=True):
            face.keys("y", "l")
            face.over()
            face.keys("l", "?", ESCAPE)
    face.home()
    face.go(ENTER, "$ ftui attach")
    face.go("4", "$ ftui chat")
    with face.screen("chat", "Type a question", click=True):
        face.keys("h", "i")
        face.go(ENTER, "tokens/s")
        face.keys(*[PAGE_UP] * PAGES, *[PAGE_DOWN] * PAGES, TAB, TAB)
        face.keys("\x13", face.pasted(), ENTER, "error", ENTER, ESCAPE, face.pasted(), ENTER, UP, ESCAPE)
    face.keys(ESCAPE)
    face.home()
    face.go("m", "a Answers")
    with face.screen("compare", click=True):
        face.keys(PAGE_DOWN, "n", TAB, face.pasted(), TAB, face.pasted(), ESCAPE)
        face.go("a", "in order of the rows")
        face.keys(*[RIGHT] * 3, "w", PAGE_DOWN, "o", LEFT, ESCAPE)
        face.go("b", "Left better")
        face.keys(LEFT, "t", "\x7f", RIGHT, "w", "u", "u", ESCAPE)
    face.home(6)
    face.go(ENTER, "$ ftui attach")
    face.go("5", "$ ftui export")
    with face.screen("export", click=True):
        face.keys(DOWN, UP, TAB, END)
        face.go(ENTER, "adapter in")  # what follows stands behind a name that may fill the screen
    face.go("6", "checks failed")
    with face.screen("doctor", click=True):
        face.over()
        face.keys(HOME)
