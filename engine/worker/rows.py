"""Rows of a data set as the tokens a trainer sees: cut or divided, split, repeated and put together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.data import dataset as data
from engine.data import lengths, packs, split
from engine.data import tokenizer as tokens
from engine.data.dataset import Dataset, Example
from engine.data.tokenizer import UNTRAINED, Rendered, Tokenizer
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Spans = list[tuple[int, int]]
Side = tuple["NDArray[Any]", _Spans]  # token ids of one rendering of a row, and the spans of it that are trained
Sides = Callable[[Tokenizer, Example], Sequence[Rendered]]


class Rows(Sequence[dict[str, list[int]]]):
    """Rows of tokens, one after another in two arrays: {"input_ids": [...], "labels": [...]}, -100 without a loss."""

    def __init__(self, rows: Sequence[Side], most: int) -> None:
        """`rows` are token ids and the spans that are trained; `most` tokens of each are kept, the first ones."""
        import numpy as np

        sizes = [min(len(ids), most) for ids, _ in rows]
        self.offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self.input_ids = np.empty(self.offsets[-1], np.int32)
        self.labels = np.full(self.offsets[-1], UNTRAINED, np.int32)
        for begin, size, (ids, spans) in zip(self.offsets.tolist(), sizes, rows, strict=False):
            self.input_ids[begin : begin + size] = ids[:size]
            for start, stop in spans:
                self.labels[begin + start : begin + min(stop, size)] = ids[start : min(stop, size)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, at: int) -> dict[str, list[int]]:  # type: ignore[override]
        if not 0 <= at < len(self):
            raise IndexError(at)
        own = slice(self.offsets[at], self.offsets[at + 1])
        return {"input_ids": self.input_ids[own].tolist(), "labels": self.labels[own].tolist()}


class Split(Struct):
    """Pre-tokenised rows, or parts of texts.

    rows    that are trained on, whole
    masked  that are left out because nothing in them would be trained after cutting
    """

    train: Rows
    held_out: Rows
    rows: int
    masked: int
    sha256: str


class Drawn(Struct):
    """Rows with their sides in tokens, not cut yet, and which of them are for what.

    made             index of an example -> its sides: one; chosen and rejected of a preference pair
    train, held_out  indices; one may stand in `train` more than once
    """

    dataset: Dataset
    made: dict[int, Sequence[Side]]
    train: list[int]
    held_out: list[int]
    masked: int

    def side(self, which: int, rows: Sequence[int], most: int) -> Rows:
        """One side of these rows, cut to `most` tokens."""
        return Rows([self.made[at][which] for at in rows], most)

    def parts(self, rows: Sequence[int], most: int) -> Rows:
        """These texts in parts of `most` tokens, none of them lost."""
        return Rows([part for at in rows for part in _parts(self.made[at][0], most)], most)


def prepare(recipe: Recipe, folder: Path) -> Split:
    """Rows of one side each, as `draw` draws them, cut at `max_length` (the first tokens are kept); bare texts are divided."""
    found, most = draw(recipe, folder), recipe.settings.max_length

    def side(which: Sequence[int]) -> Rows:
        return found.parts(which, most) if recipe.stage == "pretraining" else found.side(0, which, most)

    return Split(
        train=side(found.train),
        held_out=side(found.held_out),
        rows=len(found.train),
        masked=found.masked,
        sha256=found.dataset.sha256,
    )


def draw(recipe: Recipe, folder: Path, sides: Sides | None = None) -> Drawn:
    """Read, tokenise, leave out what `max_length` leaves nothing of to train, hold out `eval_fraction`, repeat by weight.

    Rows are held out once each, and none that is held out is trained on. Tokens that were kept when the rows were
    counted are taken from there.
    sides  renders the sides of a row, all of which must have something to train; None for the row as it was counted
    Raises FtuiError(DATA_*) as the data room does, and PLAN_REFUSED when no row has anything to train on.
    """
    settings = recipe.settings
    most = sys.maxsize if recipe.stage == "pretraining" else settings.max_length  # texts are divided
    rows = data.load(recipe.data)
    tokenizer = tokens.load(folder, settings.added_tokens)
    seen = rows.repeats(settings.seed)
    made = _counted(rows, tokenizer, seen) if sides is None else _rendered(rows, tokenizer, seen, sides)
    # The first label is never predicted, so it does not count.
    kept = [
        at
        for at, both in made.items()
        if all(any(max(start, 1) < min(stop, most) for start, stop in spans) for _, spans in both)
    ]
    if not kept:
        raise FtuiError(
            Exit.PLAN_REFUSED,
            f"nothing would be trained: at {settings.max_length} tokens every row is cut before its answer begins",
            recipe.data.source,
            "raise max_length, or shorten the prompts",
        )
    apart = {kept[at] for at in split.held_out(len(kept), settings.eval_fraction, settings.seed)}
    trained = set(kept) - apart
    return Drawn(
        dataset=rows,
        made=made,
        train=[at for at in seen if at in trained],
        held_out=[at for at in kept if at in apart],
        masked=len(made) - len(kept),
    )


def as_dataset(rows: Rows | Mapping[str, Rows], **plain: Sequence[Any]) -> Any:
    """The rows as a `datasets.Dataset` with the columns that TRL takes as already prepared, `input_ids` and `labels`.

    Of several sides each has two such columns, with the name of the side before them: "chosen_input_ids". `plain` are
    columns of one value a row.
    """
    import pyarrow as pa
    from datasets import Dataset

    columns: dict[str, Any] = {}
    for side, one in ({"": rows} if isinstance(rows, Rows) else rows).items():
        offsets = pa.array(one.offsets, pa.int32())
        for name in ("input_ids", "labels"):
            columns[side + name] = pa.ListArray.from_arrays(offsets, pa.array(getattr(one, name)))
    return Dataset(pa.table({**columns, **{name: pa.array(values) for name, values in plain.items()}}))


def as_packs(rows: Rows, most: int | None) -> Any:
    """The rows as a `datasets.Dataset` of packs of at most `most` tokens, each row alone where that is None: in the columns
    `input_ids` and `labels` a list for each row of the pack.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    sizes = np.diff(rows.offsets)
    together = np.arange(len(rows))[:, None] if most is None else packs.packed(sizes, most)
    order = np.concatenate([*together, np.zeros(0, np.int64)]).astype(np.int64)
    tokens_of = np.concatenate([*(np.arange(*rows.offsets[at : at + 2]) for at in order), np.zeros(0, np.int64)])
    inner = pa.array(np.concatenate(([0], sizes[order].cumsum())), pa.int32())
    outer = pa.array(np.cumsum([0, *map(len, together)]), pa.int32())
    columns = {
        name: pa.ListArray.from_arrays(outer, pa.ListArray.from_arrays(inner, pa.array(getattr(rows, name)[tokens_of])))
        for name in ("input_ids", "labels")
    }
    return Dataset(pa.table(columns))


