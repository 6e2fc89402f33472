"""A data file, row by row, with every flaw named by file, line and column."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import BinaryIO

from engine.data import encoding, json_rows, tables
from engine.data.rows import BadRowHandler, Row
from engine.errors import Exit, FtuiError

__all__ = ["KINDS", "Row", "read"]

KINDS = "JSON, JSONL, CSV, TSV, Parquet or text"
_WRAPPED_WIDTH = 120  # characters; text wrapped by hand has shorter lines
_SAMPLE_LINES = 400


def read(path: Path | str, on_bad: BadRowHandler | None = None) -> Iterator[Row]:
    """The rows of a file: JSON (array, or objects one after another), JSONL, CSV, TSV, Parquet, or plain text.

    What the file is is seen from its content; its name decides only between what content cannot tell apart.
    Rows come as they are read. `on_bad` is called for rows that can be left out (a broken JSONL line, a CSV row with
    too many cells); without it they raise. Raises FtuiError: DATA_MISSING, DATA_ENCODING, DATA_SYNTAX, DATA_ROW
    (a row that is no object), PERMISSION.
    """
    path = home(path)
    try:
        yield from _rows(path, on_bad)
    except PermissionError:
        raise FtuiError(Exit.PERMISSION, "the file may not be read", str(path), "check its owner and mode") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FtuiError(Exit.DATA_MISSING, f"the file cannot be read: {reason}", str(path)) from None


def home(path: Path | str) -> Path:
    """A path with ~ replaced, where there is such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _rows(path: Path, on_bad: BadRowHandler | None) -> Iterator[Row]:
    if "\0" in str(path) or not path.exists():
        raise FtuiError(Exit.DATA_MISSING, "there is no such file", str(path), _similar(path))
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise FtuiError(Exit.DATA_MISSING, f"this is {what}, not a data file", str(path), f"name one file: {KINDS}")
    empty = True

    def left_out(row: int, line: int | None, error: FtuiError) -> None:
        nonlocal empty
        empty = False
        if on_bad is not None:
            on_bad(row, line, error)

    handler = left_out if on_bad is not None else None
    with path.open("rb") as file:
        head = file.read(encoding.SAMPLE)
        if head.startswith(b"PAR1") or (head and path.suffix.lower() in (".parquet", ".pq")):
            rows = tables.read_parquet(path)
        else:
            encoding.check_head(head, path)
            file.seek(0)
            rows = _text_rows(file, path, head, handler)
        for row in rows:
            empty = False
            yield row
    if empty:
        cause = "the file is empty" if not head.strip(b"\xef\xbb\xbf \t\r\n") else "the file holds no rows"
        raise FtuiError(Exit.DATA_MISSING, cause, str(path), "choose another file")


def _text_rows(file: BinaryIO, path: Path, head: bytes, on_bad: BadRowHandler | None) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return tables.read_csv(file, path, on_bad)
    first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    named_json = suffix in (".json", ".jsonl", ".ndjson")
    if not named_json and (suffix in (".txt", ".md", ".text") or first not in (b"[", b"{")):
        return _plain(file, path)
    if first == b"[":
        return json_rows.read_values(file, path, on_bad)
    line = next((text for _, text in encoding.lines(file, path) if text.strip()), "")
    file.seek(0)
    by_line = line.strip() != "{" if suffix in (".jsonl", ".ndjson") else json_rows.first_line_is_row(line)
    return (json_rows.read_lines if by_line else json_rows.read_values)(file, path, on_bad)


def _plain(file: BinaryIO, path: Path) -> Iterator[Row]:
    """Plain text: each line one example, or each paragraph where the text is wrapped by hand.

    The column is named "line" or "paragraph", so that what was chosen can be told.
    """
    sample = [text for _, text in islice(encoding.lines(file, path), _SAMPLE_LINES)]
    file.seek(0)
    if not _is_wrapped(sample):
        filled = ((number, text) for number, text in encoding.lines(file, path) if text.strip())
        for count, (number, text) in enumerate(filled, 1):
            yield Row(count, number, {"line": text.rstrip("\r\n")})
        return
    count, begin, block = 0, 0, list[str]()
    for number, text in encoding.lines(file, path):
        if text.strip():
            begin = begin or number
            block.append(text.rstrip("\r\n"))
        elif block:
            count += 1
            yield Row(count, begin, {"paragraph": "\n".join(block)})
            begin, block = 0, []
    if block:
        yield Row(count + 1, begin, {"paragraph": "\n".join(block)})


def _is_wrapped(lines: list[str]) -> bool:
    """True if most lines stand, short, in blocks with blank lines between: then a blank line ends a thought."""
    blocks = [len(list(block)) for filled, block in groupby(lines, lambda line: bool(line.strip())) if filled]
    most_wrapped = sum(size > 1 for size in blocks) * 2 > len(blocks) > 1
    return most_wrapped and max(len(line) for line in lines) <= _WRAPPED_WIDTH


def _similar(path: Path) -> str:
    """A next step that names the file that was probably meant."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except (OSError, ValueError):
        return "check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(close[0])}?" if close else "check the path"
