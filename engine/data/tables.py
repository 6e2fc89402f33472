"""Rows out of CSV and TSV."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from engine.data import encoding
from engine.data.encoding import Line
from engine.data.rows import Reading, Row
from engine.errors import Exit, FtuiError

_QUOTES = 'put cells that hold the separator or line ends between "quotes"'


def read_csv(file: BinaryIO, reading: Reading, tabs: bool = False) -> Iterator[Row]:
    """Rows of a CSV or TSV file; its first line names the columns. Commas, semicolons and tabs are told apart there."""
    csv.field_size_limit(encoding.MAX_LINE)
    lines = _Lines(file, reading)
    first = next(lines, "")
    counts = {char: first.count(char) for char in "\t,;"}
    delimiter = "\t" if tabs else max(counts, key=lambda c: (counts[c], c == ","))
    lines.back(1)
    header: list[str] | None = None
    row = reading.before
    while True:
        lines.record.clear()
        try:
            cells = next(csv.reader(lines, delimiter=delimiter, strict=True), None)
            problem = None
        except csv.Error as broken:
            cells, problem = [], broken
        if cells is None:
            return
        if problem is None and not any(cells):
            continue
        if header is None:
            header = _header(cells, lines, problem, reading)
            continue
        begin = lines.record[0]
        row += 1
        error, line, column, repaired = None, begin.number, None, ""
        if flawed := next((line for line in lines.record if line.flaw is not None), None):
            error, line, column, repaired = flawed.flaw, flawed.number, flawed.column, flawed.repaired
        if error is None or repaired:
            if problem is not None:
                error, line, column, repaired = _broken(problem, begin, reading), begin.number, None, ""
            elif len(cells) != len(header):
                cause = f"row {row} has {len(cells)} cell{'s' * (len(cells) != 1)}, the header names {len(header)}"
                error = reading.error(Exit.DATA_SYNTAX, cause, begin.number, next_step=_QUOTES)
                line, column, repaired = begin.number, None, ""
        if problem is not None:
            lines.back(_to_read_again(lines.record, len(header), delimiter))
        if error is not None:
            reading.flaw(row, line, error, column, repaired)
        if error is None or repaired:
            yield Row(row, begin.number, dict(zip(header, cells, strict=True)))


class _Lines:
    """The lines of a file for csv.reader, those of the `record` at hand kept so that some can be read again."""

    def __init__(self, file: BinaryIO, reading: Reading) -> None:
        self._lines = encoding.lines(file, reading)
        self._again: deque[Line] = deque()
        self.record: list[Line] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.record.append(line)
        return line.text

    def back(self, count: int) -> None:
        """Have the last `count` lines read again."""
        if count:
            self._again.extendleft(reversed(self.record[-count:]))


def _to_read_again(record: list[Line], columns: int, delimiter: str) -> int:
    """How many lines behind the first of a broken record are rows by themselves: all of them, or none.

    A quote that is never closed takes in the lines that follow; a cell that holds line ends does, too.
    """
    rest = record[1:]
    for line in rest:
        try:
            cells = next(csv.reader([line.text], delimiter=delimiter, strict=True), [])
        except csv.Error:
            # The last line is where the record broke: its quote may be the one that ended the cell.
            if line is rest[-1]:
                continue
            return 0
        if cells and len(cells) != columns:
            return 0
    return len(rest)


def _broken(problem: csv.Error, begin: Line, reading: Reading) -> FtuiError:
    cause = f"this is not CSV: {problem}"
    if "unexpected end" in str(problem):
        cause = 'the file ends inside a quoted cell: a " is missing, or it was cut off'
    # The row began there; the reader may have run on to the end of the file in search of a quote.
    return reading.error(Exit.DATA_SYNTAX, cause, begin.number, next_step="mend the quotes there")


def _header(cells: list[str], lines: _Lines, problem: csv.Error | None, reading: Reading) -> list[str]:
    """The names of the columns. Without them no row means anything, so what is wrong here raises."""
    line = lines.record[0]
    if problem is not None:
        raise _broken(problem, line, reading)
    for one in lines.record:
        if one.flaw is not None and not one.repaired:
            raise one.flaw
        if one.flaw is not None:
            reading.flaw(0, one.number, one.flaw, one.column, one.repaired)
    names = [cell.strip() for cell in cells]
    wrong = "" if all(names) else "a column has no name"
    twice = next((name for name in names if names.count(name) > 1), None)
    if not wrong and twice:
        wrong = f"two columns are named {twice}"
    if wrong:
        raise reading.error(
            Exit.DATA_SYNTAX, f"{wrong} in the header", line.number, next_step="the first line must name the columns"
        )
    return names
