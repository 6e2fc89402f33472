"""A data set, read and made ready: the same examples whatever file they came from."""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.data import shapes, sources
from engine.data.convert import Example, Message, Unusable, converter
from engine.data.shapes import Shape
from engine.errors import Exit, FtuiError
from engine.recipe import Data

__all__ = ["BadRow", "Dataset", "Example", "Message", "load"]

NAMES = ("name", "author")  # the placeholders of identity data sets, as LLaMA-Factory's identity.json has them
_SKIP = "mend it, or leave such rows out (--bad-rows skip)"


class BadRow(Struct):
    """A row that cannot be used. `line` and `column` count from 1, where the file has them.

    source    the file
    repaired  what was done to it, if it was mended and is among the examples after all
    """

    row: int
    line: int | None
    reason: str
    code: Exit
    column: int | None = None
    source: str = ""
    repaired: str = ""


class Dataset(Struct):
    """placeholders  names that still stand in the rows as {{name}} -> how many rows hold them
    filled        names that were filled in -> how many rows held them
    sha256        of the examples as they will be trained on: roles, texts and their order, with placeholders filled
    identity      most rows say who the model is (they hold or held {{name}} or {{author}})
    """

    source: str
    shape: Shape
    examples: list[Example]
    skipped: list[BadRow]
    placeholders: dict[str, int]
    filled: dict[str, int]
    sha256: str
    identity: bool


def load(data: Data) -> Dataset:
    """Read a data set whole. `data.source` is a file or "preset:NAME".

    Raises FtuiError: as `sources.read`, DATA_SHAPE for columns that match nothing, and DATA_ROW for the first row that
    cannot be trained on (or, with on_bad_row "skip", when none can).
    """
    path = _path(data.source)
    skipped: list[BadRow] = []
    skip = data.on_bad_row == "skip"

    def left_out(row: int, line: int | None, error: FtuiError) -> None:
        skipped.append(BadRow(row, line, error.cause, error.code))

    rows = sources.read(path, left_out if skip else None)
    first = list(islice(rows, shapes.SAMPLE))
    if not first:
        raise _none_usable(path, skipped)
    shape = _shape([row.value for row in first], data, path)
    convert = converter(shape, data.system)
    examples: list[Example] = []
    fill = _Filler(data.values)
    for source in (first, rows):
        for row in source:
            try:
                example = convert(row.number, row.value)
            except Unusable as error:
                reason = f"row {row.number} {error}"
                if not skip:
                    where = f"{path}, line {row.line}" if row.line is not None else str(path)
                    raise FtuiError(Exit.DATA_ROW, reason, where, _SKIP) from None
                skipped.append(BadRow(row.number, row.line, reason, Exit.DATA_ROW))
            else:
                examples.append(fill(example))
        first = []  # the sample is not held twice
    if not examples:
        raise _none_usable(path, skipped)
    skipped.sort(key=lambda bad: bad.row)
    return Dataset(
        data.source,
        shape,
        examples,
        skipped,
        placeholders=fill.left,
        filled=fill.filled,
        sha256=_sha256(examples),
        identity=fill.rows * 2 > len(examples),
    )


def _shape(values: list[dict[str, Any]], data: Data, path: Path) -> Shape:
    try:
        if data.prompt is None and data.completion is None:
            return shapes.detect(values)
        return shapes.from_templates(values, data)
    except FtuiError as error:
        raise FtuiError(error.code, error.cause, str(path), error.next_step) from None


def _path(source: str) -> Path:
    if not source.startswith("preset:"):
        return sources.home(source)
    from engine import presets

    name = source.removeprefix("preset:")
    path = presets.load(name).data_path
    if path is None:
        raise FtuiError(
            Exit.DATA_MISSING, f"the preset {name} brings no data of its own", source, "name a data file (--data FILE)"
        )
    return Path(path)


def _none_usable(path: Path, skipped: list[BadRow]) -> FtuiError:
    reason = f": {skipped[0].reason}" if skipped else ""
    return FtuiError(Exit.DATA_ROW, f"none of the {len(skipped)} rows can be used{reason}", str(path), "mend the file")


class _Filler:
    """Puts values in the place of {{name}} and counts, in rows, what was filled and what was left."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        # Only names that are meant: {{ other }} may be what a row about Jinja or Vue teaches.
        names = "|".join(map(re.escape, sorted({*NAMES, *values}, key=len, reverse=True)))
        self._pattern = re.compile(r"\{\{[ \t]*(" + names + r")[ \t]*\}\}")
        self.left: dict[str, int] = {}
        self.filled: dict[str, int] = {}
        self.rows = 0

    def __call__(self, example: Example) -> Example:
        seen: set[str] = set()

        def put(match: re.Match[str]) -> str:
            seen.add(match[1])
            return self._values.get(match[1], match[0])

        if example.messages is None:
            if "{{" in (example.text or ""):
                example.text = self._pattern.sub(put, example.text or "")
        else:
            for message in example.messages:
                if "{{" in message.content:
                    message.content = self._pattern.sub(put, message.content)
        for name in seen:
            counts = self.filled if name in self._values else self.left
            counts[name] = counts.get(name, 0) + 1
        self.rows += not seen.isdisjoint(NAMES)
        return example


def _sha256(examples: list[Example]) -> str:
    """Each text with its length before it, so that no two data sets write the same bytes."""
    digest = hashlib.sha256()
    for example in examples:
        if example.messages is None:
            parts = [("text", example.text or "")]
        else:
            parts = [(message.role, message.content) for message in example.messages]
        digest.update(b"%d\n" % len(parts))
        for role, text in parts:
            raw = text.encode()
            digest.update(b"%s %d\n" % (role.encode(), len(raw)) + raw)
    return digest.hexdigest()
