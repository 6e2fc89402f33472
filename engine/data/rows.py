"""What every reader gives, whatever the file, and what it does about a flaw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.errors import Exit, FtuiError

MAX_DEPTH = 64  # lists and objects inside one another
READ_ON = "read on, no row is lost"
WAY_OUT = (
    "leave such rows out (--bad-rows skip), or have mended what can be (--bad-rows repair); "
    "`ftui data FILE` lists them all"
)


class Row(Struct):
    """One row of a file. `number` counts rows from 1; `line` is the line it begins on, from 1, where there are lines."""

    number: int
    line: int | None
    value: dict[str, Any]


# Called for each flaw that does not keep the rest from being read, with
#   row       its number; 0 for a flaw of the file that is not one of a row
#   line      from 1, where the file has lines
#   error     what is wrong
#   column    the character in that line, from 1, where one can be named
#   repaired  what was done so that no row is lost; "" when the row is left out
BadRowHandler = Callable[[int, int | None, FtuiError, int | None, str], None]


class Reading:
    """One file being read: where it is, the number its rows begin after, and what happens to flaws.

    notes  what is worth saying and no flaw
    share  of the file that was read, for kinds that are not read from the first byte to the last
    """

    def __init__(self, path: Path, on_bad: BadRowHandler | None = None, repair: bool = False, before: int = 0) -> None:
        self.path = path
        self.repair = repair and on_bad is not None
        self.strict = on_bad is None
        self.before = before
        self.notes: list[str] = []
        self.share = 0.0
        self._on_bad = on_bad

    def flaw(self, row: int, line: int | None, error: FtuiError, column: int | None = None, repaired: str = "") -> None:
        """Tell of a flaw and go on; where nobody listens raise `error`, of a row with how others go on."""
        if self._on_bad is None:
            steps = (error.next_step, WAY_OUT if row else "")
            raise FtuiError(error.code, error.cause, error.where, "; or ".join(filter(None, steps)))
        self._on_bad(row, line, error, column, repaired)

    def error(
        self, code: Exit, cause: str, line: int | None = None, column: int | None = None, next_step: str = ""
    ) -> FtuiError:
        """An error with this file, line and column as its place."""
        where = str(self.path)
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", column {column}"
        return FtuiError(code, cause, where, next_step)


def unfit(value: object, row: int, line: int | None, reading: Reading) -> FtuiError | None:
    """Why a value cannot be a row: it is no object, or nested too deep."""
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        return reading.error(
            Exit.DATA_ROW,
            f"row {row} is {kind}, not an object with named fields",
            line,
            next_step='write each row as {"instruction": …, "output": …}',
        )
    return too_deep(line, reading) if deeper_than(value, MAX_DEPTH) else None


def too_deep(line: int | None, reading: Reading) -> FtuiError:
    cause = f"lists and objects lie more than {MAX_DEPTH} deep in one another"
    return reading.error(Exit.DATA_SYNTAX, cause, line, next_step="mend or delete this row")


def deeper_than(value: object, limit: int) -> bool:
    """True if containers lie deeper than `limit`; level by level, so that depth itself cannot hurt."""
    level: list[Any] = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return False
        level = inner
    return True
