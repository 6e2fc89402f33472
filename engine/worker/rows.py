"""Rows of a data set as the tokens a trainer sees: cut, split and repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.data import dataset as data
from engine.data import lengths, split
from engine.data import tokenizer as tokens
from engine.data.dataset import Dataset
from engine.data.tokenizer import UNTRAINED, Tokenizer
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Spans = list[tuple[int, int]]


class Rows(Sequence[dict[str, list[int]]]):
    """Rows of tokens, one after another in two arrays: {"input_ids": [...], "labels": [...]}, -100 without a loss."""

    def __init__(self, rows: list[tuple[NDArray[Any], _Spans]], most: int) -> None:
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


def prepare(recipe: Recipe, folder: Path) -> Split:
    """Read, tokenise, cut at `max_length` (the first tokens are kept), hold out `eval_fraction`, repeat by weight.

    Rows are held out once each, and none that is held out is trained on. Tokens that were kept when the rows were
    counted are taken from there.
    Raises FtuiError(DATA_*) as the data room does, and PLAN_REFUSED when no row has anything to train on.
    """
    settings = recipe.settings
    rows = data.load(recipe.data)
    row = _tokens(rows, tokens.load(folder))
    seen = rows.repeats(settings.seed)
    made = {at: row(at) for at in sorted(set(seen))}
    # The first label is never predicted, so it does not count.
    kept = [
        at
        for at, (_, spans) in made.items()
        if any(max(start, 1) < min(stop, settings.max_length) for start, stop in spans)
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
    return Split(
        train=Rows([made[at] for at in seen if at in trained], settings.max_length),
        held_out=Rows([made[at] for at in kept if at in apart], settings.max_length),
        masked=len(made) - len(kept),
        sha256=rows.sha256,
    )


def as_dataset(rows: Rows) -> Any:
    """The rows as a `datasets.Dataset` with the columns that TRL takes as already prepared."""
    import pyarrow as pa
    from datasets import Dataset

    offsets = pa.array(rows.offsets, pa.int32())
    columns = {
        name: pa.ListArray.from_arrays(offsets, pa.array(getattr(rows, name))) for name in ("input_ids", "labels")
    }
    return Dataset(pa.table(columns))


def _tokens(rows: Dataset, tokenizer: Tokenizer) -> Callable[[int], tuple[NDArray[Any], _Spans]]:
    """What gives the token ids and the trained spans of a row: what was kept, or the tokenizer where that is too much."""
    import numpy as np

    counted = lengths.count(rows, tokenizer)
    if counted.kept is not None:
        return counted.row

    def made(at: int) -> tuple[NDArray[Any], _Spans]:
        (measured,) = tokenizer.measure([tokenizer.render(rows.examples[at])])
        return np.array(measured.ids), measured.trained

    return made