def _parts(side: Side, most: int) -> list[Side]:
    ids, spans = side
    if len(ids) <= most:
        return [side]
    return [
        (
            ids[begin:end],
            [
                (max(start, begin) - begin, min(stop, end) - begin)
                for start, stop in spans
                if start < end and begin < stop
            ],
        )
        for begin, end in packs.parts(len(ids), most)
    ]


def _counted(rows: Dataset, tokenizer: Tokenizer, seen: Sequence[int]) -> dict[int, Sequence[Side]]:
    """The rows as they were counted: what was kept, or the tokenizer once more where that was too much."""
    counted = lengths.count(rows, tokenizer)
    if counted.kept is not None:
        return {at: [counted.row(at)] for at in sorted(set(seen))}
    return _rendered(rows, tokenizer, seen, lambda tokenizer, example: [tokenizer.render(example)])


def _rendered(rows: Dataset, tokenizer: Tokenizer, seen: Sequence[int], sides: Sides) -> dict[int, Sequence[Side]]:
    """All sides of the rows, encoded some together."""
    import numpy as np

    wanted, at = set(seen), 0
    found: dict[int, Sequence[Side]] = {}
    for block in rows.examples.blocks():
        numbers = [number for number in range(at, at + len(block)) if number in wanted]
        rendered = [sides(tokenizer, block[number - at]) for number in numbers]
        at += len(block)
        measured = iter(tokenizer.measure([one for row in rendered for one in row]))
        for number, row in zip(numbers, rendered, strict=True):
            found[number] = [(np.array(one.ids), one.trained) for one in islice(measured, len(row))]
    return found
