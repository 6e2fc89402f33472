"""Rows out of JSONL: one JSON object a line."""

from __future__ import annotations

import codecs
import json
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from engine.data import encoding, repair
from engine.data.encoding import Line
from engine.data.rows import MAX_DEPTH, Reading, Row, deeper_than, too_deep, unfit
from engine.errors import Exit, FtuiError

SPACE = " \t\r\n"
_JOINED = 64  # lines that one row broken by line ends may be spread over
_REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)


def read_lines(file: BinaryIO, reading: Reading) -> Iterator[Row]:
    """Rows of a JSONL file. Lines do not depend on each other: a broken one is left out alone."""
    # Five times as fast as json, and it refuses more: what it refuses, json decides on.
    decode = msgspec.json.Decoder().decode
    ahead: deque[bytes] = deque()  # lines that were looked at already
    row, number = reading.before, 0
    while raw := ahead.popleft() if ahead else file.readline(encoding.MAX_LINE + 1):
        number += 1
        try:
            value = decode(raw)
        except _REFUSED:
            pass
        else:
            if type(value) is dict and (
                raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH or not deeper_than(value, MAX_DEPTH)
            ):
                row += 1
                yield Row(row, number, value)
                continue
        if not raw.strip():
            continue
        row += 1
        if len(raw) > encoding.MAX_LINE:
            encoding.pass_line(file)
        line = encoding.line(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number, reading)
        parsed = _Parsed(line, row, reading)
        lines = 1
        if parsed.broken and reading.repair:
            lines = parsed.mend(_more(file, ahead))
        if parsed.error is not None:
            reading.flaw(row, number, parsed.error, parsed.column, parsed.repaired)
        if parsed.error is None or parsed.repaired:
            yield Row(row, number, parsed.value)
        for _ in range(1, lines):
            number += 1
            ahead.popleft()


def _more(file: BinaryIO, ahead: deque[bytes]) -> Iterator[bytes]:
    """The lines that follow, which stay to be read."""
    yield from tuple(ahead)
    while raw := file.readline(encoding.MAX_LINE + 1):
        ahead.append(raw)
        yield raw


class _Parsed:
    """What a line means, or why it means nothing. `broken` is True for text that is not JSON."""

    def __init__(self, line: Line, row: int, reading: Reading) -> None:
        self._line, self._row, self._reading = line, row, reading
        self.value: Any = None
        self.error, self.column, self.repaired = line.flaw, line.column, line.repaired
        self.broken = False
        if self.error is not None and not self.repaired:
            return
        text = line.text.strip(SPACE)
        try:
            self.value = json.loads(text)
        except json.JSONDecodeError as problem:
            self.broken = True
            at, cause = problem.pos, f"this is not JSON: {why(problem)}"
            if is_cut(problem, len(text)):
                at, cause = len(text), "the line ends in the middle of a row: it was cut off"
            column = len(line.text) - len(line.text.lstrip(SPACE)) + at + 1
            self._refuse(reading.error(Exit.DATA_SYNTAX, cause, line.number, column, "mend or delete the line"), column)
        except (ValueError, RecursionError) as problem:
            self._refuse(number_or_depth(problem, line.number, reading))
        else:
            if (error := unfit(self.value, row, line.number, reading)) is not None:
                self._refuse(error)

    def _refuse(self, error: FtuiError, column: int | None = None) -> None:
        self.error, self.column, self.repaired = error, column, ""

    def mend(self, following: Iterator[bytes]) -> int:
        """Repair what has one plain meaning, with the lines that follow where the row was spread over them.

        Returns how many lines the row takes.
        """
        rest: list[bytes] = []  # up to the line that begins the next row
        for raw in following:
            if raw.lstrip()[:1] == b"{" or len(rest) == _JOINED:
                break
            rest.append(raw)
        begun = self._line.text.lstrip()[:1] == "{"
        spread = begun and any(raw.strip() for raw in rest)
        found, lines = repair.value(self._line.text, close=not spread), 1
        if found is None and spread:
            found, lines = self._joined(rest)
        if found is None or unfit(found[0], self._row, self._line.number, self._reading) is not None:
            return 1
        self.value = found[0]
        self.repaired = "; ".join(filter(None, [self._line.repaired, found[1]]))
        return lines

    def _joined(self, rest: list[bytes]) -> tuple[tuple[Any, str] | None, int]:
        """(the row that this line and some of `rest` make, how many lines it takes)."""
        text = self._line.text
        for count, raw in enumerate(rest, 2):
            more = encoding.line(raw, self._line.number + count - 1, self._reading)
            if more.flaw is not None:
                break
            text += more.text
            if more.text.rstrip().endswith(("}", "},")):
                try:
                    return (json.loads(text), f"joined {count} lines"), count
                except (ValueError, RecursionError):
                    found = repair.value(text)
                if found is not None:
                    return (found[0], f"joined {count} lines; {found[1]}"), count
        return None, 1


def is_cut(error: json.JSONDecodeError, length: int) -> bool:
    """True if an error is only that a text of `length` characters ends too early."""
    in_escape = error.msg.startswith("Invalid \\") and error.pos >= length - len("\\u0000")
    return error.pos >= length or error.msg.startswith("Unterminated string") or in_escape


def why(error: json.JSONDecodeError) -> str:
    """The reader's message as the middle of a sentence."""
    if error.msg.startswith("Unexpected UTF-8 BOM"):
        return "a byte order mark stands in the middle of the file"
    if error.doc[error.pos : error.pos + 1] == "\n":
        return "a string has no end in its line"
    return error.msg[:1].lower() + error.msg[1:]


def number_or_depth(error: ValueError | RecursionError, line: int, reading: Reading) -> FtuiError:
    """The two things that are JSON and still cannot be read."""
    if isinstance(error, RecursionError):
        return too_deep(line, reading)
    return reading.error(Exit.DATA_SYNTAX, "a number has too many digits", line, next_step="mend or delete this row")


def is_row(line: str) -> bool:
    """True if a line is a whole JSON object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
