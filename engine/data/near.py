"""Near duplicates: rows that say almost the same as an earlier one.

Two rows are near duplicates when what is particular in them - runs of eight bytes that are not found all over the data
set, as the words of a template are - is the same to four fifths, and to seven tenths on each side, question and answer.
So one answer to two questions is none, nor is one question with two answers.

Candidates come from MinHash signatures with one permutation (Li, Owen and Zhang, 2012; empty bins filled by rotation,
Shrivastava and Li, 2014), cut into bands; each candidate is then compared exactly. A pair that is alike to four fifths
is missed once in about five hundred.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.data.convert import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT = 50_000  # rows looked at; of more, blocks of neighbours evenly spread
_BLOCK = 100  # neighbours looked at together: near duplicates often stand side by side
ALIKE = 0.8  # of what both have together, over question and answer
_SIDE = 0.7  # and on each side

_HEAD, _TAIL = 3000, 1000  # characters of a longer side that are compared
_SHINGLE = 8  # bytes: eight Latin letters, or nearly three Chinese characters
_COMMON, _COMMON_ROWS = 0.2, 20  # a shingle in more rows than both belongs to a template
_SAMPLE = 1000  # rows in which common shingles are looked for
_BINS = 64  # of each side's signature; a power of two
_BAND = 3  # bins of each side that must agree for a candidate
_LIKELY = 0.5  # of the bins of each side, before a candidate is compared exactly
_BATCH = 256  # rows hashed together

Progress = Callable[[int, int], None]


class Near(Struct):
    """`of` maps the index of a row that nearly repeats to the index of the earlier row that is kept."""

    of: dict[int, int]
    looked: int  # rows looked at
    rows: int  # of so many


def find(examples: Sequence[Example], unique: NDArray[Any], progress: Progress | None = None) -> Near:
    """Near duplicates among the rows at `unique`, indices in order and without exact duplicates.

    A row is one if an earlier row that is kept is alike, so among the rows that are kept no two are.
    """
    import numpy as np

    rows = len(unique)
    if rows > LIMIT:
        blocks = np.linspace(0, rows - _BLOCK, LIMIT // _BLOCK).astype(np.int64)
        unique = unique[np.unique((blocks[:, None] + np.arange(_BLOCK)).ravel())]
    looked = len(unique)
    compare = _Compare(examples, _common_shingles(examples, unique))
    signatures = _signatures(examples, unique, compare.common, progress)
    of: dict[int, int] = {}
    while found := _repeating(unique, _candidates(signatures), compare):
        of |= found
        keep = ~np.isin(unique, list(found))
        unique, signatures = unique[keep], signatures[keep]
    return Near(of, looked, rows)


def _repeating(unique: NDArray[Any], candidates: list[tuple[int, int]], compare: _Compare) -> dict[int, int]:
    """Of the candidates, those that are alike: index of the later row -> index of the earlier."""
    found: dict[int, int] = {}
    for later, earlier in candidates:
        one, other = int(unique[earlier]), int(unique[later])
        if one not in found and other not in found and compare(one, other):
            found[other] = one
    return found


def _sides(example: Example) -> tuple[bytes, bytes]:
    """What is asked and what is answered, in small letters with single spaces. The system prompt is no part of it."""
    if example.messages is None:
        return _plain([example.text or ""]), b""
    asked, answered = list[str](), list[str]()
    for message in [*example.messages, *(example.chosen or ()), *(example.rejected or ())]:
        if message.role != "system":
            texts = answered if message.role == "assistant" else asked
            texts.append(message.content)
            if message.tool_calls:
                texts.append(repr(message.tool_calls))
    return _plain(asked), _plain(answered)


def _plain(texts: list[str]) -> bytes:
    text = "\n".join(texts)
    if len(text) > _HEAD + _TAIL:
        text = text[:_HEAD] + " " + text[-_TAIL:]
    return " ".join(text.lower().split()).encode("utf-8", "replace")


def _hashes(pieces: Sequence[bytes]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A 64-bit hash of each shingle of each piece, and the number of the piece it comes from."""
    import numpy as np

    padded = [piece.ljust(_SHINGLE, b"\0") for piece in pieces if piece]
    owner = [at for at, piece in enumerate(pieces) if piece]
    if not padded:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    sizes = np.array([len(piece) for piece in padded])
    joined = b"".join(padded)
    # Eight bytes from each place on, read as one number.
    windows = np.ndarray(len(joined) - _SHINGLE + 1, "<u8", joined, strides=(1,))
    whole = np.ones(len(joined), bool)
    ends = np.cumsum(sizes)
    for back in range(1, _SHINGLE):
        whole[ends - back] = False  # these would reach into the next piece
    hashes = windows[whole[: len(windows)]] * np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    return hashes, np.repeat(np.array(owner), sizes - _SHINGLE + 1)


def _slot(hashes: NDArray[Any]) -> NDArray[Any]:
    """Places of shingles in the table of common ones: their upper 22 bits."""
    import numpy as np

    return (hashes >> np.uint64(42)).astype(np.int64)


