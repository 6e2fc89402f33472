"""The door alone: what has passed it says nothing to a terminal, and what has not is noticed by the tests of this folder."""

from __future__ import annotations

import json
import unicodedata

from engine.text import escaped, one_for_one, safe
from tests.pty import stream
from tests.pty.texts import Texts

HARMLESS = {"So", "Sm", "Sk", "Lo", "Lm", "Ll", "Lu", "Nd", "Po", "Ps", "Pe", "Pd", "Pc", "Zs", "Sc", "Mn", "Mc", "Me"}


def test_nothing_passes_the_door() -> None:
    noticed = 0
    for text in Texts().many(300):
        assert not stream.findings(safe(text).encode())
        assert not stream.findings(safe(text, newlines=True).encode())
        field = one_for_one(text)
        assert len(field) == len(text)
        assert not stream.findings(field.encode())
        document = escaped(json.dumps({text: text}, ensure_ascii=False))
        assert not stream.findings(document.encode())
        assert json.loads(document) == {text: text}
        control = any(unicodedata.category(letter) not in HARMLESS and letter not in "\r\n" for letter in text)
        noticed += control
        assert not control or stream.findings(text.encode("utf-8", "replace")) or "\ud800" in text
    assert noticed > 150
