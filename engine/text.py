"""Foreign text made safe to show: the one door.

Every string that comes from data, models, the hub, logs, errors or generation passes `safe` before it reaches a widget
or a terminal, and every JSON document that is printed passes `escaped`. Characters that a terminal could act on, that
change the order of others or that cannot be seen become visible marks; nothing is dropped, so that what a person sees is
what is there. Nothing is kept from one call to the next, so that an answer can be made safe piece by piece.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from rich.cells import cell_len, set_cell_size

from engine import glyphs

# What is not shown as it is. C0, DEL and C1 control a terminal; a lone surrogate cannot be written to one; separators of
# lines and paragraphs break the line; the rest is Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt): it
# cannot be seen, hides text, or reorders what is on the screen ("Trojan Source"). U+FE0E and U+FE0F choose between two
# pictures of an emoji and stay.
_UNSAFE = (
    range(0x20),
    range(0x7F, 0xA0),
    range(0xAD, 0xAE),
    range(0x34F, 0x350),
    range(0x61C, 0x61D),
    range(0x115F, 0x1161),
    range(0x17B4, 0x17B6),
    range(0x180B, 0x1810),
    range(0x200B, 0x2010),
    range(0x2028, 0x202F),
    range(0x2060, 0x2070),
    range(0x3164, 0x3165),
    range(0xD800, 0xE000),
    range(0xFE00, 0xFE0E),
    range(0xFEFF, 0xFF00),
    range(0xFFA0, 0xFFA1),
    range(0xFFF0, 0xFFFC),
    range(0x13430, 0x13440),
    range(0x1BCA0, 0x1BCA4),
    range(0x1D173, 0x1D17B),
    range(0xE0000, 0xE1000),
)
_MARKS = {code: f"<{code:04x}>" for codes in _UNSAFE for code in codes}
_MARKS |= {code: f"<{code:02x}>" for code in range(0x80, 0xA0)}
_MARKS |= {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡"}
_ONE_LINE = {**_MARKS, 0x09: " ", 0x0A: "⏎", 0x0D: "␍"}
_MANY_LINES = {**_MARKS, 0x09: "    "}
del _MANY_LINES[0x0A]
_UNSAFE_CHARACTER = re.compile("[" + "".join(f"{chr(codes[0])}-{chr(codes[-1])}" for codes in _UNSAFE) + "]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# Marks on top of each other take no width, so that no limit of columns holds them back. More than 30 stand on one letter
# in no language (Unicode Standard Annex 15, Stream-Safe Text Format). Latin and CJK text has none to count.
_MOST_STACKED = 30
_MAY_STACK = re.compile(rf"[^\x00-\u02ff\u3100-\ua66e\uac00-\ud7a3]{{{_MOST_STACKED + 1},}}")


def safe(text: object, *, newlines: bool = False) -> str:
    """`text` with every character that a terminal could act on replaced by a visible mark.

    newlines  keep line feeds as they are; otherwise each becomes ⏎
    """
    shown = str(text).translate(_MANY_LINES if newlines else _ONE_LINE)
    if shown.isascii():
        return shown
    shown = _unstacked(shown, lambda code: f"<{code:04x}>")
    return glyphs.foreign(shown) if glyphs.ascii_only() else shown


def _unstacked(text: str, written: Callable[[int], str]) -> str:
    """`text` with the marks on one letter beyond `_MOST_STACKED` written out."""

    def run(match: re.Match[str]) -> str:
        found, stacked = [], 0
        for letter in match[0]:
            stacked = stacked + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
            found.append(letter if stacked <= _MOST_STACKED else written(ord(letter)))
        return "".join(found)

    return _MAY_STACK.sub(run, text)


def one_for_one(text: str) -> str:
    """`text` safe to show with as many characters as before, for a field in which a person edits it."""
    shown = _UNSAFE_CHARACTER.sub(lambda match: mark if len(mark := _ONE_LINE[ord(match[0])]) == 1 else "�", text)
    return _unstacked(shown, lambda _: "�")


def escaped(document: str) -> str:
    r"""A JSON document of one line with every such character as \uXXXX: the same to a program, and safe to print."""
    unsafe = _NOT_ASCII if glyphs.ascii_only() else _UNSAFE_CHARACTER
    return _unstacked(unsafe.sub(lambda match: _json(ord(match[0])), document), _json)


def _json(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04x}"


def shorten(text: str, width: int) -> str:
    """`text` cut to at most `width` terminal cells, with … where something was left out."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def duration(seconds: float) -> str:
    """A time as a person says it: "about 3 min", "40 s", "2.5 h"."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    if seconds < 172_800:
        return f"about {seconds / 3600:.1f} h"
    return f"about {seconds / 86_400:.1f} days"


def seconds_of(text: str) -> float:
    """ "90", "30m", "2h" or "3d" in seconds. Raises ValueError with what it may look like."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*", text.lower())
    if match is None or not float(match[1]):
        raise ValueError("a time looks like 30m, 2h or 3d")
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}[match[2] or "s"]


def size(count: float) -> str:
    """A number of bytes in the unit that reads best: "545 MB", "2.1 GB" (decimal units)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{count:.0f} B"


def ago(seconds: float) -> str:
    """How long ago something was: "now", "5 min ago", "2 h ago", "3 d ago"."""
    for unit, scale in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{int(seconds // scale)} {unit} ago"
    return "now"


def plural(count: int, word: str, one: str = "", many: str = "") -> str:
    """ "1 row", "3,000 rows"; with what follows in either case: "1 row holds", "3,000 rows hold"."""
    follows = one if count == 1 else many
    return f"{count:,} {word}{'' if count == 1 else 's'}{f' {follows}' if follows else ''}"


def listed(words: Sequence[str], most: int = 3) -> str:
    """The first few of foreign words, and how many more there are: "<a>, <b>, <c> and 4 more"."""
    rest = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(map(safe, words[:most])) + rest


def number(value: object) -> str:
    """A setting's value as a person reads it: 1e-3 and not 0.001, 5 and not 5.0, 2,304 and not 2304, yes and not True, none
    and not None."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value and abs(value) < 0.01:
            mantissa, exponent = f"{value:.6e}".split("e")
            return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