def _common_shingles(examples: Sequence[Example], unique: NDArray[Any]) -> NDArray[Any]:
    """A table of 4 M slots, True where shingles are that stand in very many rows."""
    import numpy as np

    counts = np.zeros(1 << 22, np.uint16)
    sample = unique[:: max(1, -(-len(unique) // _SAMPLE))]
    for index in sample:
        hashes, _ = _hashes(_sides(examples[int(index)]))
        counts[np.unique(_slot(hashes))] += 1
    return np.asarray(counts > max(_COMMON_ROWS, _COMMON * len(sample)))


def _signatures(
    examples: Sequence[Example], unique: NDArray[Any], common: NDArray[Any], progress: Progress | None
) -> NDArray[Any]:
    """One row of numbers for each index: _BINS for what is asked and as many for what is answered."""
    import numpy as np

    signatures = np.zeros((len(unique), 2 * _BINS), np.uint32)
    for at in range(0, len(unique), _BATCH):
        sides = [_sides(examples[index]) for index in unique[at : at + _BATCH].tolist()]
        for half, seed in enumerate((1, 3)):
            # Plain text has one side, which then fills both halves, in two ways.
            texts = [side[half] or side[0] for side in sides]
            hashes, row = _hashes(texts)
            particular = ~common[_slot(hashes)]
            made = _least(hashes[particular] * np.uint64(seed), row[particular], len(texts))
            for nothing in np.flatnonzero(~made.any(axis=1)):  # nothing but common words: alike if it is the same
                made[nothing] = zlib.crc32(texts[nothing]) | 1
            signatures[at : at + len(texts), half * _BINS : (half + 1) * _BINS] = made
        if progress is not None:
            progress(at + len(sides), len(unique))
    return signatures


def _least(hashes: NDArray[Any], row: NDArray[Any], rows: int) -> NDArray[Any]:
    """Of each row the least hash in each bin, [rows, _BINS]; all zero for a row without hashes."""
    import numpy as np

    empty = np.uint32(0xFFFFFFFF)
    bins = (hashes >> np.uint64(64 - _BINS.bit_length() + 1)).astype(np.int64)
    least = np.full((rows, _BINS), empty, np.uint32)
    np.minimum.at(least.reshape(-1), row * _BINS + bins, (hashes >> np.uint64(16)).astype(np.uint32))
    # An empty bin takes what the next full one holds, and how far away that is.
    places = np.arange(2 * _BINS, dtype=np.int32)
    full = np.where(np.tile(least, 2) != empty, places, 4 * _BINS)
    follower = np.minimum.accumulate(full[:, ::-1], axis=1)[:, ::-1][:, :_BINS]
    taken = np.take_along_axis(least, follower % _BINS, axis=1)
    distance = (follower - places[:_BINS]).astype(np.uint32)
    filled: NDArray[Any] = np.where(follower < 4 * _BINS, taken + distance * np.uint32(0x85EBCA6B), np.uint32(0))
    return filled


def _candidates(signatures: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of positions that agree on a whole band and are likely alike on both sides, in order."""
    import numpy as np

    rows = len(signatures)
    codes = []
    for begin in range(0, _BINS - _BAND + 1, _BAND):
        key = np.full(rows, 0xCBF29CE484222325, np.uint64)
        for column in (*range(begin, begin + _BAND), *range(_BINS + begin, _BINS + begin + _BAND)):
            key = (key ^ signatures[:, column]) * np.uint64(0x100000001B3)
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        start = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(rows), 0))[1:]
        # Each with the first of its bucket and with the one before it: all with all would be too many.
        codes += [order[1:][same] * rows + order[start[same]], order[1:][same] * rows + order[:-1][same]]
    later, earlier = np.divmod(np.unique(np.concatenate(codes)), max(1, rows))
    likely = np.zeros(len(later), bool)
    for at in range(0, len(later), 4096):
        part = slice(at, at + 4096)
        equal = (signatures[later[part]] == signatures[earlier[part]]).reshape(-1, 2, _BINS)
        likely[part] = (equal.mean(axis=2) >= _LIKELY).all(axis=1)
    return list(zip(later[likely].tolist(), earlier[likely].tolist(), strict=True))


class _Compare:
    """Whether two rows are alike, exactly. What was compared is remembered, as are the shingles of the last rows."""

    def __init__(self, examples: Sequence[Example], common: NDArray[Any]) -> None:
        self.common = common
        self._examples = examples
        self._known: dict[tuple[int, int], bool] = {}
        self._shingles = lru_cache(maxsize=256)(self._read)

    def __call__(self, one: int, other: int) -> bool:
        key = one, other
        if key not in self._known:
            self._known[key] = self._alike(one, other)
        return self._known[key]

    def _read(self, index: int) -> tuple[bool | None, list[tuple[bytes, NDArray[Any]]]]:
        import numpy as np

        example = self._examples[index]
        sides = []
        for side in _sides(example):
            hashes = np.unique(_hashes([side])[0])
            sides.append((side, hashes[~self.common[_slot(hashes)]]))
        return example.label, sides

    def _alike(self, one: int, other: int) -> bool:
        import numpy as np

        (label, sides), (other_label, others) = self._shingles(one), self._shingles(other)
        if label != other_label:
            return False
        shared = total = 0
        for (text, mine), (other_text, theirs) in zip(sides, others, strict=True):
            if not len(mine) and not len(theirs):
                if text != other_text:
                    return False  # nothing but the words of a template, and those differ
                continue
            both = len(np.intersect1d(mine, theirs, assume_unique=True))
            either = len(mine) + len(theirs) - both
            if both < _SIDE * either:
                return False
            shared, total = shared + both, total + either
        return shared >= ALIKE * total
