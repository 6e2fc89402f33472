"""Rows out of JSON: an array, objects one after another, or one object a line (JSONL).

Read piece by piece, so that an error in row 900,000 is found with its line and column, and memory holds one row.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engine.data import encoding
from engine.data.rows import BadRowHandler, Row
from engine.errors import Exit, FtuiError

MAX_DEPTH = 64  # lists and objects inside one another
_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_decode = json.JSONDecoder().raw_decode


def read_lines(file: BinaryIO, path: Path, on_bad: BadRowHandler | None) -> Iterator[Row]:
    """Rows of a JSONL file. A broken line goes to `on_bad` if given (lines do not depend on each other), else raises."""
    row = 0
    for number, text in encoding.lines(file, path):
        stripped = text.strip(_SPACE)
        if not stripped:
            continue
        row += 1
        error = None
        try:
            value = json.loads(stripped)
            error = _unfit(value, stripped.count("{") + stripped.count("["), path, row, number)
        except json.JSONDecodeError as problem:
            error = _line_error(problem, text, stripped, path, number)
        except (ValueError, RecursionError) as problem:
            error = _value_error(problem, path, number)
        if error is None:
            yield Row(row, number, value)
        elif on_bad is None:
            raise error
        else:
            on_bad(row, number, error)


def read_values(file: BinaryIO, path: Path, on_bad: BadRowHandler | None) -> Iterator[Row]:
    """Rows of a JSON array, or of objects that follow one another with or without line ends between them."""
    window = _Window(file, path)
    array = window.peek() == "["
    if array:
        window.skip(1)
    row = 0
    while True:
        char = window.peek()
        if array and char == "]":
            window.skip(1)
            if window.peek():
                raise window.error("something follows the ] that ends the array")
            return
        if not char:
            if array:
                raise window.error(
                    "the file ends before the ] of the array: it was cut off", "copy or download it again"
                )
            return
        row += 1
        line = window.line
        value, error = window.value(row)
        if error is None:
            yield Row(row, line, value)
        elif on_bad is None:
            raise error
        else:
            on_bad(row, line, error)
        if not array:
            continue
        char = window.peek()
        if char == ",":
            window.skip(1)
            if window.peek() == "]":
                raise window.error("a comma too many stands before the ]", "take the last comma out")
        elif char and char != "]":
            raise window.error("a comma is missing between two rows")


class _Window:
    """A stretch of the file as text, moving on: `line` and `column` are where its cursor stands, both from 1."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._lines_read = 1
        self.line = 1
        self.column = 1
        self._fill()
        self._buffer = self._buffer.removeprefix("\ufeff")

    def _fill(self, size: int = _CHUNK) -> None:
        raw = self._file.read(size)
        self._ended = not raw
        pending = self._decoder.getstate()[0]
        if b"\0" in raw:
            line = self._lines_read + raw.count(b"\n", 0, raw.index(b"\0"))
            raise encoding.nul_error(self._path, raw[raw.rfind(b"\n", 0, raw.index(b"\0")) + 1 :], line)
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            if self._ended:
                raise encoding.cut_error(self._path, self._lines_read) from None
            known = pending + raw
            line = self._lines_read + known.count(b"\n", 0, error.start)
            begin = known.rfind(b"\n", 0, error.start) + 1
            column = len(known[begin : error.start].decode(errors="replace")) + 1
            around = known[max(0, error.start - 64) : error.start + 64]
            raise encoding.decode_error(self._path, around, error, line, column) from None
        self._lines_read += raw.count(b"\n")
        self._buffer = self._buffer[self._at :] + text
        self._at = 0

    def skip(self, count: int) -> None:
        """Move the cursor on."""
        end = self._at + count
        newlines = self._buffer.count("\n", self._at, end)
        if newlines:
            self.line += newlines
            self.column = end - self._buffer.rfind("\n", self._at, end)
        else:
            self.column += count
        self._at = end

    def peek(self) -> str:
        """The next character that is not white space, with the cursor on it; empty at the end of the file."""
        while True:
            end = self._at
            while end < len(self._buffer) and self._buffer[end] in _SPACE:
                end += 1
            self.skip(end - self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                return ""
            self._fill()

    def value(self, row: int) -> tuple[Any, FtuiError | None]:
        """The value at the cursor, which moves behind it; or a row that is whole JSON and no row, as an error."""
        size = _CHUNK
        while True:
            try:
                value, end = _decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended or isinstance(value, dict | list | str):
                    break
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._syntax_error(error) from None
                if len(self._buffer) - self._at > encoding.MAX_LINE:
                    if _is_cut(error, len(self._buffer)):
                        raise encoding.too_long(self._path, self.line) from None
                    raise self._syntax_error(error) from None
            except (ValueError, RecursionError) as error:
                raise _value_error(error, self._path, self.line) from None
            self._fill(size)
            size *= 2
        braces = self._buffer.count("{", self._at, end) + self._buffer.count("[", self._at, end)
        error_found = _unfit(value, braces, self._path, row, self.line)
        self.skip(end - self._at)
        return value, error_found

    def error(self, cause: str, next_step: str = "mend the file there") -> FtuiError:
        where = f"{self._path}, line {self.line}, column {self.column}"
        return FtuiError(Exit.DATA_SYNTAX, cause, where, next_step)

    def _syntax_error(self, error: json.JSONDecodeError) -> FtuiError:
        whole = len(self._buffer.rstrip(_SPACE))
        if self._ended and _is_cut(error, whole):
            self.skip(whole - self._at)
            return self.error("the file ends in the middle of a row: it was cut off", "copy or download it again")
        self.skip(error.pos - self._at)
        return self.error(f"this is not JSON: {_reason(error)}")


def _is_cut(error: json.JSONDecodeError, length: int) -> bool:
    """True if an error is only that a text of `length` characters ends too early."""
    in_escape = error.msg.startswith("Invalid \\") and error.pos >= length - len("\\u0000")
    return error.pos >= length or error.msg.startswith("Unterminated string") or in_escape


def _reason(error: json.JSONDecodeError) -> str:
    """The reader's message as the middle of a sentence."""
    return error.msg[:1].lower() + error.msg[1:]


def _line_error(error: json.JSONDecodeError, text: str, stripped: str, path: Path, number: int) -> FtuiError:
    cut = _is_cut(error, len(stripped))
    cause = "the line ends in the middle of a row: it was cut off" if cut else f"this is not JSON: {_reason(error)}"
    column = len(text) - len(text.lstrip(_SPACE)) + (len(stripped) if cut else error.pos) + 1
    return FtuiError(Exit.DATA_SYNTAX, cause, f"{path}, line {number}, column {column}", "mend or delete the line")


def _value_error(error: ValueError | RecursionError, path: Path, line: int) -> FtuiError:
    cause = f"lists and objects lie more than {MAX_DEPTH} deep in one another"
    if isinstance(error, ValueError):
        cause = "a number has too many digits"
    return FtuiError(Exit.DATA_SYNTAX, cause, f"{path}, line {line}", "mend or delete this row")


def _unfit(value: Any, braces: int, path: Path, row: int, line: int) -> FtuiError | None:
    """Why a value cannot be a row: not an object, or nested too deep. `braces` is how many it opens at most."""
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        return FtuiError(
            Exit.DATA_ROW,
            f"row {row} is {kind}, not an object with named fields",
            f"{path}, line {line}",
            'write each row as {"instruction": …, "output": …}',
        )
    if braces > MAX_DEPTH and _depth_over(value, MAX_DEPTH):
        return _value_error(RecursionError(), path, line)
    return None


def _depth_over(value: Any, limit: int) -> bool:
    """True if containers lie deeper than `limit`; level by level, so that depth itself cannot hurt."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return False
        level = inner
    return True


def first_line_is_row(line: str) -> bool:
    """True if a line is a whole JSON object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
