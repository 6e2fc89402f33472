"""What every reader gives, whatever the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from engine.errors import FtuiError


class Row(Struct):
    """One row of a file. `number` counts rows from 1; `line` is the line it begins on, from 1, where there are lines."""

    number: int
    line: int | None
    value: dict[str, Any]


# Called with row number, line and error for a row that can be left out without harm to the others.
BadRowHandler = Callable[[int, int | None, FtuiError], None]
