"""Rows out of JSON that is not one row a line: an array, an array inside an object, or objects one after another.

Read piece by piece, so that an error in row 900,000 is found with its line and column, and memory holds one row. After
a broken row reading goes on at the next one, where it is plain where that begins.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from engine.data import encoding, repair
from engine.data.json_cursor import NOT_UTF8, Broken, Cursor
from engine.data.json_rows import SPACE
from engine.data.rows import READ_ON, Reading, Row, unfit
from engine.errors import Exit

_decode = json.JSONDecoder().raw_decode

# Names under which a row has a list of objects of its own: an object with one of them is a row and wraps no rows.
_OF_A_ROW = {
    *("messages", "conversations", "conversation", "chat", "dialog", "dialogue", "turns", "history"),
    *("prompt", "completion", "chosen", "rejected", "tools", "functions", "tool_calls", "documents", "contexts"),
}
_OF_A_TURN = {"role", "from", "content", "value"}


def wraps_rows(head: str) -> bool:
    """True if JSON that begins with `head` is an object with the rows in an array under one of its names."""
    try:
        at = _behind(head, 0, "{")
        while True:
            name, at = _decode(head, _behind(head, at, ""))
            at = _behind(head, _behind(head, at, ":"), "")
            if head[at] == "[":
                inside = _behind(head, at, "[")
                if head[inside] == "{":
                    first, _ = _decode(head, _behind(head, inside, "{"))
                    return name not in _OF_A_ROW and first not in _OF_A_TURN
            _, at = _decode(head, at)
            at = _behind(head, at, ",")
    except (ValueError, IndexError, RecursionError):
        return False


def _behind(text: str, at: int, mark: str) -> int:
    """Where the next character that is not white space stands behind `mark`, which must be next."""
    at = _skipped(text, at)
    if not mark:
        return at
    if text[at] != mark:
        raise ValueError
    return _skipped(text, at + 1)


def _skipped(text: str, at: int) -> int:
    while text[at] in SPACE:
        at += 1
    return at


def read_values(file: BinaryIO, reading: Reading, wrapped: bool = False, name: str | None = None) -> Iterator[Row]:
    """Rows of a JSON array, or of objects that follow one another with or without line ends between them.

    wrapped  the array lies in an object, under `name`, or else is the first one there that holds objects
    """
    cursor = Cursor(file, reading)
    if wrapped:
        yield from _inside(cursor, reading, name)
        return
    array = cursor.peek() == "["
    if array:
        cursor.skip(1)
    yield from _rows(cursor, reading, array)
    if array and not cursor.lost and cursor.peek():
        cursor.flaw("something follows the ] that ends the array")


def _inside(cursor: Cursor, reading: Reading, name: str | None) -> Iterator[Row]:
    """Rows of the array that an object holds; the others are passed over and noted."""
    others: list[str] = []
    read = False
    cursor.skip(1)
    try:
        while cursor.peek() == '"':
            key = str(cursor.value())
            if cursor.peek() != ":":
                break
            cursor.skip(1)
            if cursor.peek() != "[":
                cursor.value()
            else:
                cursor.skip(1)
                if cursor.peek() == "{" and not read and name in (None, key):
                    yield from _rows(cursor, reading, array=True)
                    read = True
                else:
                    others.append(key)
                    _pass_over(cursor)
            if cursor.lost or cursor.peek() != ",":
                break
            cursor.skip(1)
        whole = cursor.peek() == "}"
        if whole:
            cursor.skip(1)
        if not cursor.lost and (not whole or cursor.peek()):
            cursor.flaw("the object that holds the rows does not end where it should")
    except Broken as problem:
        reading.flaw(0, problem.line, problem.error, problem.column)
    if not read:
        raise reading.error(
            Exit.DATA_SHAPE,
            f"there is no array of rows named {name}" if name else "the object holds no array of rows",
            next_step="the arrays are named: " + ", ".join(others[:12]) if others else "",
        )
    if others:
        reading.notes.append(f"only one array of the file is read; left aside: {', '.join(others[:12])}")


def _pass_over(cursor: Cursor) -> None:
    while (char := cursor.peek()) and char != "]":
        cursor.value()
        if cursor.peek() == ",":
            cursor.skip(1)
    cursor.skip(1)


def _rows(cursor: Cursor, reading: Reading, array: bool) -> Iterator[Row]:
    """Rows up to the ] of the array, which is passed, or to the end of the file."""
    while True:
        char = cursor.peek()
        if array and char == "]":
            cursor.skip(1)
            return
        if not char:
            if array:
                cursor.flaw(
                    "the file ends before the ] of the array: it was cut off",
                    "copy or download it again",
                    "closed the array" if reading.repair else "",
                )
                cursor.lost = True
            return
        cursor.rows += 1
        row, line, column = cursor.rows, cursor.line, cursor.column
        comma = True  # whether one must follow
        try:
            value = cursor.value()
            error = unfit(value, row, line, reading)
            if error is None:
                yield Row(row, line, value)
            else:
                reading.flaw(row, line, error, column)
        except Broken as problem:
            if reading.strict:
                reading.flaw(row, problem.line, problem.error, problem.column)
            text = cursor.pass_broken(array, problem)
            mended = _mended(text) if reading.repair else None
            if mended is not None and unfit(mended[0], row, line, reading) is None:
                reading.flaw(row, problem.line, problem.error, problem.column, mended[1])
                yield Row(row, line, mended[0])
            else:
                reading.flaw(row, problem.line, problem.error, problem.column)
            if cursor.lost:
                if not problem.cut:
                    cursor.flaw(f"where the next row begins is not plain: nothing behind row {row} was read")
                return
            comma = False
        if array:
            _comma(cursor, comma)


def _mended(text: str) -> tuple[Any, str] | None:
    """The row that broken text plainly means, and what was done to it."""
    words = ""
    if NOT_UTF8.search(text):
        read, name = encoding.legacy(text.encode("utf-8", "surrogateescape"))
        if read is None:
            return None
        text, words = read, f"read as {name}"
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text), words
    found = repair.value(text, close=True)
    return found and (found[0], "; ".join(filter(None, [words, found[1]])))


def _comma(cursor: Cursor, needed: bool) -> None:
    """Pass the comma between two rows."""
    char = cursor.peek()
    if char == ",":
        cursor.skip(1)
        if cursor.peek() == "]":
            cursor.flaw("a comma too many stands before the ]", "take the last comma out", READ_ON)
    elif needed and char and char != "]":
        cursor.flaw("a comma is missing between two rows", repaired=READ_ON)
