"""Every glyph that ftui draws, and its ASCII form where a terminal cannot show it.

Screens and verbs draw with the glyphs they want. What a terminal can show is chosen once, by `choose`, when a face
starts; from then on the last door before the terminal (`encode` for verbs, `drawn` for screens) exchanges glyphs cell
for cell, so that no layout changes. Foreign text is numbered before that, by `engine.text.safe`, where there is room for
what a number takes; whatever reaches the last door all the same becomes one ? a cell.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from pathlib import Path

from rich.cells import cell_len

# One cell for one cell. Lines and bars by what they look like, marks by what they say.
ASCII: dict[str, str] = {
    "…": "~",
    "✓": "+",
    "✗": "x",
    "●": "*",
    "○": "o",
    "◆": "@",
    "■": "#",
    "·": "-",
    "•": "-",
    "✎": "e",
    "⋯": "~",
    "→": ">",
    "←": "<",
    "↑": "^",
    "↓": "v",
    "›": ">",
    "⏎": "$",
    "⟦": "[",
    "⟧": "]",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "–": "-",
    "—": "-",
    "×": "x",
    "₂": "2",
    "│": "|",
    "┃": "|",
    "─": "-",
    "━": "=",
    "┄": "-",
    "┌": "+",
    "┐": "+",
    "└": "+",
    "┘": "+",
    "├": "+",
    "┤": "+",
    "┬": "+",
    "┴": "+",
    "┼": "+",
    "╭": "+",
    "╮": "+",
    "╯": "+",
    "╰": "+",
    "╸": "=",
    "╺": "=",
    "▏": "|",
    "▎": "|",
    "▍": "|",
    "▌": "=",
    "▋": "=",
    "▊": "#",
    "▉": "#",
    "█": "#",
    "▁": "_",
    "▂": "_",
    "▃": "_",
    "▄": "=",
    "▅": "=",
    "▆": "=",
    "▇": "#",
    "▔": "-",
    "▀": "=",
    "▐": "=",
    "▓": "X",
    "▒": "%",
    "░": ":",
    "▚": "\\",
    "▞": "/",
    "\xa0": " ",
    "◼": "#",
    "✂": "%",
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True)),
}


def _braille(bits: int) -> str:
    """A cell of 2 x 4 dots as the character whose ink lies nearest: its height for a level piece, else its slope."""
    left = [row for row, bit in enumerate((0x01, 0x02, 0x04, 0x40)) if bits & bit]
    right = [row for row, bit in enumerate((0x08, 0x10, 0x20, 0x80)) if bits & bit]
    rows = left + right
    if not rows:
        return " "
    top, bottom = min(rows), max(rows)
    if bottom - top <= 1:
        return {0: "'", 1: "-", 2: "-", 3: "_"}[top if bottom < 3 else bottom]
    if left and right:
        fall = (sum(right) / len(right)) - (sum(left) / len(left))
        if abs(fall) >= 0.5:
            return "\\" if fall > 0 else "/"
    return "|" if bottom - top == 3 else ":"


ASCII.update({chr(0x2800 + bits): _braille(bits) for bits in range(256)})

_PLAIN_TERMINALS = ("linux", "vt", "ansi", "dumb", "unknown")  # what TERM begins with where there are few glyphs
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_only = False


def ascii_only() -> bool:
    """Whether nothing but ASCII may reach the terminal."""
    return _only


def choose() -> None:
    """Look at the environment once, when a face starts, and make the standard streams fit.

    FTUI_ASCII=1 is ASCII, FTUI_ASCII=0 is not. Without it ASCII is taken where the locale, PYTHONIOENCODING or the
    terminal's own name says that there is no UTF-8. Where no locale is named at all (a bare container) nothing is said.
    """
    global _only
    _only = _wanted()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if _only:
                stream.reconfigure(encoding="ascii", errors="ftui")
            else:
                stream.reconfigure(errors="replace")


def _wanted() -> bool:
    said = os.environ.get("FTUI_ASCII", "")
    if said:
        return said != "0"
    if sys.__stdout__ is not None:
        if not _is_utf8(sys.__stdout__.encoding):
            return True
        if sys.__stdout__.isatty() and os.environ.get("TERM", "dumb").startswith(_PLAIN_TERMINALS):
            return True
    locale = _locale()
    return bool(locale) and not _is_utf8(locale.partition(".")[2].partition("@")[0] or "ascii")


def _is_utf8(charset: str) -> bool:
    try:
        return codecs.lookup(charset).name == "utf-8"
    except LookupError:
        return False


def _locale() -> str:
    """The locale that decides on characters, as the person set it; "" where nothing is set.

    In the locale C Python sets LC_CTYPE=C.UTF-8 for itself (PEP 538), which says nothing about the terminal: the
    kernel still has the environment that the process was started with.
    """
    environ = os.environ
    try:
        given = Path("/proc/self/environ").read_bytes()
    except OSError:
        given = b"LC_CTYPE="
    names = ("LC_ALL", "LC_CTYPE", "LANG") if b"LC_CTYPE=" in given else ("LC_ALL", "LANG")
    return next((environ[name] for name in names if environ.get(name)), "")


def drawn(char: str) -> str:
    """What stands for one character in ASCII, as wide as it is: a glyph's form, ? where there is none."""
    if char.isascii():
        return char
    return ASCII.get(char) or "?" * cell_len(char)


def foreign(text: str) -> str:
    """Text that is not ours, in ASCII: a glyph of the table stays for the last door, the rest is shown by its number."""
    return _NOT_ASCII.sub(_number, text)


def _number(match: re.Match[str]) -> str:
    char, code = match[0], ord(match[0])
    if char in ASCII:
        return char
    if 0x2400 <= code <= 0x2421:  # the mark of a control character
        return f"<{0x7F if code == 0x2421 else code - 0x2400:02x}>"
    return f"<{code:04x}>"


def _encode(error: UnicodeError) -> tuple[str, int]:
    """The codec error handler "ftui": what a verb prints, cell for cell."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(drawn, error.object[error.start : error.end])), error.end


codecs.register_error("ftui", _encode)
