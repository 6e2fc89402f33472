"""What a finding is, and the words and arrays that all findings share."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from engine.text import safe, shorten

if TYPE_CHECKING:
    from engine.data.findings.chunk import Chunk

_WIDTH = 60  # terminal cells of an example

Level = Literal["problem", "warning", "note"]


class Finding(Struct):
    """Something worth knowing about the rows.

    message  one line, without an end
    rows     row numbers, all of them, in order
    count    how many rows it concerns, or what the message counts where that is not rows
    example  a short piece of the first of these rows, safe to show; secrets are masked
    fix      what to do, in words, or empty
    action   the name of a fix that `clean` can apply (one of clean.ACTIONS), or empty
    sampled  which part of the rows was looked at, where that is not all
    """

    kind: str
    level: Level
    message: str
    rows: Sequence[int] = ()
    count: int = 0
    example: str = ""
    fix: str = ""
    action: str = ""
    sampled: str = ""


class Check(Protocol):
    """Looks at all rows, some at a time, and says then what it found."""

    def look(self, chunk: Chunk) -> None: ...

    def findings(self) -> list[Finding]: ...


class Marked:
    """Row numbers that a check has marked, each once, in order; and an example from the first."""

    def __init__(self, rows: Iterable[int] = ()) -> None:
        self.rows = array("I", rows)
        self.example = ""

    def add(self, row: int, example: str = "") -> None:
        if not self.rows or self.rows[-1] != row:
            if not self.rows:
                self.example = f"row {row}: {example}" if example else ""
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def finding(
        self, kind: str, level: Level, verbs: tuple[str, str], what: str, fix: str = "", action: str = ""
    ) -> list[Finding]:
        """ "3 rows hold WHAT" as a finding, or nothing where no row is marked. `verbs` is ("holds", "hold")."""
        count = len(self.rows)
        if not count:
            return []
        return [Finding(kind, level, f"{rows_text(count, *verbs)} {what}", self.rows, count, self.example, fix, action)]


def rows_text(count: int, verb: str, verbs: str) -> str:
    """ "1 row holds" or "3,000 rows hold"."""
    return f"1 row {verb}" if count == 1 else f"{count:,} rows {verbs}"


def percent(part: float, whole: float) -> str:
    """ "82 %"; "under 1 %" and "over 99 %" where rounding would say none or all."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 1:
        return "under 1 %"
    if 99 < share < 100:
        return "over 99 %"
    return f"{share:.0f} %"


def excerpt(text: str, width: int = _WIDTH) -> str:
    """The beginning of a foreign text, safe and on one line of at most `width` cells."""
    return shorten(safe(text[: 4 * width].strip()), width)


def tail(text: str, width: int = _WIDTH) -> str:
    """The end of a foreign text, as `excerpt`."""
    end = text.rstrip()
    return excerpt(end) if len(end) <= width else "…" + safe(end[-width:]).strip()
