"""Tokens live in the environment, or in the file where the hub's client keeps one, and nowhere else: not in a journal, a
log, an error or on a screen."""

from __future__ import annotations

import io
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from engine.paths import hub_home

HIDDEN = "(secret)"
_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY")
_SHORTEST = 8  # characters; shorter values ("false", "1") are settings
_FILE_LIMIT = 1 << 16  # bytes of a token file
# A password in an address, a header, a token of the hub: known by their form, wherever they come from.
_FORMS = re.compile(
    r"(?<=://)[^\s/?#@:]*:[^\s/?#@]+(?=@)|(?<=bearer )[\w.~+/-]{16,}=*|(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{30,}",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"://[^\s/?#@:]*:([^\s/?#@]+)@")


def secrets() -> list[str]:
    """The values that are held in confidence, the longest first. Paths and short words are none."""
    found = {
        value
        for name, value in os.environ.items()
        if not value.startswith("/") and any(word in name.upper() for word in _WORDS)
    }
    found |= {password for value in os.environ.values() for password in _PASSWORD.findall(value)}
    for path in _files():
        found |= _kept(str(path), *_state(path))
    return sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)


def redacted(text: str) -> str:
    """`text` without them: an error of a library may quote a token."""
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    return _FORMS.sub(HIDDEN, text)


def _files() -> list[Path]:
    """Where the hub's client keeps tokens (huggingface_hub, constants.py)."""
    try:
        token = Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").expanduser()
        return [token, token.with_name("stored_tokens")]
    except RuntimeError:  # nobody's home folder
        return []


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _kept(path: str, _changed: int, size: int) -> frozenset[str]:
    """The tokens in a file of the hub's client: one word, or lines of `hf_token = …`."""
    if not size:
        return frozenset()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = file.read(_FILE_LIMIT).splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.rpartition("=")[2].strip() for line in lines if not line.startswith("["))


class Redacting(io.TextIOWrapper):
    """A text stream that writes no secret: what libraries print and log goes through it."""

    def write(self, text: str, /) -> int:
        super().write(redacted(text))
        return len(text)


def redacting(stream: TextIO) -> Redacting:
    """`stream` (sys.stdout, sys.stderr), from now on through `Redacting`; each write is on its way at once."""
    return Redacting(stream.buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
