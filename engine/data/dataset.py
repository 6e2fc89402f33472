"""A data set, read and made ready: the same examples whatever files they came from."""

from __future__ import annotations

import contextlib
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.data import locate, shapes, sources
from engine.data.convert import Example, Message, Unusable, converter
from engine.data.digest import Digest
from engine.data.locate import Located
from engine.data.placeholders import NAMES, Filler
from engine.data.rows import WAY_OUT, Row
from engine.data.shapes import Shape
from engine.data.store import Examples
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Source, Stage

__all__ = ["NAMES", "BadRow", "Dataset", "Example", "Message", "load"]

MOST_BAD = 1_000_000  # rows that are listed; a file with more is another kind of file
_PLAIN: set[Stage] = {"sft", "pretraining"}  # rows that can be trained on together

Progress = Callable[[int, int], None]


class BadRow(Struct):
    """A row that cannot be used as it is. `line` and `column` count from 1, where the file has them.

    row       its number through all files; 0 for a flaw of a file that is not one of a row
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


class Origins:
    """Where rows come from: the files in order, and the line that each row begins on."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._before: list[int] = []  # rows before each file
        self.lines = array("I")  # of each row, 0 where there are no lines

    def begin(self, path: Path, before: int) -> None:
        self.files.append(str(path))
        self._before.append(before)

    def add(self, row: int, line: int | None) -> None:
        """Rows come in order; what is told about one twice counts once."""
        if row > len(self.lines):
            self.lines.extend([0] * (row - 1 - len(self.lines)))
            self.lines.append(line or 0)

    def of(self, row: int) -> tuple[str, int, int | None]:
        """(the file, the row's number in it, the line it begins on), all numbers from 1."""
        if not 1 <= row <= len(self.lines):
            raise IndexError(row)
        file = bisect_left(self._before, row) - 1
        return self.files[file], row - self._before[file], self.lines[row - 1] or None


class Dataset(Struct):
    """`shape` is that of the first source.

    shapes        one a source; as in weights and begins, a source that none of whose rows can be used has none
    skipped       rows that cannot be used, in order
    repaired      rows that can, after something was done to them
    placeholders  names that still stand in the rows as {{name}} -> how many rows hold them
    filled        names that were filled in -> how many rows held them
    sha256        of the examples as they will be trained on: roles, texts and their order, with placeholders filled
    identity      most rows say who the model is (they hold or held {{name}} or {{author}})
    partial       not all rows were read
    notes         what a person should know about the reading, in sentences
    weights       of each source
    begins        the index of each source's first example
    """

    source: str
    shape: Shape
    shapes: list[Shape]
    examples: Examples
    skipped: list[BadRow]
    repaired: list[BadRow]
    placeholders: dict[str, int]
    filled: dict[str, int]
    sha256: str
    identity: bool
    partial: bool
    notes: list[str]
    weights: list[float]
    begins: list[int]
    origins: Origins

    @property
    def stage(self) -> Stage:
        """What the rows can train: "sft" where conversations and plain text are mixed."""
        stages = {shape.stage for shape in self.shapes}
        return self.shape.stage if len(stages) == 1 or not stages <= _PLAIN else "sft"

    def origin(self, row: int) -> tuple[str, int, int | None]:
        """(the file, the row's number in it, the line it begins on) of a row by its number through all files."""
        return self.origins.of(row)

    def repeats(self, seed: int) -> Sequence[int]:
        """Indices of the examples that an epoch sees, in the order of the sources.

        Rows of weight 2 come twice, of 0.5 a half of them, drawn by `seed`; of 2.5 twice and a half of them again.
        """
        if all(weight == 1 for weight in self.weights):
            return range(len(self.examples))
        drawn = random.Random(seed)
        seen = array("q")
        for weight, begin, stop in zip(self.weights, self.begins, [*self.begins[1:], len(self.examples)], strict=True):
            whole = int(weight)
            for _ in range(whole):
                seen.extend(range(begin, stop))
            seen.extend(sorted(drawn.sample(range(begin, stop), round((weight - whole) * (stop - begin)))))
        return seen


