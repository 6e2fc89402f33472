"""Rows out of tables: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine.data import encoding
from engine.data.rows import BadRowHandler, Row
from engine.errors import Exit, FtuiError


def read_csv(file: BinaryIO, path: Path, on_bad: BadRowHandler | None) -> Iterator[Row]:
    """Rows of a CSV or TSV file; its first line names the columns. Commas, semicolons and tabs are told apart there."""
    csv.field_size_limit(encoding.MAX_LINE)
    header_line = next(encoding.lines(file, path), (1, ""))[1]
    file.seek(0)
    counts = {char: header_line.count(char) for char in "\t,;"}
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(counts, key=lambda c: (counts[c], c == ","))
    reader = csv.reader((text for _, text in encoding.lines(file, path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 0
    line = 1
    try:
        for cells in reader:
            begin, line = line, reader.line_num + 1
            if not any(cells):
                continue
            if header is None:
                header = _header(cells, path, begin)
                continue
            number += 1
            if len(cells) == len(header):
                yield Row(number, begin, dict(zip(header, cells, strict=True)))
                continue
            error = FtuiError(
                Exit.DATA_SYNTAX,
                f"row {number} has {len(cells)} cells, the header names {len(header)}",
                f"{path}, line {begin}",
                'put cells that hold the separator or line ends between "quotes"',
            )
            if on_bad is None:
                raise error
            on_bad(number, begin, error)
    except csv.Error as problem:
        cause = f"this is not CSV: {problem}"
        if "unexpected end" in str(problem):
            cause = 'the file ends inside a quoted cell: a " is missing, or it was cut off'
        # The row began on `line`; the reader may have run on to the end of the file in search of a quote.
        raise FtuiError(Exit.DATA_SYNTAX, cause, f"{path}, line {line}", "mend the quotes there") from None


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    wrong = "" if all(names) else "a column has no name"
    twice = next((name for name in names if names.count(name) > 1), None)
    if not wrong and twice:
        wrong = f"two columns are named {twice}"
    if wrong:
        raise FtuiError(
            Exit.DATA_SYNTAX, f"{wrong} in the header", f"{path}, line {line}", "the first line must name the columns"
        )
    return names


def read_parquet(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file, some at a time."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise FtuiError(
            Exit.DATA_SYNTAX, "reading Parquet needs pyarrow, which is not installed", str(path), "pip install pyarrow"
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, None, value)
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FtuiError(
            Exit.DATA_SYNTAX,
            f"the Parquet file cannot be read: {reason}",
            f"{path}, after row {number}",
            "copy or download it again",
        ) from None
