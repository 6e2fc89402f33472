"""The examples of a data set: as many as there are, and no more memory than a few of them."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import overload

import msgspec

from engine import paths
from engine.data.convert import Example
from engine.errors import Exit, FtuiError

_IN_MEMORY = 32 * 1024 * 1024  # bytes; a data set that is larger goes to disk
_BLOCK = 4 * 1024 * 1024  # bytes written at once, and read at once when all rows are gone through
_BLOCK_ROWS = 4096


class Examples(Sequence[Example]):
    """Examples in order, packed: in memory while they are few, else in a file without a name in the cache folder.

    Each access makes a new Example, so a change to one is not kept. Any thread may read while one appends.
    The file is gone with this object, or with the process.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.rows = array("I")  # the row number of each
        self._ends = array("Q")  # where each ends, in bytes
        self._tail = bytearray()  # what is not on disk
        self._on_disk = 0  # bytes; always whole examples
        self._file: int | None = None
        self._lock = Lock()
        self._encode = msgspec.msgpack.Encoder().encode_into
        self._decode = msgspec.msgpack.Decoder(Example).decode
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Raises FtuiError(DISK_FULL) when the cache folder has no room for it."""
        with self._lock:
            self._encode(example, self._tail, -1)
            self._ends.append(self._on_disk + len(self._tail))
            self.rows.append(example.row)
            if len(self._tail) >= (_IN_MEMORY if self._file is None else _BLOCK):
                self._write()

    @property
    def size(self) -> int:
        """How many bytes all of them take, packed."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> list[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | list[Example]:
        """A slice is read at once: keep it short."""
        if isinstance(at, int):
            index = at + len(self) if at < 0 else at
            if not 0 <= index < len(self):
                raise IndexError(at)
            return self._read(index, index + 1)[0]
        start, stop, step = at.indices(len(self))
        if step == 1:
            return self._read(start, max(start, stop))
        return [self[index] for index in range(start, stop, step)]

    def __iter__(self) -> Iterator[Example]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[Example]]:
        """All examples in lists that are quickly read: each of some megabytes and some thousand rows at most."""
        at = 0
        while at < len(self):
            begin = self._ends[at - 1] if at else 0
            stop, last = at + 1, min(len(self), at + _BLOCK_ROWS)
            if self._ends[last - 1] - begin <= _BLOCK:
                stop = last
            while stop < last and self._ends[stop] - begin <= _BLOCK:
                stop += 1
            yield self._read(at, stop)
            at = stop

    def _read(self, start: int, stop: int) -> list[Example]:
        if start == stop:
            return []
        ends = self._ends[start:stop]
        begin = self._ends[start - 1] if start else 0
        size = ends[-1] - begin
        with self._lock:
            on_disk, tail = self._on_disk, b""
            if begin + size > on_disk:
                tail = bytes(self._tail[max(0, begin - on_disk) : begin + size - on_disk])
        packed = memoryview(self._pread(min(size, on_disk - begin), begin) + tail if begin < on_disk else tail)
        found = []
        at = 0
        for end in ends:
            found.append(self._decode(packed[at : end - begin]))
            at = end - begin
        return found

    def _pread(self, size: int, at: int) -> bytes:
        assert self._file is not None
        parts = []
        while size:
            part = os.pread(self._file, size, at)
            if not part:
                raise FtuiError(Exit.DATA_MISSING, "the rows kept in the cache folder are gone", str(paths.cache_dir()))
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)

    def _write(self) -> None:
        try:
            if self._file is None:
                descriptor, name = tempfile.mkstemp(dir=paths.cache_dir(), prefix=".rows.")
                Path(name).unlink()
                self._file = descriptor
                weakref.finalize(self, os.close, descriptor)
            left = memoryview(self._tail)
            at = self._on_disk
            while left:
                done = os.pwrite(self._file, left, at)
                at, left = at + done, left[done:]
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise FtuiError(
                Exit.DISK_FULL,
                f"the rows cannot be kept while they are looked at: {reason}",
                str(paths.cache_dir()),
                "make room there, or set XDG_CACHE_HOME to another disk",
            ) from None
        self._on_disk += len(self._tail)
        self._tail = bytearray()
