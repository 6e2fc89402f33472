"""A text file as UTF-8 bytes: unpacked (gzip, zstd) and recoded (UTF-16, UTF-32) on the way, in constant memory."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

SAMPLE = 4096  # bytes looked at to tell what a file is
# Bytes unpacked at once: a small file that unpacks to gigabytes must not fill the memory. gzip makes at most 1,032 bytes of
# one, zstd 128 kB of four.
_PACKED = {"gzip": 8192, "zstd": 1024}
# Nor the disk: text packs to a tenth, the same row over and over to a hundredth. Beyond both of these it is no data.
_TIMES, _MOST = 300, 1 << 30
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {"gzip": (".gz", ".gzip"), "zstd": (".zst", ".zstd")}


class Damaged(Exception):
    """A packed file that cannot be unpacked any further; the reason as the rest of a sentence about the file."""


class TextFile:
    """Each `open` begins at the start again.

    packing   "gzip", "zstd" or ""
    suffix    of what is inside: ".jsonl" for rows.jsonl.gz
    head      the first SAMPLE bytes of what is inside, before any recoding
    encoding  what `open` recodes to UTF-8 from, "" to leave the bytes as they are
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.encoding = ""
        self._raw: BinaryIO | None = None
        with path.open("rb") as file:
            head = file.read(4)
        self.packing = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
        inner = path.with_suffix("") if path.suffix.lower() in _SUFFIXES.get(self.packing, ()) else path
        self.suffix = inner.suffix.lower()
        self.head = self.sample(SAMPLE)

    def open(self) -> BinaryIO:
        """Raises OSError; reading what it returns raises Damaged."""
        self._raw = raw = self.path.open("rb")
        stream: BinaryIO = raw
        if self.packing:
            stream = _buffered(_Unpacked(raw, _unpacker(self.packing), self.packing))
        if self.encoding:
            stream = _buffered(_Recoded(stream, self.encoding))
        return stream

    def sample(self, size: int) -> bytes:
        """The first `size` bytes, or what can be had of them."""
        parts: list[bytes] = []
        with self.open() as stream, contextlib.suppress(Damaged):
            while size > 0 and (part := stream.read1(size)):  # type: ignore[attr-defined]
                parts.append(part)
                size -= len(part)
        return b"".join(parts)

    def position(self) -> int:
        """Bytes of the file on disk that were read since the last `open`."""
        return self._raw.tell() if self._raw is not None and not self._raw.closed else 0


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _unpacker(packing: str) -> Callable[[], _Unpacker]:
    if packing == "gzip":
        import zlib

        return cast(Callable[[], _Unpacker], lambda: zlib.decompressobj(wbits=31))
    import zstandard

    return cast(Callable[[], _Unpacker], zstandard.ZstdDecompressor().decompressobj)


def _buffered(stream: io.RawIOBase) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(stream, 1 << 16))


class _Stream(io.RawIOBase):
    """A stream of whatever `_more` gives, b"" at its end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ready:
            self._ready = memoryview(self._more())
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()

    def _more(self) -> bytes:
        raise NotImplementedError


class _Unpacked(_Stream):
    """One packed stream after another, as gzip and zstd files may hold."""

    def __init__(self, source: BinaryIO, fresh: Callable[[], _Unpacker], name: str) -> None:
        super().__init__(source)
        self._fresh = fresh
        self._name = name
        self._unpacker = fresh()
        self._begun = False
        self._packed = self._text = 0  # bytes so far
        self._damage: Damaged | None = None

    def _more(self) -> bytes:
        while self._damage is None:
            packed = b""
            if self._unpacker.eof:
                packed = self._unpacker.unused_data
                self._unpacker, self._begun = self._fresh(), False
            if not packed:
                packed = self._source.read(_PACKED[self._name])
                self._packed += len(packed)
            if not packed:
                if not self._begun:
                    return b""
                self._damage = Damaged(f"the {self._name} file ends too early: it was cut off")
                break
            if not self._begun:
                packed = packed.lstrip(b"\0")  # some tools pad with zeros
            self._begun = self._begun or bool(packed)
            try:
                text = self._unpacker.decompress(packed)
            except Exception as error:  # zlib.error or zstandard.ZstdError, whichever package is at work
                reason = " ".join(str(error).split())[:120]
                self._damage = Damaged(f"the {self._name} file is damaged and cannot be unpacked any further: {reason}")
                break
            self._text += len(text)
            if self._text > _MOST and self._text > _TIMES * self._packed:
                self._damage = Damaged(
                    f"the {self._name} file unpacks to more than {_TIMES} times its size: no rows do, so it is read no further"
                )
                break
            if text:
                return text
        raise self._damage


class _Recoded(_Stream):
    """UTF-8 out of another encoding. What is none of it becomes a byte that is not UTF-8, so that its row is named."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        super().__init__(source)
        self._decoder = codecs.getincrementaldecoder(name)("surrogatepass")
        self._ended = False

    def _more(self) -> bytes:
        while not self._ended:
            raw = self._source.read(1 << 16)
            self._ended = not raw
            try:
                text = self._decoder.decode(raw, final=self._ended)
            except UnicodeDecodeError as error:
                self._decoder.reset()
                self._ended = True
                done = error.object[: error.start].decode(error.encoding, "surrogatepass")
                return done.encode("utf-8", "surrogatepass") + b"\xff"
            if text:
                return text.encode("utf-8", "surrogatepass")
        return b""
