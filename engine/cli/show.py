"""How verbs print: one console, tables without frames, foreign text and JSON always made safe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.text import escaped, safe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def emit(value: Any) -> None:
    """One JSON document (or one event of a stream) on a line of its own, flushed."""
    try:
        document = msgspec.json.encode(value, enc_hook=_plain).decode()
    except UnicodeEncodeError:  # a lone surrogate: a file's name need not be UTF-8
        document = json.dumps(msgspec.to_builtins(value, enc_hook=_plain), ensure_ascii=False)
    print(escaped(document), flush=True)


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays of numbers as lists, paths as text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) or hasattr(value, "tolist"):  # row numbers of array, range or numpy
        return value.tolist() if hasattr(value, "tolist") else list(value)
    raise TypeError(type(value).__name__)


def console(stderr: bool = False) -> Console:
    """A rich console on the streams as they are now. Off a terminal it never wraps to 80 columns."""
    from rich.console import Console

    out = sys.stderr if stderr else sys.stdout
    return Console(
        file=out, highlight=False, markup=False, emoji=False, width=None if out.isatty() else 160, soft_wrap=False
    )


def redraws() -> bool:
    """Whether what stands on stdout can be drawn over, as a picture that changes needs it."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def say(text: object = "", style: str = "") -> None:
    """A line of text, made safe, wrapped by the terminal and not by us."""
    console().print(styled(str(text), style), soft_wrap=True)


def paragraph(text: str, style: str = "", lead: str = "") -> None:
    """Foreign text, wrapped at words; `lead` stands before its first line and the others are aligned with that."""
    from rich.cells import cell_len

    out = console()
    indent = cell_len(lead)
    for index, line in enumerate(styled(text, style).wrap(out, max(20, out.width - indent))):
        line.rstrip()
        out.print(styled(" " * indent if index else lead, style).append_text(line), soft_wrap=True)


def styled(text: str, style: str = "", newlines: bool = False) -> Text:
    """Foreign text as rich Text: made safe, no markup, one line unless its line feeds are to be kept."""
    from rich.text import Text

    return Text(safe(text, newlines=newlines), style=style)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = (), wrap: str = "") -> Table:
    """A table without frames. `right` names columns aligned right, `wrap` the one that takes what room is left."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for column in columns:
        made.add_column(
            safe(column),
            justify="right" if column in right else "left",
            no_wrap=column != wrap,
            overflow="fold" if column == wrap else "ellipsis",
        )
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else styled(str(cell)) for cell in row])
    return made


def bar(value: float, largest: float, width: int) -> str:
    """A horizontal bar in eighths of a cell; something that is not zero always shows."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(value / largest * width * 8))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
