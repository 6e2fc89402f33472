"""Counted once, kept by content: what was found out about the rows of a data set, and their tokens.

A data set is known by the hash of its rows, the tokenizer by that of its vocabulary and template, and the way from one
to the other by that of the program text that goes it: nothing that is kept can outlive a change to any of them.
Two files an entry in the cache folder: `KEY.npz` holds lengths and trained spans, and names the other,
`KEY-….tokens`, with the token ids of all rows, two bytes each where the vocabulary allows it, else four.
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
_PROGRAM = ("sandbox", "chat_template", "turns", "rendering", "tokenizer", "measure", "skeleton", "trial", "counting")
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

    try:
        file = _folder() / f"{name}.npz"
        with np.load(file, allow_pickle=False) as kept:
            table = Table(0)
            for column in _COLUMNS:
                setattr(table, column, kept[column])
            begin, counter, ids = kept["begin"], str(kept["counter"]), str(kept["ids"])
            width = np.dtype(np.uint16 if kept["narrow"] else np.uint32)
        if len(table.total) != rows or len(table.at) != rows + 1:
            return None
        os.utime(file)
        tokens = None
        if ids:
            tokens = Tokens(np.memmap(file.with_name(Path(ids).name), width, mode="r"), begin)
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

        self._name = name
        self._width = np.dtype(np.uint16 if vocabulary <= 0x10000 else np.uint32)
        self._begin = np.full(rows, -1, np.int64)
        self._count = 0
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            self._folder = _folder()
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

        columns = {column: getattr(table, column) for column in _COLUMNS}
        ids = ""
        try:
            whole = _folder() / f"{self._name}.npz"
            if self._file is not None:
                self._file.close()
                # Its own name: two processes may count the same rows, in another order.
                ids = f"{self._name}-{self._half.name[-8:]}.tokens"
                self._half = self._half.replace(whole.with_name(ids))
            columns |= {
                "begin": self._begin if ids else np.zeros(0),
                "counter": np.array(counter),
                "ids": np.array(ids),
            }
            _save(whole, {**columns, "narrow": np.array(self._width.itemsize == 2)})
            _make_room(whole.parent, self._name, ids)
        except OSError:
            self.discard()
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


def _save(target: Path, columns: dict[str, Any]) -> None:
    import numpy as np

    descriptor, half = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **columns)
        Path(half).replace(target)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise


def _make_room(folder: Path, name: str, ids: str) -> None:
    """Remove what was not used for longest until the rest is within bounds, what a killed process left half, and older
    tokens of the entry `name`.
    """
    entries: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for file in folder.iterdir():
        with suppress(OSError):
            entry = file.name if file.name.startswith(".") else file.stem.partition("-")[0]
            entries.setdefault(entry, []).append((file, file.stat()))
    used = {entry: max(stat.st_mtime for _, stat in files) for entry, files in entries.items()}
    left = sum(stat.st_size for files in entries.values() for _, stat in files)
    for entry in sorted(entries, key=lambda entry: used[entry]):
        half = entry.startswith(".")
        for file, stat in entries[entry]:
            old = entry == name and file.suffix == ".tokens" and file.name != ids
            if old or (used[entry] < time.time() - _DAY if half else left > TOTAL):
                file.unlink(missing_ok=True)
                left -= stat.st_size
