"""What a person prefers, blind: two answers to the same prompt, and which is better. Appended to a file beside what was
measured, a line a rating, so that nothing is lost.

RUN/measured/KEY.ratings.jsonl, for two runs KEY-KEY.ratings.jsonl in the first one's folder. "first" is the base, or the
first run's answer; "second" is the tuned one, or the other run's. The last line of a row counts.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from math import comb
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

Which = Literal["first", "second"]
Better = Literal["first", "second", "tie"]


class Rating(Struct, kw_only=True):
    """`row` by its number in its source; `left`: which of the two stood on the left."""

    row: int
    better: Better
    left: Which
    time: float = 0.0


class Unblinded(Struct, kw_only=True):
    """From `unblinded` (a time) on the person knows which is which: nothing that follows counts."""

    unblinded: float


class Tally(Struct, frozen=True):
    """What the ratings add up to. `pairs` there are to rate; `known`: the person has been told who is ahead.

    p  of the sign test: how often pairs that are told apart by a coin alone would differ so much, either way
    """

    first: int
    second: int
    ties: int
    pairs: int
    known: bool
    p: float

    @property
    def rated(self) -> int:
        return self.first + self.second + self.ties


class Ratings:
    """The ratings of one question. Reading makes no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_row: dict[int, Rating] = {}
        self.unblinded = False
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            self._take(_read(line))

    def add(self, rating: Rating) -> None:
        """Note a rating; one of the same row before it no longer counts."""
        self._append(msgspec.structs.replace(rating, time=time.time()))

    def unblind(self) -> None:
        self._append(Unblinded(unblinded=time.time()))

    def tally(self, rows: list[int]) -> Tally:
        """Of these rows, which are all that there are to rate."""
        better = [self.by_row[row].better for row in rows if row in self.by_row]
        first, second = better.count("first"), better.count("second")
        p = sign_test(first, second)
        return Tally(first, second, better.count("tie"), len(rows), self.unblinded, p)

    def _take(self, line: Rating | Unblinded | None) -> None:
        if isinstance(line, Unblinded):
            self.unblinded = True
        elif line is not None and not self.unblinded:
            self.by_row[line.row] = line

    def _append(self, line: Rating | Unblinded) -> None:
        """On the disk before it counts. A line that was torn is ended first."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" * torn + msgspec.json.encode(line) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._take(line)


def path(folder: Path, key: str, against: str | None = None) -> Path:
    """Where the ratings of one question are kept; `against` is the key of the other run's."""
    return folder / f"{key}{'-' + against if against else ''}.ratings.jsonl"


def left(seed: int, row: int) -> Which:
    """Which of the two stands on the left: by chance, and the same whenever it is looked at."""
    return "first" if random.Random(f"{seed} {row}").random() < 0.5 else "second"


def sign_test(first: int, second: int) -> float:
    """How likely a fair coin is to fall at least as unevenly, either way (two-sided sign test; ties do not count).

    >>> sign_test(1, 9)
    0.021484375
    """
    tosses = first + second
    tail = sum(comb(tosses, heads) for heads in range(min(first, second) + 1)) / 2**tosses
    return min(1.0, 2 * tail)


def _read(line: bytes) -> Rating | Unblinded | None:
    """A line of the file; None for one that is torn or not known."""
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(line, type=Rating)
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(line, type=Unblinded)
    return None
