"""Rows out of Parquet and Arrow files, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.data.rows import Reading, Row
from engine.errors import Exit

_BATCH = 1024  # rows
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow"}


def kind(head: bytes, suffix: str) -> str:
    """ "Parquet", "Arrow" (a file), "Arrow stream", or "" by a file's first bytes; the name decides where they cannot."""
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    if head and suffix in (".parquet", ".pq"):
        return "Parquet"
    # A stream begins with a continuation mark and the size of its schema.
    if head and suffix in (".arrow", ".feather", ".ipc", ".arrows"):
        return "Arrow stream"
    return "Arrow stream" if head[:4] == b"\xff\xff\xff\xff" and len(head) > 8 and head[7] == 0 else ""


def read(kind: str, reading: Reading) -> Iterator[Row]:
    """Rows of a file of that kind. What cannot be read any further is told as one flaw, the rows before it stay."""
    try:
        import pyarrow as arrow
    except ImportError:
        raise reading.error(
            Exit.DATA_SYNTAX, f"reading {kind} needs pyarrow, which is not installed", next_step="pip install pyarrow"
        ) from None
    row = reading.before
    try:
        for batch, share in _batches(kind, str(reading.path)):
            for value in _values(batch):
                row += 1
                if isinstance(value, dict):
                    yield Row(row, None, value)
                else:
                    cause = f"row {row} is damaged: its bytes are not what its columns say"
                    reading.flaw(row, None, reading.error(Exit.DATA_SYNTAX, cause, next_step="write the file anew"))
            reading.share = share
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        cause = f"the {kind} file cannot be read after row {row}: {reason}"
        damage = reading.error(Exit.DATA_SYNTAX, cause, next_step="copy or download it again")
        if row == reading.before:
            raise damage from None
        reading.flaw(0, None, damage)


def _batches(kind: str, path: str) -> Iterator[tuple[Any, float]]:
    """(some rows, the share of the file that they end at)."""
    if kind == "Parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            rows = 0
            for batch in table.iter_batches(batch_size=_BATCH):
                rows += batch.num_rows
                yield batch, rows / max(rows, table.metadata.num_rows)
        return
    import pyarrow as arrow

    with arrow.memory_map(path) as source:
        if kind == "Arrow stream":
            with arrow.ipc.open_stream(source) as stream:
                for batch in stream:
                    yield batch, source.tell() / source.size()
            return
        with arrow.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                yield file.get_batch(number), (number + 1) / file.num_record_batches


def _values(batch: Any) -> Iterator[Any]:
    """The rows of a batch as dictionaries; None for one whose bytes are damaged."""
    for begin in range(0, batch.num_rows, _BATCH):
        part = batch.slice(begin, _BATCH)
        if (rows := _checked(part)) is not None:
            yield from rows
            continue
        for at in range(part.num_rows):
            one = _checked(part.slice(at, 1))
            yield one[0] if one else None


def _checked(part: Any) -> list[Any] | None:
    """The rows of a part. Arrow trusts the offsets of a file, and reads outside its memory where they are damaged."""
    import pyarrow as arrow

    try:
        part.validate(full=True)
        return list(part.to_pylist())
    except (arrow.ArrowException, UnicodeDecodeError):
        return None