def load(data: Data, *, strict: bool = True, limit: int | None = None, progress: Progress | None = None) -> Dataset:
    """Read a data set whole; what a source can be is told in `recipe.Source`.

    strict    with on_bad_row "abort" the first row that cannot be used raises. False, to look at a data set: such rows
              are only listed, and an error is raised only where there is nothing else
    limit     read only so many rows of each source, for a first look
    progress  called with (bytes read, bytes in all)

    Raises FtuiError: as `locate.files` and `sources.read`, DATA_SHAPE for columns that match nothing or sources that
    cannot be trained on together, and DATA_ROW for the first row that cannot be trained on (or when none can).
    """
    loading = _Loading(data, strict, limit, progress)
    for source, located in loading.sources:
        loading.read(source, located)
    return loading.finished()


class _Enough(Exception):
    """No more rows are wanted of a source: thrown through the reader that told of a flaw, or by what is done to rows."""


class _Loading:
    """A data set while it is read."""

    def __init__(self, data: Data, strict: bool, limit: int | None, progress: Progress | None) -> None:
        self.sources = [(source, locate.files(source)) for source in data.sources]
        self._data = data
        self._strict = strict
        self._abort = strict and data.on_bad_row == "abort"
        self._limit = limit
        self._progress = progress
        self._total = sum(_size(path) for _, located in self.sources for path in located.paths)
        self._done = 0  # bytes of the files before the one at hand
        self._row = 0
        self._last: int | None = None  # row that is still wanted
        self._unread: list[FtuiError] = []  # why whole files could not be read
        self._fill = Filler(data.values)
        self._digest = Digest()
        self._origins = Origins()
        self._examples = Examples()
        self._read: list[tuple[Source, Located, Shape]] = []  # the sources that have rows
        self._begins: list[int] = []
        self._skipped: list[BadRow] = []
        self._repaired: list[BadRow] = []
        self._notes: list[str] = []
        self._partial = False

    def read(self, source: Source, located: Located) -> None:
        """Read one source behind those before it."""
        self._notes += located.notes
        self._last = None if self._limit is None else self._row + self._limit
        rows = self._rows(located)
        first = list(islice(rows, shapes.SAMPLE))
        if not first:
            if self._strict:
                raise self._none_usable()
            return  # where there is nothing else, `finished` says why
        # One that holds no row is passed over only while a person looks, where a number may be too small.
        shape = _shape([row.value for row in first], source, located, len(self._read) + 1)
        self._read.append((source, located, shape))
        self._begins.append(len(self._examples))
        with contextlib.suppress(_Enough):
            self._convert(chain(first, rows), shape)

    def _convert(self, rows: Iterator[Row], shape: Shape) -> None:
        convert = converter(shape, self._data.system)
        fill, add, append = self._fill.fill, self._digest.add, self._examples.append
        for row in rows:
            try:
                example = convert(row.number, row.value)
            except Unusable as error:
                self._unusable(row, str(error))
            else:
                fill(example)
                add(example)
                append(example)

    def _rows(self, located: Located) -> Iterator[Row]:
        """The rows of a source's files, numbered on."""
        add = self._origins.add
        for path in located.paths:
            self._origins.begin(path, self._row)
            try:
                for row in sources.read(
                    path,
                    None if self._abort else self._flaw,
                    self._data.on_bad_row == "repair",
                    before=self._row,
                    array=located.array,
                    notes=self._notes,
                    moved=self._moved,
                ):
                    if self._last is not None and row.number > self._last:
                        self._partial = True
                        return
                    self._row = row.number
                    add(row.number, row.line)
                    yield row
            except _Enough:
                return
            except FtuiError as error:
                if self._strict:
                    raise
                self._unread.append(error)
                self._skipped.append(BadRow(0, None, error.cause, error.code, None, str(path)))
            self._done += _size(path)
            self._moved(0)

    def _flaw(self, row: int, line: int | None, error: FtuiError, column: int | None, repaired: str) -> None:
        if self._last is not None and row > self._last:
            self._partial = True
            raise _Enough
        self._row = max(self._row, row)
        self._origins.add(row, line)
        bad = BadRow(row, line, error.cause, error.code, column, self._origins.files[-1], repaired)
        if repaired:
            self._repaired.append(bad)
        else:
            self._list(bad)

    def _list(self, bad: BadRow) -> None:
        if len(self._skipped) < MOST_BAD:
            self._skipped.append(bad)
            return
        cause = f"more than {MOST_BAD:,} rows cannot be used, the first of them: {self._skipped[0].reason}"
        if self._strict:
            raise FtuiError(bad.code, cause, bad.source, "is this the right file?")
        if not self._partial:
            self._notes.append(f"{cause}; the rest was not read")
        self._partial = True
        raise _Enough

    def _unusable(self, row: Row, why: str) -> None:
        file = self._origins.of(row.number)[0]
        reason = f"row {row.number} {why}"
        if self._abort:
            where = f"{file}, line {row.line}" if row.line is not None else file
            raise FtuiError(Exit.DATA_ROW, reason, where, f"mend it; or {WAY_OUT}")
        self._list(BadRow(row.number, row.line, reason, Exit.DATA_ROW, None, file))

    def _moved(self, position: int) -> None:
        if self._progress is not None:
            self._progress(min(self._done + position, self._total), self._total)

    def finished(self) -> Dataset:
        if not self._examples:
            raise self._unread[0] if self._unread else self._none_usable()
        shapes_ = [shape for _, _, shape in self._read]
        self._check_stages(shapes_)
        self._skipped.sort(key=lambda bad: bad.row)
        return Dataset(
            self._data.source,
            shapes_[0],
            shapes_,
            self._examples,
            self._skipped,
            self._repaired,
            placeholders=self._fill.left,
            filled=self._fill.filled,
            sha256=self._digest.hexdigest(),
            identity=self._fill.rows * 2 > len(self._examples),
            partial=self._partial,
            notes=self._notes,
            weights=[source.weight for source, _, _ in self._read],
            begins=self._begins,
            origins=self._origins,
        )

    def _check_stages(self, found: list[Shape]) -> None:
        stages = {shape.stage for shape in found}
        if len(stages) == 1 or stages <= _PLAIN:
            return
        kinds = ", ".join(f"{located.name} is for {shape.stage}" for _, located, shape in self._read)
        cause = f"the sources cannot be trained on together: {kinds}"
        raise FtuiError(Exit.DATA_SHAPE, cause, self._data.source, "train on one kind at a time")

    def _none_usable(self) -> FtuiError:
        first = self._skipped[0]
        code = first.code if all(bad.code == first.code for bad in self._skipped) else Exit.DATA_ROW
        many = len(self._skipped)
        cause = f"{'the only row cannot' if many == 1 else f'none of the {many:,} rows can'} be used: {first.reason}"
        how = "" if self._data.on_bad_row == "repair" else ", or have mended what can be (--bad-rows repair)"
        return FtuiError(code, cause, first.source, "mend the file" + how)


def _shape(values: list[dict[str, Any]], source: Source, located: Located, number: int) -> Shape:
    """`number` is that of the source, from 1: the options --prompt and --completion are for the first."""
    try:
        if source.prompt is None and source.completion is None:
            return shapes.detect(values, located.columns, located.tags)
        return shapes.from_templates(values, source, located.columns, located.tags)
    except FtuiError as error:
        step = error.next_step
        for role in ("prompt", "completion") if number > 1 else ():
            step = step.replace(f"--{role} '", f"--columns '{number}:{role}=")
        raise FtuiError(error.code, error.cause, str(located.paths[0]), step) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
