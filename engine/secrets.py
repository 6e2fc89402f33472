"""Tokens live in the environment and nowhere else: not in a journal, a log, an error or on a screen."""

from __future__ import annotations

import io
import os
from typing import TextIO

HIDDEN = "(secret)"
_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")


def secrets() -> list[str]:
    """The values that the environment holds in confidence, the longest first. Paths and short words are none."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) > 7 and not value.startswith("/") and any(word in name.upper() for word in _WORDS)
    }
    return sorted(found, key=len, reverse=True)


def redacted(text: str) -> str:
    """`text` without them: an error of a library may quote a token."""
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    return text


class Redacting(io.TextIOWrapper):
    """A text stream that writes no secret: what libraries print and log goes through it."""

    def write(self, text: str, /) -> int:
        super().write(redacted(text))
        return len(text)


def redacting(stream: TextIO) -> Redacting:
    """`stream` (sys.stdout, sys.stderr), from now on through `Redacting`; each write is on its way at once."""
    return Redacting(stream.buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
