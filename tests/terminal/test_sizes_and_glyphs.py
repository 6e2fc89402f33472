"""Every screen at sizes nobody works at, on terminals with few glyphs and no colours, and verbs in the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.pty import ROOT, Pty
from tests.tui.run_files import FakeRun

SMALL, LARGE, USUAL = ((20, 5), (1, 1)), (300, 100), (80, 24)


@pytest.fixture
def place(alone: Path, tiny_model: Path) -> Path:
    """Runs of two kinds, rows in Chinese, the tiny model in the starter's place."""
    from engine.models import starter

    starter.folder().symlink_to(tiny_model, target_is_directory=True)
    row = {"instruction": "你是谁？ — “who”", "output": "我是丛雨… \u200b\x1b[31m 😀"}
    (alone / "rows.jsonl").write_text(
        "".join(f"{json.dumps({**row, 'n': n}, ensure_ascii=False)}\n" for n in range(30))
    )
    going = FakeRun("丛雨 one")
    going.begin()
    going.steps(1, 60)
    going.alive()
    done = FakeRun("done")
    done.whole()
    return alone


# Keys, and what stands there then: every mode, the steps of a new run, and what opens over them.
WALK = (
    ("", "New run from a preset"),
    ("3", "smoothed"),
    ("l", "ftui logs"),
    ("l", "smoothed"),
    ("?", "The loss of each optimizer step"),
    ("\x1b", "tokens/s"),
    ("5", "Merged"),
    ("2", "ready"),
    ("\r", "rows.jsonl"),
    ("\r", "p50"),
    ("m", "not used: n"),
    ("\x1b", "p50"),
    ("\r", "learning rate"),
    ("w", "why"),
    ("\x1b", "learning rate"),
    ("\r", "enter Start"),
    ("\x10", "Search for commands"),
    ("\x1b", "enter Start"),
    ("6", "Doctor"),
)
ASCII_WAYS = ({"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"TERM": "linux"}, {"TERM": None})


def step(face: Pty, keys: str, text: str) -> None:
    if keys:
        face.type(keys)
    face.until(text)


def test_every_screen_in_ascii(place: Path) -> None:
    with Pty(["-m", "tui"], {"FTUI_ASCII": "1"}, cwd=place) as face:
        for keys, text in WALK:
            step(face, keys, text)
        assert max(face.raw) < 0x80
        # Text that is not ours is there by its numbers, ours by its ASCII forms.
        assert "<4f60><662f>" in face.screen.seen and "<1b>" in face.screen.seen and "+ ready" in face.screen.seen


def test_every_screen_at_every_size_and_back(place: Path) -> None:
    with Pty(["-m", "tui"], cwd=place) as face:
        for keys, text in WALK:
            step(face, keys, text)
            # The largest is slow to draw, so not for what only opens over a screen.
            for size in (*SMALL, *([LARGE] if keys in "3\r" else []), USUAL):
                face.resize(*size)
                face.until(text if size[1] >= 24 else "ftui needs 40x10, here is 20x5"[: size[0]])
            # The footer is drawn by itself: its text may be there a moment before the rest, which takes no keys until then.
            face.until(lambda: "ftui needs" not in str(face.screen))


def test_how_a_terminal_is_chosen(place: Path) -> None:
    """Locale, encoding and name of the terminal: ASCII where there is no more, colours only where there are some."""
    shown: dict[str, set[str]] = {}
    for env in (*ASCII_WAYS, {"NO_COLOR": "1"}, {"TERM": "of-no-name"}):
        with Pty(["-m", "tui", "attach", "done"], {"COLORTERM": None, **env}, cwd=place) as face:
            face.until("smoothed")
            few = env in ASCII_WAYS
            assert ("+ ready" in str(face.screen), max(face.raw) < 0x80) == (few, few), env
            shown[str(env)] = {number for line in face.screen.styles for style in line for number in style.split(";")}
    for env in ({"NO_COLOR": "1"}, {"TERM": None}):
        assert shown[str(env)] <= {"", "0", "1", "2", "4", "7"}
    assert "96" in shown["{'TERM': 'linux'}"] and "38" not in shown["{'TERM': 'of-no-name'}"]  # 16 colours


def test_no_screen_is_possible(place: Path) -> None:
    with Pty(["-m", "tui"], {"TERM": "dumb"}, cwd=place) as face:
        assert face.wait() == 2
        assert "this terminal cannot show the screens" in str(face.screen) and b"\x1b" not in face.raw
    done = subprocess.run([sys.executable, "-m", "tui"], stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, b"") and b"the screens need a terminal" in done.stderr


VERBS = (
    ["runs"],
    ["attach", "done"],
    ["data", "rows.jsonl"],
    ["data", "rows.jsonl", "--json"],
    ["plan", "--model", "starter", "--data", "rows.jsonl"],
    ["presets"],
    ["logs", "nowhere"],
    ["--help"],
)


def test_every_verb_in_ascii(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Most of it in one process: what is chosen is chosen for a process."""
    program = f"""
import sys
from engine.cli import main
for words in {VERBS!r}:
    main(words)
    print("=== over", flush=True)
"""
    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        cwd=place,
        env={**os.environ, "LANG": "C", "PYTHONPATH": str(ROOT)},
    )
    text = (said.stdout + said.stderr).decode("ascii")  # raises where it is not
    assert "Traceback" not in text and "<4f60>" in text
    document = json.loads(said.stdout.split(b"=== over")[3])
    assert "你是谁" in json.dumps(document, ensure_ascii=False) or document["rows"] == 30
