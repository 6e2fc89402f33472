"""Rows to tokens: the quick way where it is proven for the data at hand, the model's own tokenizer everywhere else.

The quick way fills in skeletons of the chat template and encodes with tokie, which reads the same tokenizer.json and
is ten to forty times as fast. Texts are cut where a trained stretch begins or ends, so that the counts of the parts say
where the trained tokens lie; each skeleton is tried with the model's own tokenizer for whether such a cut is always
between two tokens. Then a sample of the data set goes both ways: one token of difference, and all of it goes the long
way.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine import paths
from engine.data.convert import Example
from engine.data.estimate import Estimate
from engine.data.measure import DIVERGES, END_WITHIN, LITERAL, OPEN, REWRITTEN, TOOLS_UNSEEN, Table
from engine.data.rendering import Rendered
from engine.data.skeleton import Refused, Skeleton, Skeletons, texts
from engine.data.store import Examples
from engine.data.trial import doubts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.data.tokenizer import AnyTokenizer, Tokenizer

WORTH = 1_000_000  # bytes of rows; fewer are done the long way before tokie has loaded and is checked
SHARE, LEAST, MOST = 200, 64, 1000  # one row in so many is checked, but at least and at most so many rows
_CHECKED = 1_000_000  # bytes of rows that are checked, about; where rows are long, they are fewer
# What a text may begin or end with, one of each kind that tokenizers tell apart.
_PROBES = (
    "a",
    "Ab",
    "7",
    "12345",
    "(x)",
    "'s",
    '"',
    "-",
    "#",
    "$",
    "丛雨",
    "é",
    "я",
    "😀",
    "\u0308",
    "...",
    "<b>",
    "/",
)

# Called with the numbers of rows, how many tokens each has, and the tokens of all of them.
Keep = Callable[["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"], None]


class Part(Struct):
    """Some rows on their way.

    rows     all of them: numbers in the table, and the examples
    filled   by skeleton: the numbers of the rows, and the pieces of their texts
    others   rows that are rendered one by one
    encoded  tokens of all pieces, one after another, and how many each has
    """

    rows: list[tuple[int, Example]]
    filled: dict[Skeleton, tuple[list[int], list[list[str]]]] = field(default_factory=dict)
    others: list[tuple[int, Example]] = field(default_factory=list)
    encoded: tuple[Any, Any] | None = None


class Counter:
    """Counts rows into a table in three steps, so that one thread can encode while another fills in the next rows.

    name  how it counts, in words: "tokie, checked on 264 rows", "tokenizers", or the name of an estimate
    """

    def __init__(self, tokenizer: AnyTokenizer, examples: Sequence[Example]) -> None:
        self._tokenizer = tokenizer
        self._quick: _Quick | None = None
        if isinstance(tokenizer, Estimate):
            self.name = tokenizer.name
            self._quick = _estimated(tokenizer)
            return
        self.name = "tokenizers"
        if _size(examples) >= WORTH:
            self._try(tokenizer, examples)

    def split(self, rows: list[tuple[int, Example]]) -> Part:
        """Fill in what can be filled in. `rows` are row numbers in the table, and the examples."""
        part = Part(rows)
        if self._quick is None:
            part.others = rows
            return part
        fill, filled = self._quick.skeletons.fill, part.filled
        for row, example in rows:
            sides = fill(example)
            if sides is None:
                part.others.append((row, example))
                continue
            for skeleton, pieces in sides:
                if skeleton not in filled:
                    filled[skeleton] = [], []
                numbers, written = filled[skeleton]
                numbers.append(row)
                written.append(pieces)
        return part

    def encode(self, part: Part) -> None:
        """What takes longest, on all cores and mostly without the interpreter's lock."""
        if not part.filled or self._quick is None:
            return
        written = chain.from_iterable(rows for _, rows in part.filled.values())
        try:
            part.encoded = self._quick.encode(list(chain.from_iterable(written)))
        except BaseException as error:
            if not _foreign(error):
                raise
            self._quick = None
            self.name = f"tokenizers ({_reason(error)})"

    def store(self, part: Part, table: Table, keep: Keep | None = None) -> None:
        """Note the rows in `table`. Raises FtuiError(MODEL_UNSUPPORTED) when the chat template refuses one."""
        if self._quick is None or part.encoded is None:
            _long_way(self._tokenizer, part.rows, table, keep)
            return
        self._quick.store(part, table, keep)
        _long_way(self._tokenizer, part.others, table, keep)

    def _try(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> None:
        """Take the quick way if it gives the same tokens, and the same of them trained, on a sample of the rows."""
        try:
            if tokenizer.quick is None:
                tokenizer.quick = _tokie(tokenizer)
            assert isinstance(tokenizer.quick, _Quick)
            self._quick = tokenizer.quick
        except BaseException as error:
            if not _foreign(error):
                raise
            self.name = f"tokenizers ({_reason(error)})"
            return
        at = _sample(examples)
        sample = [(index, examples[which]) for index, which in enumerate(at)]
        part = self.split(sample)
        self.encode(part)
        tables, kept = (Table(len(at)), Table(len(at))), (_Kept(len(at)), _Kept(len(at)))
        self.store(part, tables[0], kept[0])
        _long_way(tokenizer, sample, tables[1], kept[1])
        for table in tables:
            table.close()
        for index, example in sample:
            if tables[0].row(index) != tables[1].row(index) or kept[0].tokens[index] != kept[1].tokens[index]:
                self._quick = None
                self.name = f"tokenizers (tokie takes row {example.row} otherwise)"
                return
        if self._quick is not None:
            self.name = f"tokie, checked on {len(sample) - len(part.others)} rows"


class _Kept:
    """A `Keep` that keeps tokens by row."""

    def __init__(self, rows: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]

    def __call__(self, rows: NDArray[Any], counts: NDArray[Any], ids: NDArray[Any]) -> None:
        at = 0
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            self.tokens[row] += ids[at : at + count].tolist()
            at += count


class _Quick(Struct):
    """The quick way.

    encode   texts to the tokens of all of them (None where only counts are known) and how many each has
    lead     tokens that the tokenizer puts before plain text
    special  for each token, whether it is a control token
    """

    skeletons: Skeletons
    encode: Callable[[list[str]], tuple[Any, Any]]
    lead: list[int] = []
    special: Any = None

    def store(self, part: Part, table: Table, keep: Keep | None) -> None:
        import numpy as np

        assert part.encoded is not None
        ids, sizes = part.encoded
        piece, token = 0, 0
        for skeleton, (numbers, _) in part.filled.items():
            rows, width = np.asarray(numbers), len(skeleton.pieces)
            size = sizes[piece : piece + len(rows) * width].astype(np.int64).reshape(len(rows), width)
            piece += size.size
            lead = self.lead if skeleton.special else []
            trained = np.asarray(skeleton.trained)
            stops = size.cumsum(1)[:, trained] + len(lead)
            starts = stops - size[:, trained]
            total = size.sum(1) + len(lead)
            end = stops[:, -1] if stops.shape[1] else total
            flags: Any = REWRITTEN * skeleton.rewritten | DIVERGES * skeleton.diverges
            if ids is not None:
                count = int(size.sum())
                begin = total.cumsum() - total
                own = ids[token : token + count]
                if lead:
                    own = np.insert(
                        own, np.repeat(begin - np.arange(len(rows)) * len(lead), len(lead)), lead * len(rows)
                    )
                token += count
                if stops.shape[1]:
                    back = np.arange(END_WITHIN)
                    found = self.special[own[np.maximum((begin + end - 1)[:, None] - back, 0)]]
                    found &= end[:, None] - 1 - back >= starts[:, -1:]
                    flags = np.where(found.any(1), flags, flags | OPEN).astype(np.uint8)
                    end = end - found.argmax(1)
                if keep is not None:
                    keep(rows, total, own)
            table.put(rows, total, starts, stops, end, flags)


def _estimated(tokenizer: Estimate) -> _Quick:
    """An estimate needs no proof."""
    import numpy as np

    skeletons = Skeletons(lambda example: _render(tokenizer, example), Refused(), lambda skeleton: True)
    return _Quick(skeletons, lambda texts: (None, np.asarray(tokenizer.counts(texts))))


def _tokie(tokenizer: Tokenizer) -> _Quick:
    """Skeletons whose cuts are between two tokens, whatever stands beside them, and tokie to encode their pieces."""
    import numpy as np

    fast = _load(tokenizer)
    lead = tokenizer.measure([Rendered("", [], special=True)])[0].ids
    special = np.zeros(max(fast.vocab_size, *tokenizer.special, 0) + 1, bool)
    special[list(tokenizer.special)] = True

    def joins(skeleton: Skeleton) -> bool:
        """True if the pieces of a row have the tokens of the whole, whatever its texts begin and end with."""
        rows = [skeleton.written([probe] * skeleton.texts) for probe in _PROBES]
        wholes = tokenizer.measure([Rendered("".join(row), [], special=skeleton.special) for row in rows])
        pieces = iter(tokenizer.measure([Rendered(piece, []) for row in rows for piece in row]))
        begin = lead if skeleton.special else []
        return all(
            whole.ids == [*begin, *chain.from_iterable(part.ids for part in islice(pieces, len(skeleton.pieces)))]
            for whole in wholes
        )

    def own(texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in tokenizer.measure([Rendered(text, []) for text in texts])]

    def all_by_tokie(texts: list[str]) -> tuple[Any, Any]:
        found: tuple[Any, Any] = fast.encode_batch_flat(texts, add_special_tokens=False)
        return found

    def theirs(texts: list[str]) -> list[list[int]]:
        ids, counts = all_by_tokie(texts)
        return [part.tolist() for part in np.split(ids, counts.cumsum()[:-1].astype(np.int64))]

    found = doubts(theirs, own, tokenizer.added_words)
    if found is None:
        raise ValueError("cuts words in another way")
    doubted = Refused(*found)

    def encode(texts: list[str]) -> tuple[Any, Any]:
        """By tokie; those in doubt by the model's own tokenizer."""
        doubtful = [at for at, text in enumerate(texts) if doubted(text)]
        if not doubtful:
            return all_by_tokie(texts)
        other = own([texts[at] for at in doubtful])
        for at in doubtful:
            texts[at] = ""
        ids, counts = all_by_tokie(texts)
        begin = counts.cumsum()[doubtful].astype(np.int64)
        sizes = [len(one) for one in other]
        counts = counts.copy()
        counts[doubtful] = sizes
        return np.insert(ids, np.repeat(begin, sizes), list(chain.from_iterable(other))), counts

    refused = Refused((word[0], re.escape(word)) for word in sorted(tokenizer.refused))
    skeletons = Skeletons(lambda example: _render(tokenizer, example), refused, joins)
    return _Quick(skeletons, encode, lead, special)


def _load(tokenizer: Tokenizer) -> Any:
    """tokie with the tokenizer's file, in tokie's own format after the first time: that loads twenty times as fast."""
    from importlib.metadata import version

    import tokie

    folder = paths.private_dir(paths.cache_dir() / "tokie")
    source = tokenizer.source
    name = hashlib.sha256(source).hexdigest()[:32]
    file = folder / f"{name}-{version('tokie')}.tkz"
    if file.is_file():
        with suppress(tokie.TokieError):
            return tokie.Tokenizer.from_file(str(file))
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".json") as whole:
        whole.write(source)
        whole.flush()
        made = tokie.Tokenizer.from_json(whole.name)
    made.no_truncation()
    made.no_padding()
    with suppress(OSError, tokie.TokieError):
        half = folder / f".{file.name}.{os.getpid()}"
        made.save(str(half))
        half.chmod(0o600)
        half.replace(file)
    return made


