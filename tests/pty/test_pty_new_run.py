"""The steps of a new run on a real terminal, with what is shown over them; all rows, columns, models and files are hostile."""

from __future__ import annotations

from pathlib import Path

from tests.pty import places, stream
from tests.pty.conftest import COUNT, World
from tests.pty.driving import DOWN, END, ENTER, ESCAPE, HOME, LEFT, PAGE_DOWN, RIGHT, TAB, Face
from tests.pty.texts import TOKEN
from tui.screens.source import is_data

# How many strings stand in conversations that are read one after another, and how many fit on a screen.
TALKED, TURNS = COUNT if COUNT > 1000 else COUNT // 4, 10


def test_what_the_screens_of_a_new_run_write(world: World, tmp_path: Path) -> None:
    """Model, Source, Data, Mapping, Bad rows, Fixing, Reading, Plan, Why, Fits, Gate, Compare and Review."""
    talks = places.talks(world.folder, world.texts, TALKED, TURNS)
    with Face(world, tmp_path) as face:
        face.until("New run from a preset")
        of_choosing(face)
        of_data(face, world)
        of_reading(face, talks)
        of_plan(face, world)
        face.leave()


def of_choosing(face: Face) -> None:
    begin(face)
    with face.screen("model", "Another …", click=True):
        face.over()
        face.keys("/", face.pasted(), ENTER, ESCAPE)
    begin(face)
    face.go(ENTER, "in this folder")
    with face.screen("source", click=True):
        face.over()
        face.keys("/", face.pasted(), ENTER, ESCAPE)


def of_data(face: Face, world: World) -> None:
    """Rows of other shapes, and rows that cannot be used."""
    choose(face, world.files["wrong"], "can be used")
    with face.screen("no data"):
        face.keys(DOWN)
    for name in ("keys", "columns"):
        choose(face, world.files[name])
        with face.screen("data"):
            face.keys("n", "a", "o")
        face.go("m", "Mapping")
        with face.screen("mapping", "role"):
            face.keys(DOWN, RIGHT, RIGHT, LEFT, HOME, "t", face.pasted(), ENTER, ESCAPE, ESCAPE)
    choose(face, world.files["mixed"], "cannot be used")
    face.keys(TAB, HOME)
    face.go("f", "cannot be used (")
    with face.screen("bad rows"):
        face.over()
    face.keys("s")
    choose(face, world.files["holders"])
    with face.screen("fixing"):
        face.keys("f", face.pasted(), ENTER, ESCAPE)


def of_reading(face: Face, talks: Path) -> None:
    """Every row of a file, the text on the whole screen."""
    choose(face, talks, "p50")
    face.go("p", "Whole screen")
    with face.screen("reading"):
        face.keys(*["n"] * (TALKED // TURNS))
    assert len(stream.tokens(face.wrote["reading"])) > TALKED / 4


def of_plan(face: Face, world: World) -> None:
    """The plan of a preset of theirs, whose reasons are hostile too."""
    face.home()
    face.keys("p", END, ENTER)
    choose(face, world.rows, "p50", fresh=False)
    with face.screen("data", click=True):
        face.keys("n", "n", "b", "o", "o", "a", TAB, DOWN, ENTER, "n", ESCAPE)
    face.go(ENTER, "learning rate")
    with face.screen("plan"):
        face.over()
        for key in ("e", "p"):
            face.keys(key, face.pasted(), ENTER, ESCAPE)
    for name, key, shows, then in (
        ("why", "w", "Source:", DOWN),
        ("fits", "o", "rows at once", DOWN),
        ("gate", "t", "What is it for?", DOWN),
        ("compare", "v", "this plan against", RIGHT),
    ):
        if name == "why":
            face.move(HOME, DOWN, DOWN, DOWN)
            face.at("epochs")
        face.go(key, shows)
        with face.screen(name):
            face.keys(*[then] * 4)
            if name == "gate":  # what it says is all ours; what is typed is not
                face.keys("d", face.pasted(), ENTER, ESCAPE)
        face.go(ESCAPE, "learning rate")
    face.go("g", "stage: sft")
    with face.screen("review", click=True):
        face.keys("n", face.pasted(), ENTER, TAB, *[PAGE_DOWN] * 3)
    face.keys(ENTER)


def begin(face: Face) -> None:
    """A new run, the cursor on the first model."""
    face.home()
    face.go("n", "hub id, folder or .gguf file")
    face.keys(HOME)
    face.at("SmolLM2")


def choose(face: Face, path: Path, *shows: str, fresh: bool = True) -> None:
    """Take a file of the current folder in the list of sources, in a new run or in the one that asks for it."""
    if fresh:
        begin(face)
        face.keys(ENTER)
    face.until("in this folder")
    files = sorted(file for file in path.parent.iterdir() if is_data(file) and file.is_file())
    face.move(HOME, *[DOWN] * files.index(path))
    face.at(TOKEN.findall(path.name)[0])
    face.keys(ENTER)
    face.until(*shows)
