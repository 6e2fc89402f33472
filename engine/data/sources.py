"""A data file, row by row, with every flaw named by file, line and column."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from engine.data import columnar, encoding, json_rows, json_values, tables, text_rows
from engine.data.rows import BadRowHandler, Reading, Row
from engine.data.streams import Damaged, TextFile
from engine.errors import Exit, FtuiError

__all__ = ["KINDS", "Row", "home", "read"]

KINDS = "JSON, JSONL, CSV, TSV, Parquet, Arrow or text"
_JSON = (".json", ".jsonl", ".ndjson")
_TEXT = (".txt", ".md", ".text")
_TABLE = (".csv", ".tsv")
# What a file of rows may be named; any of the text kinds may be packed by gzip or zstd.
SUFFIXES = (*_JSON, *_TABLE, *_TEXT, ".parquet", ".pq", ".arrow", ".feather", ".ipc")
_FIRST = 1 << 20  # bytes looked at to tell JSONL from other JSON, and of them
_FIRST_LINES = 8
_MOVED_EVERY = 256  # rows

Moved = Callable[[int], None]


def read(
    path: Path | str,
    on_bad: BadRowHandler | None = None,
    repair: bool = False,
    *,
    before: int = 0,
    array: str | None = None,
    notes: list[str] | None = None,
    moved: Moved | None = None,
) -> Iterator[Row]:
    """The rows of a file: JSON (array, an object that holds one, or objects one after another), JSONL, CSV, TSV, plain
    text, each of them as it is or packed (gzip, zstd), Parquet or Arrow.

    What the file is is seen from its content; its name decides only between what content cannot tell apart.
    Rows come as they are read.

    on_bad  called for each flaw; reading goes on behind it as far as that is safe. Without it the first one raises
    repair  mend what has one plain meaning; on_bad is told what was done
    before  rows counted before this file: the first one is before + 1
    array   the name of the array to read, where an object holds several
    notes   gets what is worth saying and no flaw
    moved   called now and then with the bytes of the file that were read

    Raises FtuiError, with on_bad only where nothing of the file can be read: DATA_MISSING, DATA_ENCODING, DATA_SYNTAX,
    DATA_ROW (a row that is no object), DATA_SHAPE (no array of that name), PERMISSION.
    """
    path = home(path)
    count = before
    some = False

    def flaw(row: int, line: int | None, error: FtuiError, column: int | None, repaired: str) -> None:
        nonlocal some
        some = some or row > before
        assert on_bad is not None
        on_bad(row, line, error, column, repaired)

    reading = Reading(path, flaw if on_bad is not None else None, repair, before)
    try:
        check(path)
        position, rows = _opened(path, reading, array)
        for row in rows:
            count = row.number
            yield row
            if moved is not None and count % _MOVED_EVERY == 0:
                moved(position())
    except Damaged as damage:
        error = reading.error(Exit.DATA_SYNTAX, f"{damage}, after row {count}", next_step="copy or download it again")
        if count == before:
            raise error from None
        reading.flaw(0, None, error)
    except PermissionError:
        raise FtuiError(Exit.PERMISSION, "the file may not be read", str(path), "check its owner and mode") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FtuiError(Exit.DATA_MISSING, f"the file cannot be read: {reason}", str(path)) from None
    if notes is not None:
        notes.extend(reading.notes)
    if count == before and not some:
        raise FtuiError(Exit.DATA_MISSING, "the file holds no rows", str(path), "choose another file")


def home(path: Path | str) -> Path:
    """A path with ~ replaced, where there is such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check(path: Path) -> None:
    """Raise DATA_MISSING where there is no such file, with the name that was probably meant."""
    if "\0" in str(path) or not path.exists():
        raise FtuiError(Exit.DATA_MISSING, "there is no such file", str(path), _similar(path))
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise FtuiError(Exit.DATA_MISSING, f"this is {what}, not a data file", str(path), f"name one file: {KINDS}")
    if not path.stat().st_size:
        raise FtuiError(Exit.DATA_MISSING, "the file is empty", str(path), "choose another file")


def _opened(path: Path, reading: Reading, array: str | None) -> tuple[Callable[[], int], Iterator[Row]]:
    """(how many bytes were read so far, the rows)."""
    text, size = TextFile(path), path.stat().st_size
    kind = "" if text.packing else columnar.kind(text.head, text.suffix)
    if kind:
        return lambda: int(reading.share * size), columnar.read(kind, reading)
    encoding.refuse_archive(text.head, path)
    if (wide := encoding.wide(text.head, path)) is not None:
        name, marked, error = wide
        # Without a mark the encoding is only likely: it takes a person's word to read on.
        if not marked and not reading.repair:
            raise error
        reading.flaw(0, None, error, None, f"read as {name}")
        text.encoding = name
    elif b"\0" in text.head and text.suffix not in SUFFIXES:
        line = text.head.count(b"\n", 0, text.head.index(b"\0")) + 1
        raise encoding.nul_error(path, line, text.head.index(b"\0") - text.head.rfind(b"\n", 0, text.head.index(b"\0")))
    return text.position, _text_rows(text, reading, array)


def _text_rows(text: TextFile, reading: Reading, array: str | None) -> Iterator[Row]:
    if text.suffix in _TABLE:
        with text.open() as file:
            yield from tables.read_csv(file, reading, tabs=text.suffix == ".tsv")
        return
    sample = text.sample(_FIRST).decode(errors="replace").removeprefix("\ufeff")
    begin = sample.lstrip()[:1]
    if text.suffix in _TEXT or (text.suffix not in _JSON and begin not in ("[", "{")):
        yield from text_rows.read_text(text, reading)
        return
    wrapped = begin == "{" and json_values.wraps_rows(sample)
    with text.open() as file:
        if begin != "[" and _by_line(sample, text.suffix, wrapped):
            yield from json_rows.read_lines(file, reading)
        else:
            yield from json_values.read_values(file, reading, wrapped, array)


def _by_line(sample: str, suffix: str, wrapped: bool) -> bool:
    """Whether JSON is one row a line, by its first lines that are not blank."""
    first = list(islice((line for line in sample.split("\n") if line.strip()), _FIRST_LINES))
    if wrapped and len(first) == 1:
        return False
    if suffix in (".jsonl", ".ndjson"):
        return not first or first[0].strip() != "{"
    rows = [json_rows.is_row(line) for line in first]
    return bool(rows) and (rows[0] or sum(rows) * 2 > len(rows))


def _similar(path: Path) -> str:
    """A next step that names the file that was probably meant."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except (OSError, ValueError):
        return "check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(close[0])}?" if close else "check the path"