def _long_way(tokenizer: AnyTokenizer, rows: list[tuple[int, Example]], table: Table, keep: Keep | None) -> None:
    """Render each row by itself and encode with the model's own tokenizer."""
    import numpy as np

    rendered = [(row, side, one) for row, example in rows for side, one in enumerate(_render(tokenizer, example))]
    measured = tokenizer.measure([one for _, _, one in rendered])
    alike: dict[tuple[int, int], list[int]] = {}
    for at, ((_, side, _), one) in enumerate(zip(rendered, measured, strict=True)):
        alike.setdefault((side, len(one.trained)), []).append(at)
    for (_, spans), members in sorted(alike.items()):
        found = [measured[at] for at in members]
        numbers = np.array([rendered[at][0] for at in members])
        total = np.array([one.total for one in found])
        edges = np.array([one.trained for one in found], np.int64).reshape(len(found), spans, 2)
        flags = np.array(
            [
                OPEN * (not one.closed) | REWRITTEN * text.rewritten | DIVERGES * text.diverges
                | LITERAL * bool(text.literal) | TOOLS_UNSEEN * text.tools_unseen
                for one, text in zip(found, (rendered[at][2] for at in members), strict=True)
            ],
            np.uint8,
        )  # fmt: skip
        table.put(numbers, total, edges[:, :, 0], edges[:, :, 1], np.array([one.end for one in found]), flags)
        if keep is not None:
            keep(numbers, total, np.fromiter(chain.from_iterable(one.ids for one in found), np.uint32))


def _render(tokenizer: AnyTokenizer, example: Example) -> Sequence[Rendered]:
    return tokenizer.render_pair(example) if example.chosen is not None else (tokenizer.render(example),)


def _sample(examples: Sequence[Example]) -> list[int]:
    """Which rows are checked: a quarter are the first ones, the others from all over."""
    rows = len(examples)
    count = min(max(rows // SHARE, LEAST), MOST, max(LEAST // 4, _CHECKED * rows // max(1, _size(examples))))
    first = min(rows, count // 4)
    return sorted({*range(first), *(at * rows // (count - first) for at in range(count - first))})


def _size(examples: Sequence[Example]) -> int:
    """About how many bytes of text there are."""
    if isinstance(examples, Examples):
        return examples.size
    some = examples[:: max(1, len(examples) // LEAST)]
    return sum(len(text.encode()) for example in some for text in texts(example)) * len(examples) // max(1, len(some))


def _foreign(error: BaseException) -> bool:
    """True for what a library raises; a panic of one written in Rust is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _reason(error: BaseException) -> str:
    return "tokie: " + " ".join(str(error).split())[:80]
