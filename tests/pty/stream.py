"""What came to a terminal, byte by byte: text, what rich and Textual write of themselves, and what neither would."""

from __future__ import annotations

import re
import unicodedata

from tests.pty.texts import TOKEN

_SGR = r"\x1b\[(?:\d{1,3}(?:;\d{1,3})*)?m"
# A verb: colours, and what rich's Live and Progress draw over.
VERB = re.compile(rf"{_SGR}|\x1b\[\?25[hl]|\x1b\[(?:1?\d?\d)A|\x1b\[2K|\r|\n")
# The app: what Textual's driver and compositor write (textual/drivers/linux_driver.py, textual/_compositor.py): places,
# modes, questions about modes, the keyboard protocol, and the shape of the pointer.
APP = re.compile(
    rf"{_SGR}|\x1b\[\d{{1,3}};\d{{1,3}}H|\x1b\[\?(?:25|7|1000|1002|1003|1004|1006|1015|1016|1049|2004|2026|2048)[hl]"
    r"|\x1b\[\?(?:2026|2048)\$p|\x1b\[>25u|\x1b\]22;[a-z-]+\x07|\x1b\[<u|\x1b\[\?1016\$p|\r|\n"
)
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0d\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_STACKED = 30
MOST = 3  # findings named of one stream
_BROKEN = re.compile(r"(?<!⏎)\n\s*zq\d{5}z!line")


def text_of(raw: bytes, allowed: re.Pattern[str] = VERB) -> str:
    """The text alone, lines as they came."""
    return allowed.sub(lambda match: "\n" if match[0] == "\n" else "", raw.decode("utf-8", "replace"))


def tokens(raw: bytes) -> set[str]:
    """The tokens that came to the terminal."""
    return set(TOKEN.findall(raw.decode("utf-8", "replace")))


def findings(raw: bytes, allowed: re.Pattern[str] = VERB) -> list[str]:
    """Everything in a stream that is neither text nor one of the `allowed` sequences, with what stands around it."""
    found = []
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found.append(f"no UTF-8 at {error.start}: {raw[error.start - 20 : error.end + 20]!r}")
        text = raw.decode("utf-8", "replace")
    at = stacked = 0
    while at < len(text):
        letter = text[at]
        if letter < " " and (match := allowed.match(text, at)):
            at = match.end()
            continue
        category = unicodedata.category(letter)
        stacked = stacked + 1 if category in ("Mn", "Me") else 0
        if category in ("Cc", "Cf", "Cs", "Zl", "Zp") or stacked > _STACKED or _IGNORABLE.match(letter):
            found.append(f"{letter!a} in {text[max(0, at - 40) : at + 40]!a}")
        at += 1
    return found[:MOST]


def broken_lines(raw: bytes) -> list[str]:
    """Lines that a line feed of theirs began, where no ⏎ says that it is one."""
    return [match[0] for match in _BROKEN.finditer(text_of(raw))]
