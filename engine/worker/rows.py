"""Rows of a data set as the tokens a trainer sees: cut, split and repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.data import dataset as data
from engine.data import lengths, split
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
    """Pre-tokenised rows. `masked` rows are left out because nothing in them would be trained after cutting."""

    train: Rows
    held_out: Rows
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


def prepare(recipe: Recipe, folder: Path) -> Split:
    """Rows of one side each, as `draw` draws them, cut at `max_length` (the first tokens are kept)."""
    found, most = draw(recipe, folder), recipe.settings.max_length
    return Split(
        train=found.side(0, found.train, most),
        held_out=found.side(0, found.held_out, most),
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
    rows = data.load(recipe.data)
    tokenizer = tokens.load(folder)
    seen = rows.repeats(settings.seed)
    made = _counted(rows, tokenizer, seen) if sides is None else _rendered(rows, tokenizer, seen, sides)
    # The first label is never predicted, so it does not count.
    kept = [
        at
        for at, both in made.items()
        if all(any(max(start, 1) < min(stop, settings.max_length) for start, stop in spans) for _, spans in both)
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
