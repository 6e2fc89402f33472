"""Counted once, kept by content: what was found out about the rows of a data set, and their tokens.

A data set is known by the hash of its rows, the tokenizer by that of its vocabulary and template, and the way from one
to the other by that of the program text that goes it: nothing that is kept can outlive a change to any of them.
Two files an entry in the cache folder: `KEY.npz` holds lengths and trained spans, `KEY.tokens` the token ids of all
rows, two bytes each where the vocabulary allows it, else four.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import zipfile
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct

from engine import paths
from engine.data.measure import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.data.dataset import Dataset
    from engine.data.tokenizer import Tokenizer

TOKENS = 512 * 1024 * 1024  # bytes of token ids that are kept of one data set; of a larger one, only the lengths
TOTAL = 2 * 1024 * 1024 * 1024  # bytes of all entries; those that were not used for longest go first
_COLUMNS = ("total", "completion", "first", "end", "flags", "at", "starts", "stops")
_PROGRAM = ("sandbox", "chat_template", "turns", "rendering", "tokenizer", "measure", "skeleton", "counting")
_DAY = 24 * 60 * 60  # seconds


class Tokens(Struct):
    """The token ids of all rows, on disk: those of row i begin at `begin[i]` in `ids`."""

    ids: Any
    begin: Any


class Entry(Struct):
    """`counter` says how the rows were counted; `tokens` is None where there were too many to keep."""

    table: Table
    counter: str
    tokens: Tokens | None


def key(dataset: Dataset, tokenizer: Tokenizer) -> str:
    parts = [dataset.sha256, tokenizer.fingerprint, _program(), str(len(dataset.examples))]
    if tokenizer.dated:
        parts.append(date.today().isoformat())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


def read(name: str, rows: int) -> Entry | None:
    """What is kept under a key; None if there is nothing, or nothing that can be used."""
    import numpy as np

    file = _folder() / f"{name}.npz"
    try:
        with np.load(file, allow_pickle=False) as kept:
            table = Table(0)
            for column in _COLUMNS:
                setattr(table, column, kept[column])
            begin, counter = kept["begin"], str(kept["counter"])
            width = np.dtype(np.uint16 if kept["narrow"] else np.uint32)
        if len(table.total) != rows or len(table.at) != rows + 1:
            return None
        os.utime(file)
        tokens = None
        if len(begin) == rows and rows:
            tokens = Tokens(np.memmap(file.with_suffix(".tokens"), width, mode="r"), begin)
            if len(tokens.ids) != table.total.sum():
                return None
        return Entry(table, counter, tokens)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


class Writer:
    """Keeps the tokens of rows as they are counted; `finish` makes an entry of them.

    A disk that is full costs the entry and nothing else. Preference pairs, two texts a row, are kept without tokens.
    """

    def __init__(self, name: str, rows: int, vocabulary: int) -> None:
        import numpy as np

        self._folder = _folder()
        self._name = name
        self._width = np.dtype(np.uint16 if vocabulary <= 0x10000 else np.uint32)
        self._begin = np.full(rows, -1, np.int64)
        self._count = 0
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            descriptor, half = tempfile.mkstemp(dir=self._folder, prefix=f".{name}.")
            self._file, self._half = os.fdopen(descriptor, "wb"), Path(half)

    def keep(self, rows: NDArray[Any], counts: NDArray[Any], ids: NDArray[Any]) -> None:
        if self._file is None:
            return
        narrow = self._width.itemsize == 2
        too_many = (self._count + len(ids)) * self._width.itemsize > TOKENS
        if too_many or (self._begin[rows] >= 0).any() or (narrow and ids.max(initial=0) > 0xFFFF):
            self.discard()
            return
        self._begin[rows] = self._count + counts.cumsum() - counts
        self._count += len(ids)
        try:
            self._file.write(ids.astype(self._width).tobytes())
        except OSError:
            self.discard()

    def finish(self, table: Table, counter: str) -> Entry:
        """Make the entry, and room for it. `table` is closed."""
        import numpy as np

        begin = self._begin if self._file is not None else np.zeros(0, np.int64)
        columns = {column: getattr(table, column) for column in _COLUMNS}
        target = self._folder / f"{self._name}.npz"
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
                self._half.replace(target.with_suffix(".tokens"))
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=f".{self._name}.", delete=False) as file:
                narrow = self._width.itemsize == 2
                np.savez(file, begin=begin, counter=np.array(counter), narrow=np.array(narrow), **columns)
            Path(file.name).replace(target)
        _make_room(self._folder)
        return read(self._name, len(table.total)) or Entry(table, counter, None)

    def discard(self) -> None:
        """Keep no tokens."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._half.unlink(missing_ok=True)
        self._file = None


def _folder() -> Path:
    return paths.private_dir(paths.cache_dir() / "lengths")


@cache
def _program() -> str:
    """A hash of the program text that makes tokens of rows."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in _PROGRAM)).hexdigest()


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest until the rest is within bounds, and what a killed process left half."""
    entries: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for file in folder.iterdir():
        with suppress(OSError):
            entries.setdefault(file.name if file.name.startswith(".") else file.stem, []).append((file, file.stat()))
    used = {name: max(stat.st_mtime for _, stat in files) for name, files in entries.items()}
    left = sum(stat.st_size for files in entries.values() for _, stat in files)
    for name in sorted(entries, key=lambda name: used[name]):
        stale = name.startswith(".") and used[name] < time.time() - _DAY
        if stale or (left > TOTAL and not name.startswith(".")):
            for file, stat in entries[name]:
                file.unlink(missing_ok=True)
                left -= stat.st_size
