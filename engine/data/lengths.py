"""How long the rows are in tokens, and what a cutoff costs."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from engine.data import length_cache
from engine.data.convert import Example
from engine.data.counting import Counter, Keep, Part
from engine.data.dataset import Dataset
from engine.data.distribution import Distribution
from engine.data.estimate import Estimate
from engine.data.length_cache import Tokens
from engine.data.measure import DIVERGES, LITERAL, OPEN, REWRITTEN, TOOLS_UNSEEN, Table
from engine.data.store import Examples
from engine.data.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Of = Literal["whole", "prompt", "completion"]
_SAMPLE = 2000  # rows that are looked at for what all begin with
_FIRST, _BLOCK = 64, 1024  # rows counted together: few at first, so that something is there at once


class Cut:
    """What keeping only the first `cutoff` tokens of each row costs.

    rows_cut               rows that are longer
    lose_end               rows whose last answer loses its end token: the model is not taught to stop there
    untrained              rows of which nothing that has a loss is left
    trained_lost_fraction  of all tokens with a loss, those that are cut off
    """

    def __init__(self, lengths: Lengths, cutoff: int) -> None:
        self.cutoff = cutoff
        self._whole = lengths.distribution("whole")
        self.rows_cut = self._whole.count_over(cutoff)
        self.lose_end = lengths._of("end").count_over(cutoff)
        # The first token of a row is never predicted, and a row is untrained when its answer begins at the cutoff.
        self.untrained = lengths._of("first").count_over(cutoff - 1)
        # What is lost are the sums over all trained spans of max(0, stop - cutoff) - max(0, start - cutoff).
        lost = lengths._of("stops").excess(cutoff) - lengths._of("starts").excess(cutoff)
        self.trained_lost_fraction = lost / lengths.trained if lengths.trained else 0.0

    def padding_fraction(self, micro_batch: int) -> float:
        """Of all tokens computed, those that are padding, to be expected when rows are batched in random order.

        Each batch is as long as its longest row (after the cut).
        """
        computed = self._computed(micro_batch)
        return max(0.0, 1 - self._kept / computed) if computed else 0.0

    def packing(self, micro_batch: int) -> float:
        """Of all tokens computed in batches of `micro_batch` rows, those that packing would save: rows that share
        sequences of `cutoff` tokens need so much fewer. 0 where packing saves nothing.
        """
        computed = self._computed(micro_batch)
        packed = self._whole.bins(self.cutoff) * self.cutoff
        return max(0.0, 1 - packed / computed) if computed else 0.0

    @property
    def _kept(self) -> int:
        return self._whole.sum - self._whole.excess(self.cutoff)

    def _computed(self, micro_batch: int) -> float:
        """Tokens that an epoch computes, padding included."""
        full, rest = divmod(self._whole.count, micro_batch)
        return sum(
            batches * rows * self._whole.longest_of(rows, self.cutoff)
            for batches, rows in ((full, micro_batch), (1, rest))
            if batches and rows
        )


class Lengths:
    """Token counts of rows: `total` of the whole rendered row, `completion` of what is trained, `prompt` of the rest.

    The three are arrays that go by row in the data set's order, and so are `ends`: how many tokens must be kept for the
    last answer to keep its end token. Of a preference pair they are those of its longer side.
    rows          the row numbers
    of_rows       how many rows there are in all: more than in `rows` for a sample
    exact         False for an estimate made without the model's tokenizer
    counter       how the rows were counted, in words
    trained       all tokens with a loss
    kept          the token ids of all rows, where they are kept; `row` reads them
    rewritten     rows of which the chat template lets only the last answer be trained
    diverging     rows whose prompt the chat template writes differently once it is answered
    endless       rows whose last answer has no end token
    literal       rows that hold a control token as text
    tools_unseen  rows that describe tools which the chat template does not show
    """

    def __init__(
        self, rows: Sequence[int], table: Table, tokenizer: AnyTokenizer, counter: str = "", kept: Tokens | None = None
    ) -> None:
        self.rows = rows
        self.of_rows = len(rows)
        self.tokenizer = tokenizer.name
        self.exact = tokenizer.exact
        self.counter = counter
        self.kept = kept
        self._table = table
        self._distributions: dict[str, Distribution] = {}
        self.trained = int(table.stops.sum(dtype="int64") - table.starts.sum(dtype="int64"))
        self.rewritten, self.diverging, self.endless, self.literal, self.tools_unseen = (
            self._flagged(flag) for flag in (REWRITTEN, DIVERGES, OPEN, LITERAL, TOOLS_UNSEEN)
        )

    @cached_property
    def total(self) -> array[int]:
        return _array(self._table.total)

    @cached_property
    def completion(self) -> array[int]:
        return _array(self._table.completion)

    @cached_property
    def prompt(self) -> array[int]:
        return _array(self._table.total - self._table.completion)

    @cached_property
    def ends(self) -> array[int]:
        return _array(self._table.end)

    @property
    def starts(self) -> array[int]:
        """Tokens before the first one with a loss, of the rows that have one."""
        first = self._table.first
        return _array(first[first >= 0])

    @cached_property
    def shared(self) -> int:
        """Tokens that all rows begin with (of many rows, those of a sample), before the first one with a loss: a template's,
        a system prompt's. 0 where tokens are not kept."""
        table = self._table
        rows = (table.first > 0).nonzero()[0]
        if self.kept is None or not len(rows):
            return 0
        most, known = int(table.first[rows].min()) - 1, self.kept.ids
        begin = self.kept.begin
        ours = known[begin[rows[0]] : begin[rows[0]] + most]
        for row in rows[:: max(1, len(rows) // _SAMPLE)]:
            apart = (known[begin[row] : begin[row] + len(ours)] != ours).nonzero()[0]
            if len(apart):
                ours = ours[: apart[0]]
        return len(ours)

    def trained_at(self, cutoff: int) -> list[int]:
        """Places of the rows of which something with a loss is left when they are cut to `cutoff` tokens."""
        # The first token of a row is never predicted.
        first = self._table.first
        left = (first >= 0) & (first.clip(1) < cutoff)
        return left.nonzero()[0].tolist()

    @property
    def max(self) -> int:
        """The longest row, in tokens."""
        return self.distribution("whole").max

    def mean(self, of: Of = "whole") -> float:
        found = self.distribution(of)
        return found.sum / max(1, found.count)

    def percentile(self, p: float, of: Of = "whole") -> int:
        """The length that `p` percent of the rows do not exceed (nearest rank, so it is a length that occurs)."""
        return self.distribution(of).percentile(p)

    def histogram(self, bins: int, upto: int | None = None, of: Of = "whole") -> list[tuple[int, int, int]]:
        """(from, to, rows) for bins of equal width from 0 to `upto` (the longest row if not given), `to` not included.

        The last bin also holds what is longer. Widths are whole tokens, so there may be fewer bins than asked for.
        """
        found = self.distribution(of)
        highest = max(upto if upto is not None else found.max, 1)
        width = max(1, ceil((highest + 1) / max(1, bins)))
        edges = list(range(0, highest + 1, width))
        below = [*found.counts_below(edges), found.count]
        return [(low, low + width, below[at + 1] - below[at]) for at, low in enumerate(edges)]

    def at(self, cutoff: int) -> Cut:
        """What a cutoff costs. A few binary searches, so it can follow a key that is held down."""
        return Cut(self, cutoff)

    def distribution(self, of: Of) -> Distribution:
        """The lengths of all rows as how often each occurs."""
        return self._of(of)

    def row(self, at: int) -> tuple[NDArray[Any], list[tuple[int, int]]]:
        """Token ids of the row at this place, and its trained spans. Only where `kept` is not None."""
        assert self.kept is not None
        begin, table = self.kept.begin[at], self._table
        spans = slice(table.at[at], table.at[at + 1])
        return self.kept.ids[begin : begin + table.total[at]], list(
            zip(table.starts[spans].tolist(), table.stops[spans].tolist(), strict=True)
        )

    def without(self, words: Sequence[str], numbers: Sequence[int]) -> list[str]:
        """Those of `words`, which are the tokens with these numbers, that no row has; none where tokens are not kept."""
        import numpy as np

        if self.kept is None or not words:
            return []
        there = np.isin(np.asarray(numbers), self.kept.ids)
        return [word for word, seen in zip(words, there.tolist(), strict=True) if not seen]

    def _of(self, what: str) -> Distribution:
        """Of "whole", "prompt", "completion", or of a column of the table."""
        if what not in self._distributions:
            table = self._table
            if what == "prompt":
                values = table.total - table.completion
            elif what == "first":
                values = table.first[table.first >= 0]
            else:
                values = getattr(table, "total" if what == "whole" else what)
            self._distributions[what] = Distribution(values)
        return self._distributions[what]

    def _flagged(self, flag: int) -> array[int]:
        """The numbers of the rows that have a flag."""
        return array("I", [self.rows[at] for at in (self._table.flags & flag).nonzero()[0].tolist()])


def count(
    dataset: Dataset,
    tokenizer: AnyTokenizer,
    progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
) -> Lengths:
    """Count every row, or take what was counted before of the same rows with the same tokenizer.

    progress  called with rows done and rows in all, the first time after a few rows
    limit     count only so many rows, evenly spread: a sample
    Raises FtuiError(MODEL_UNSUPPORTED) when the chat template refuses a row.
    """
    with _old_objects_left_alone():
        return _count(dataset, tokenizer, progress, limit)


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """No search for garbage among what is there already: counting makes none, and where large libraries are loaded the
    search takes as long as the counting. A worker leaves them alone from the start.
    """
    already = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not already:
            gc.unfreeze()


def _count(
    dataset: Dataset, tokenizer: AnyTokenizer, progress: Callable[[int, int], None] | None, limit: int | None
) -> Lengths:
    examples = dataset.examples
    numbers = examples.rows if isinstance(examples, Examples) else array("I", [example.row for example in examples])
    if limit is not None and limit < len(examples):
        return _sample(examples, numbers, tokenizer, progress, limit)
    if isinstance(tokenizer, Estimate):
        counter = Counter(tokenizer, examples)
        return Lengths(numbers, _counted(counter, _blocks(examples), len(examples), progress), tokenizer, counter.name)
    name = length_cache.key(dataset, tokenizer)
    entry = length_cache.read(name, len(examples))
    if entry is None:
        counter = Counter(tokenizer, examples)
        writer = length_cache.Writer(name, len(examples), tokenizer.vocabulary)
        try:
            table = _counted(counter, _blocks(examples), len(examples), progress, writer.keep)
        except BaseException:
            writer.discard()
            raise
        entry = writer.finish(table, counter.name)
    elif progress is not None:
        progress(len(examples), len(examples))
    return Lengths(numbers, entry.table, tokenizer, entry.counter, entry.tokens)


def _sample(
    examples: Sequence[Example],
    numbers: Sequence[int],
    tokenizer: AnyTokenizer,
    progress: Callable[[int, int], None] | None,
    limit: int,
) -> Lengths:
    chosen = _Spread(examples, limit)
    counter = Counter(tokenizer, chosen)
    table = _counted(counter, _blocks(chosen), limit, progress)
    found = Lengths(array("I", [numbers[at] for at in chosen.places]), table, tokenizer, counter.name)
    found.of_rows = len(examples)
    return found


class _Spread(Sequence[Example]):
    """Some of many examples, from all over, each read when it is asked for."""

    def __init__(self, examples: Sequence[Example], count: int) -> None:
        self.places = [at * len(examples) // count for at in range(count)]
        self._examples = examples

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: Any) -> Any:
        """One, or a list for a slice."""
        if isinstance(at, slice):
            return [self._examples[place] for place in self.places[at]]
        return self._examples[self.places[at]]


def _counted(
    counter: Counter,
    blocks: Iterator[list[Example]],
    rows: int,
    progress: Callable[[int, int], None] | None,
    keep: Keep | None = None,
) -> Table:
    """Count block by block; while one is encoded, the next is filled in and the last one noted."""
    table = Table(rows)
    at = 0
    waiting: list[tuple[Part, Future[None]]] = []

    def store() -> None:
        part, encoded = waiting.pop()
        encoded.result()
        counter.store(part, table, keep)
        if progress is not None:
            progress(part.rows[-1][0] + 1, rows)

    with ThreadPoolExecutor(1) as thread:
        for block in blocks:
            part = counter.split(list(enumerate(block, at)))
            at += len(block)
            encoded = thread.submit(counter.encode, part)
            if waiting:
                store()
            waiting.append((part, encoded))
        if waiting:
            store()
    table.close()
    return table


def _blocks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """All rows, some together: few at first, so that something is there at once."""
    if isinstance(examples, Examples):
        blocks: Iterator[Sequence[Example]] = examples.blocks()
    else:
        blocks = (examples[at : at + _BLOCK] for at in range(0, len(examples), _BLOCK))
    for number, block in enumerate(blocks):
        if number == 0:
            yield list(block[:_FIRST])
            block = block[_FIRST:]
        if block:
            yield list(block)


def _array(values: NDArray[Any]) -> array[int]:
    made = array("i")
    made.frombytes(values.astype("int32").tobytes())
    return made
