"""Bytes to text, strictly UTF-8: what is not says which encoding it looks like and how to convert it."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from engine.errors import Exit, FtuiError

MAX_LINE = 32 * 1024 * 1024  # bytes; a longer line is no example that a model could be trained on
SAMPLE = 4096  # bytes looked at to tell what a file is

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)
_ARCHIVES = (
    (b"\x1f\x8b", "gzip", "gunzip -k {}"),
    (b"PK\x03\x04", "zip (or a spreadsheet)", "unzip {}, or save the sheet as CSV"),
    (b"\xfd7zXZ\x00", "xz", "unxz -k {}"),
    (b"BZh", "bzip2", "bunzip2 -k {}"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd {}"),
    (b"ARROW1", "Arrow", "save it as Parquet or JSONL"),
    (b"\x89HDF", "HDF5", "save it as Parquet or JSONL"),
)


def check_head(head: bytes, path: Path) -> None:
    """Refuse a file by its first bytes: a wide encoding (DATA_ENCODING) or an archive (DATA_SYNTAX)."""
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            raise _wrong_encoding(path, f"the file is {name}, not UTF-8", name.removesuffix("LE").removesuffix("BE"))
    for magic, name, command in _ARCHIVES:
        if head.startswith(magic):
            raise FtuiError(
                Exit.DATA_SYNTAX,
                f"the file is {name}, not text",
                str(path),
                "unpack it first: " + command.format(shlex.quote(str(path))),
            )
    if b"\0" in head:
        raise nul_error(path, head, head.count(b"\n", 0, head.index(b"\0")) + 1)


def nul_error(path: Path, raw: bytes, line: int) -> FtuiError:
    """The error for text with NUL bytes: UTF-16 without a mark has them at every second place."""
    even, odd = raw[0::2].count(0), raw[1::2].count(0)
    if max(even, odd) > len(raw) // 8 and max(even, odd) > 4 * min(even, odd):
        name = "UTF-16LE" if odd > even else "UTF-16BE"
        return _wrong_encoding(path, f"the file looks like {name}, not UTF-8", name)
    return FtuiError(
        Exit.DATA_ENCODING,
        "the file holds a NUL byte, so it is not text (or it is damaged)",
        f"{path}, line {line}, column {raw.index(0) + 1}" if raw else str(path),
        f"look at it with: file {shlex.quote(str(path))}; tr -d '\\000' takes NUL bytes out",
    )


def decode_error(path: Path, raw: bytes, error: UnicodeDecodeError, line: int, column: int) -> FtuiError:
    """The error for bytes that are not UTF-8. `raw` is what is around them; `line` and `column` count from 1."""
    name = _guess(raw)
    value = error.object[error.start]
    cause = f"byte 0x{value:02x} is not UTF-8; the file looks like {name}"
    return _wrong_encoding(path, cause, name, f"{path}, line {line}, column {column}")


def cut_error(path: Path, line: int) -> FtuiError:
    return FtuiError(
        Exit.DATA_SYNTAX,
        "the file ends in the middle of a character: it was cut off",
        f"{path}, line {line}",
        "copy or download it again",
    )


def lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text with its line end) for each line. Raises DATA_ENCODING, or DATA_SYNTAX if too long."""
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) > MAX_LINE:
            raise too_long(path, number)
        if b"\0" in raw:
            raise nul_error(path, raw, number)
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and not raw.endswith(b"\n") and len(raw) - error.start < 4:
                raise cut_error(path, number) from None
            column = len(raw[: error.start].decode(errors="replace")) + 1
            raise decode_error(path, raw, error, number, column) from None


def too_long(path: Path, line: int) -> FtuiError:
    return FtuiError(
        Exit.DATA_SYNTAX,
        f"one row is longer than {MAX_LINE // 1024 // 1024} MB",
        f"{path}, line {line}",
        "is this the right file? a row is one example, with line ends between rows",
    )


def _guess(raw: bytes) -> str:
    """GB18030 when the bytes read as mostly common Han characters, else Windows-1252 (which covers Latin-1)."""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "Windows-1252"
    wide = [c for c in text if ord(c) > 0x7F]
    han = sum("\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u303f" or "\uff00" <= c <= "\uffef" for c in wide)
    # In Latin-1 a lone accent stands between ASCII letters, and GB18030 would swallow the next letter with it.
    pairs = sum(1 for a, b in pairwise(raw) if a > 0x7F and b > 0x7F)
    return "GB18030" if wide and han == len(wide) and pairs >= len(wide) * 0.6 else "Windows-1252"


def _wrong_encoding(path: Path, cause: str, name: str, where: str = "") -> FtuiError:
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {name.upper()} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(target))}"
    return FtuiError(Exit.DATA_ENCODING, cause, where or str(path), command)
