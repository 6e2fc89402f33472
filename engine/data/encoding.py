"""Bytes to text, strictly UTF-8: what is not says which encoding it looks like and how to convert it."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from engine.data.rows import Reading
from engine.errors import Exit, FtuiError

MAX_LINE = 32 * 1024 * 1024  # bytes; a longer line is no example that a model could be trained on

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)
_ARCHIVES = (
    (b"PK\x03\x04", "zip (or a spreadsheet)", "unzip {}, or save the sheet as CSV"),
    (b"\xfd7zXZ\x00", "xz", "unxz -k {}"),
    (b"BZh", "bzip2", "bunzip2 -k {}"),
    (b"\x1f\x8b", "gzip twice over", "gunzip -k {}"),
    (b"\x28\xb5\x2f\xfd", "zstd twice over", "unzstd {}"),
    (b"PAR1", "packed Parquet", "unpack it first: Parquet is packed already"),
    (b"ARROW1", "packed Arrow", "unpack it first"),
    (b"\x89HDF", "HDF5", "save it as Parquet or JSONL"),
)
_HALVES = frozenset("\udcc2\udcc3")  # the bytes that Western letters begin with in UTF-8: alone, a letter was cut


class Line(Struct):
    """One line of a file as text, its line end with it.

    flaw      what keeps it from being text; then `text` holds what could be made of it, marks for the rest
    column    the character of the flaw, from 1
    repaired  what was done so that `text` is whole after all
    """

    number: int
    text: str
    flaw: FtuiError | None = None
    column: int | None = None
    repaired: str = ""


def refuse_archive(head: bytes, path: Path) -> None:
    """Raise DATA_SYNTAX for a file that, by its first bytes, is no text in any encoding."""
    for magic, name, command in _ARCHIVES:
        if head.startswith(magic):
            cause, next_step = f"the file is {name}, not text", command.format(shlex.quote(str(path)))
            raise FtuiError(Exit.DATA_SYNTAX, cause, str(path), next_step)
    if head[257:262] == b"ustar":
        raise FtuiError(
            Exit.DATA_SYNTAX, "the file is a tar archive, not text", str(path), f"tar -xf {shlex.quote(str(path))}"
        )


def wide(head: bytes, path: Path) -> tuple[str, bool, FtuiError] | None:
    """(the codec, whether a byte order mark says so, the error) of a file in UTF-16 or UTF-32; None for any other."""
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            plain = name.removesuffix("LE").removesuffix("BE")
            return name, True, _wrong_encoding(path, f"the file is {name}, not UTF-8", plain)
    even, odd = head[0::2].count(0), head[1::2].count(0)
    # Without a mark: UTF-16 of mostly Western text has a NUL byte at every second place.
    if max(even, odd) > len(head) // 8 and max(even, odd) > 4 * min(even, odd):
        name = "UTF-16LE" if odd > even else "UTF-16BE"
        return name, False, _wrong_encoding(path, f"the file looks like {name}, not UTF-8", name)
    return None


def nul_error(path: Path, line: int, column: int) -> FtuiError:
    return FtuiError(
        Exit.DATA_ENCODING,
        "the file holds a NUL byte, so it is not text (or it is damaged)",
        f"{path}, line {line}, column {column}",
        f"look at it with: file {shlex.quote(str(path))}; tr -d '\\000' takes NUL bytes out",
    )


def decode_error(path: Path, raw: bytes, value: int, line: int, column: int) -> FtuiError:
    """The error for the byte `value`, which is not UTF-8. `raw` is what is around it; `line` and `column` from 1."""
    where = f"{path}, line {line}, column {column}"
    if _is_damaged_utf8(raw):
        cause = f"byte 0x{value:02x} is not UTF-8, in text that is UTF-8 otherwise: a character is damaged"
        return FtuiError(Exit.DATA_ENCODING, cause, where, "write that character anew")
    name = guess(raw)
    return _wrong_encoding(path, f"byte 0x{value:02x} is not UTF-8; the file looks like {name}", name, where)


def too_long(path: Path, line: int) -> FtuiError:
    return FtuiError(
        Exit.DATA_SYNTAX,
        f"one row is longer than {MAX_LINE // 1024 // 1024} MB",
        f"{path}, line {line}",
        "is this the right file? a row is one example, with line ends between rows",
    )


def lines(file: BinaryIO, reading: Reading) -> Iterator[Line]:
    """Every line, flaws and all."""
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            pass_line(file)
        yield line(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number, reading)


def pass_line(file: BinaryIO) -> None:
    """Go on to the next line."""
    while raw := file.readline(MAX_LINE):
        if raw.endswith(b"\n"):
            return


def line(raw: bytes, number: int, reading: Reading) -> Line:
    """Bytes of a line as text, mended where `reading` wants that and the bytes have one plain meaning."""
    if len(raw) > MAX_LINE:
        return Line(number, "", too_long(reading.path, number))
    found = Line(number, "")
    if b"\0" in raw:
        found.column = len(raw[: raw.index(b"\0")].decode(errors="replace")) + 1
        found.flaw = nul_error(reading.path, number, found.column)
        if reading.repair:
            found.repaired = f"took out NUL bytes ({raw.count(0)})"
            raw = raw.replace(b"\0", b"")
    try:
        found.text = raw.decode()
    except UnicodeDecodeError as error:
        if not found.flaw or found.repaired:
            found.column = len(raw[: error.start].decode(errors="replace")) + 1
            found.flaw = _byte_error(raw, error, number, found.column, reading)
        text, name = legacy(raw) if reading.repair else (None, "")
        found.text = raw.decode(errors="replace") if text is None else text
        found.repaired = "" if text is None else "; ".join(filter(None, [found.repaired, f"read as {name}"]))
    return found


def _byte_error(raw: bytes, error: UnicodeDecodeError, number: int, column: int, reading: Reading) -> FtuiError:
    if error.reason == "unexpected end of data" and not raw.endswith(b"\n") and len(raw) - error.start < 4:
        return reading.error(
            Exit.DATA_SYNTAX,
            "the file ends in the middle of a character: it was cut off",
            number,
            next_step="copy or download it again",
        )
    return decode_error(reading.path, raw, raw[error.start], number, column)


def legacy(raw: bytes) -> tuple[str | None, str]:
    """(text, encoding) of bytes that are not UTF-8 and plainly another encoding; (None, "") where that is not plain."""
    if _is_damaged_utf8(raw):
        return None, ""
    name = guess(raw)
    try:
        return raw.decode("cp1252" if name == "Windows-1252" else name), name
    except UnicodeDecodeError:
        return None, ""


def _is_damaged_utf8(raw: bytes) -> bool:
    """True if most bytes beyond ASCII read as UTF-8, or what does not is what cut Western letters leave."""
    beyond = sum(byte > 0x7F for byte in raw)
    alien = [char for char in raw.decode(errors="surrogateescape") if "\udc80" <= char <= "\udcff"]
    return len(alien) * 2 <= beyond or _HALVES.issuperset(alien)


def guess(raw: bytes) -> str:
    """GB18030 when the bytes read as mostly common Han characters, else Windows-1252 (which covers Latin-1)."""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "Windows-1252"
    beyond = [c for c in text if ord(c) > 0x7F]
    han = sum("\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u303f" or "\uff00" <= c <= "\uffef" for c in beyond)
    # In Latin-1 a lone accent stands between ASCII letters, and GB18030 would swallow the next letter with it.
    pairs = sum(1 for a, b in pairwise(raw) if a > 0x7F and b > 0x7F)
    return "GB18030" if beyond and han == len(beyond) and pairs >= len(beyond) * 0.6 else "Windows-1252"


def _wrong_encoding(path: Path, cause: str, name: str, where: str = "") -> FtuiError:
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {name.upper()} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(target))}"
    return FtuiError(Exit.DATA_ENCODING, cause, where or str(path), command)
