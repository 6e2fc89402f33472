"""Foreign text made safe to show.

Every string that comes from data, models, logs or generation passes `safe` before it reaches a widget or a
terminal. Control, escape, bidirectional and zero-width characters become visible marks; nothing is dropped, so
that what a person sees is what is there. The mapping is character by character and keeps no state.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

# Bidirectional controls can reorder what is on screen ("Trojan Source"); zero-width ones hide text.
_INVISIBLE = [
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0x00AD,
    0x061C,
    0x180E,
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
]
_MARKS: dict[int, str] = {code: chr(0x2400 + code) for code in range(0x20)}
_MARKS[0x7F] = "␡"
_MARKS.update({code: f"<{code:02x}>" for code in range(0x80, 0xA0)})
_MARKS.update({code: f"<{code:04x}>" for code in _INVISIBLE})
_MARKS.update({code: f"<{code:04x}>" for code in range(0xD800, 0xE000)})
_ONE_LINE = {**_MARKS, 0x09: " ", 0x0A: "⏎", 0x0D: "␍"}
_MANY_LINES = {**_MARKS, 0x09: "    "}
del _MANY_LINES[0x0A]


def safe(text: object, *, newlines: bool = False) -> str:
    """`text` with every character that a terminal could act on replaced by a visible mark.

    newlines  keep line feeds as they are; otherwise each becomes ⏎
    """
    return str(text).translate(_MANY_LINES if newlines else _ONE_LINE)


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


def number(value: object) -> str:
    """A setting's value as a person reads it: 1e-3 and not 0.001, 5 and not 5.0, yes and not True."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value and abs(value) < 0.01:
            mantissa, exponent = f"{value:.6e}".split("e")
            return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return f"{value:g}"
    return str(value)
