"""Rows out of plain text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from engine.data import encoding
from engine.data.encoding import Line
from engine.data.rows import Reading, Row
from engine.data.streams import TextFile

_WRAPPED_WIDTH = 120  # characters; text wrapped by hand has shorter lines
_SAMPLE_LINES = 400


def read_text(text: TextFile, reading: Reading) -> Iterator[Row]:
    """Each line one example, or each paragraph where the text is wrapped by hand.

    The column is named "line" or "paragraph", so that what was chosen can be told.
    """
    with text.open() as file:
        wrapped = _is_wrapped([line.text for line in islice(encoding.lines(file, reading), _SAMPLE_LINES)])
    row = reading.before
    with text.open() as file:
        lines = encoding.lines(file, reading)
        for block in _paragraphs(lines) if wrapped else ([line] for line in lines if line.text.strip() or line.flaw):
            row += 1
            whole = True
            for line in block:
                if line.flaw is not None:
                    reading.flaw(row, line.number, line.flaw, line.column, line.repaired)
                    whole = whole and bool(line.repaired)
            if whole:
                name = "paragraph" if wrapped else "line"
                yield Row(row, block[0].number, {name: "\n".join(line.text.rstrip("\r\n") for line in block)})


def _paragraphs(lines: Iterator[Line]) -> Iterator[list[Line]]:
    for filled, block in groupby(lines, lambda line: bool(line.text.strip() or line.flaw)):
        if filled:
            yield list(block)


def _is_wrapped(lines: list[str]) -> bool:
    """True if most lines stand, short, in blocks with blank lines between: then a blank line ends a thought."""
    blocks = [len(list(block)) for filled, block in groupby(lines, lambda line: bool(line.strip())) if filled]
    most_wrapped = sum(size > 1 for size in blocks) * 2 > len(blocks) > 1
    return most_wrapped and max(len(line) for line in lines) <= _WRAPPED_WIDTH
