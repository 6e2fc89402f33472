"""A paste is text, whatever it holds and however it comes in pieces; keys are keys."""

from __future__ import annotations

import random

import pytest
from textual import events

from tests.pty.texts import Texts
from tui.typed import Typed


def keys_and_pastes(pieces: list[str]) -> tuple[list[str], list[str]]:
    parser = Typed()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return (
        [event.key for event in found if isinstance(event, events.Key)],
        [event.text for event in found if isinstance(event, events.Paste)],
    )


def cut(text: str, chance: random.Random) -> list[str]:
    pieces = []
    while text:
        size = chance.choice((1, 2, 3, 5, 8, 200))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@pytest.mark.parametrize("seed", range(4))
def test_nothing_of_a_paste_is_a_key(seed: int) -> None:
    """Cut anywhere (outside of the marks around it: a lone ESC is the key of that name after a moment)."""
    chance, texts = random.Random(seed), Texts(seed * 1000)
    for text in texts.many(40):
        pasted = text.replace("\x00", "").encode("utf-8", "replace").decode()
        keys, pastes = keys_and_pastes(["a", "\x1b[200~", *cut(pasted, chance), "\x1b[2", "01~", "b", "\x1b[A"])
        assert keys == ["a", "b", "up"]
        assert pastes == [pasted.replace("\x1b", "␛")]


def test_one_after_another() -> None:
    stream = "\x1b[Bx\x1b[200~one\x1b[201~\x1b[200~\x1b[6~\x1b[201~y\x1b[200~"
    assert keys_and_pastes([stream, "\x1b[20", "0~\x1b[201~z"]) == (["down", "x", "y", "z"], ["one", "␛[6~", "␛[200~"])
