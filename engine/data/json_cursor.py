"""A place in JSON text that moves on value by value, and finds the next row behind a broken one."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, BinaryIO

from engine.data import encoding, repair
from engine.data.json_rows import SPACE, is_cut, number_or_depth, why
from engine.data.rows import Reading
from engine.data.streams import Damaged
from engine.errors import Exit, FtuiError

NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what Python makes of bytes that are not UTF-8
_CHUNK = 1 << 18
_SEARCHED = 16 * _CHUNK  # characters looked through for the end of a broken row that is not a line by itself
_ARRAY_END = re.compile(r"\]\s*\}?\s*\Z")
_TOKEN_END = 16  # characters; a number or word this near to the end of what was read may go on behind it
_decode = json.JSONDecoder().raw_decode


class Broken(Exception):
    """A value that is not JSON, with the place: `at` is its index in what the cursor holds; `cut` at the file's end."""

    def __init__(self, error: FtuiError, line: int, column: int | None, at: int, cut: bool = False) -> None:
        super().__init__(error.cause)
        self.error, self.line, self.column, self.at, self.cut = error, line, column, at, cut


class Cursor:
    """A place in the file's text, moving on: at `line` and `column`, both from 1, behind `rows` rows.

    lost  where the next row begins is not known, so nothing more can be read
    """

    def __init__(self, file: BinaryIO, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._undecoded = b""
        self._dirty = False  # bytes that are not UTF-8 were met
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._margin: str | None = ""  # white space before the cursor, if it is the first in its line
        self._names: tuple[str, ...] = ()  # of the last good row
        self.line = 1
        self.column = 1
        self.rows = reading.before
        self.lost = False
        self._fill()
        self._buffer = self._buffer.removeprefix("\ufeff")

    def _fill(self, size: int = _CHUNK) -> None:
        raw = b""
        while len(raw) < size and not self._ended:
            try:
                part = self._file.read1(size - len(raw))  # type: ignore[attr-defined]
            except Damaged:
                if not raw:
                    raise
                break  # what came before is read first; it is thrown again behind that
            self._ended = not part
            raw += part
        known = self._undecoded + raw
        try:
            text, used = codecs.utf_8_decode(known, "strict", self._ended)
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(known, "surrogateescape", self._ended)
            self._dirty = True
        self._undecoded = known[used:]
        self._buffer = self._buffer[self._at :] + text
        self._at = 0

    def skip(self, count: int) -> None:
        """Move the cursor on."""
        end = self._at + count
        newlines = self._buffer.count("\n", self._at, end)
        if newlines:
            begin = self._buffer.rfind("\n", self._at, end) + 1
            self.line += newlines
            self.column = end - begin + 1
            self._margin = self._buffer[begin:end]
        else:
            self.column += count
            if self._margin is not None:
                self._margin += self._buffer[self._at : end]
        if self._margin is not None and self._margin.strip(SPACE):
            self._margin = None
        self._at = end

    def peek(self) -> str:
        """The next character that is not white space, with the cursor on it; empty at the end of the file."""
        while True:
            end = self._at
            while end < len(self._buffer) and self._buffer[end] in SPACE:
                end += 1
            if end > self._at:
                self.skip(end - self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                return ""
            self._fill()

    def value(self) -> Any:
        """The value at the cursor, which moves behind it. Raises Broken with the cursor where it was."""
        size = _CHUNK
        while True:
            try:
                value, end = _decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended or isinstance(value, dict | list | str):
                    break
            except json.JSONDecodeError as error:
                held = len(self._buffer)
                may_go_on = is_cut(error, held) or error.pos > held - _TOKEN_END
                if may_go_on and held - self._at > encoding.MAX_LINE:
                    raise Broken(encoding.too_long(self._reading.path, self.line), self.line, None, held) from None
                if self._ended or not may_go_on:
                    raise self._broken(error) from None
            except (ValueError, RecursionError) as error:
                raise Broken(number_or_depth(error, self.line, self._reading), self.line, None, self._at) from None
            self._fill(size)
            size *= 2  # a long value is gone through again from its beginning each time
        if self._dirty and (wrong := NOT_UTF8.search(self._buffer, self._at, end)):
            raise self._not_utf8(wrong.start())
        if isinstance(value, dict):
            self._names = tuple(value)
        self.skip(end - self._at)
        return value

    def flaw(self, cause: str, next_step: str = "mend the file there", repaired: str = "") -> None:
        """Tell of a flaw at the cursor that is not one of a row."""
        error = self._reading.error(Exit.DATA_SYNTAX, cause, self.line, self.column, next_step)
        self._reading.flaw(0, self.line, error, self.column, repaired)

    def pass_broken(self, array: bool, problem: Broken) -> str:
        """Move from the beginning of a broken row to the next one, or to the ] of the array; returns the row's text.

        A row that stands first in its line ends before the next line that begins the same way. Others end where their
        brackets close and a row follows, or before a row with the names of the last good one, whatever is nearer.
        Where none of this is found the cursor is `lost` at the end of the file.
        """
        margin, into = self._margin, problem.at - self._at
        most = encoding.MAX_LINE if margin is not None else _SEARCHED
        while True:
            found = self._next_in_line(margin) if margin is not None else None
            if found is None and (margin is None or self._ended):
                found = self._next_in_text(array, self._at + into)
            if found is None and margin is not None and self._ended and array:
                end = _ARRAY_END.search(self._buffer, self._at)
                found = end.start() if end else None
            if found is not None or self._ended or len(self._buffer) - self._at > most:
                break
            self._fill()
        self.lost = found is None
        stop = len(self._buffer) if found is None else found
        text = self._buffer[self._at : stop].rstrip(SPACE).removesuffix(",")
        self.skip(stop - self._at)
        return text

    def _next_in_line(self, margin: str) -> int | None:
        found = self._buffer.find("\n" + margin + "{", self._at)
        return None if found < 0 else found + 1

    def _next_in_text(self, array: bool, error_at: int) -> int | None:
        named = self._next_by_names(error_at)
        end = repair.end(self._buffer[self._at : named or self._at + _SEARCHED])
        if end is not None:
            end += self._at
            rest = self._buffer[end : end + _SEARCHED].lstrip(SPACE)
            follows = rest[:1] == "]" or (rest[:1] == "," and rest[1:].lstrip(SPACE)[:1] in ("{", "]"))
            if follows if array else rest[:1] == "{" or (not rest and self._ended):
                return end
        return named

    def _next_by_names(self, error_at: int) -> int | None:
        if not self._names:
            return None
        name = re.escape(json.dumps(self._names[0], ensure_ascii=False))
        row = re.compile(r"\}[ \t\r\n]*,?[ \t\r\n]*(\{[ \t\r\n]*" + name + ")")
        found = row.finditer(self._buffer, max(self._at, error_at - 1), self._at + _SEARCHED)
        return next((match.start(1) for match in found if self._is_row(match.start(1))), None)

    def _is_row(self, at: int) -> bool:
        """True if a row with the names of the last good one begins there."""
        try:
            value, _ = _decode(self._buffer, at)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and tuple(value) == self._names

    def _broken(self, error: json.JSONDecodeError) -> Broken:
        """What is wrong at the cursor, with its place. Bytes that are no text are named before what follows from them."""
        whole = len(self._buffer.rstrip(SPACE)) if self._ended else len(self._buffer)
        cut = self._ended and is_cut(error, whole)
        wrong = NOT_UTF8.search(self._buffer, self._at, whole if cut else error.pos + 1)
        if wrong and wrong.start() < whole - 3:  # at the very end a character may have been cut
            return self._not_utf8(wrong.start())
        at = whole if cut else error.pos
        line, column = self._place(at)
        if cut:
            cause, next_step = "the file ends in the middle of a row: it was cut off", "copy or download it again"
        elif self._buffer[at : at + 1] == "\0":
            return Broken(encoding.nul_error(self._reading.path, line, column), line, column, at)
        else:
            cause, next_step = f"this is not JSON: {why(error)}", "mend the file there"
        return Broken(self._reading.error(Exit.DATA_SYNTAX, cause, line, column, next_step), line, column, at, cut)

    def _not_utf8(self, at: int) -> Broken:
        line, column = self._place(at)
        around = self._buffer[max(0, at - 64) : at + 64].encode("utf-8", "surrogateescape")
        value = ord(self._buffer[at]) - 0xDC00
        return Broken(encoding.decode_error(self._reading.path, around, value, line, column), line, column, at)

    def _place(self, at: int) -> tuple[int, int]:
        """(line, column) of a character at or behind the cursor."""
        newlines = self._buffer.count("\n", self._at, at)
        column = at - self._buffer.rfind("\n", self._at, at) if newlines else self.column + at - self._at
        return self.line + newlines, column
