"""What an epoch is made of: rows, parts of texts that are divided, or packs of either. As the worker makes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from engine.advice.kinds import Facts, Values, held_out
from engine.data import packs, split
from engine.recipe import PPO_PASSES, Settings

if TYPE_CHECKING:
    import numpy as np

_SAMPLE = 10_000  # rows that are enough to tell how rows are padded, so that a plan is instant for any number
_UNKNOWN = 1000  # rows of the same length that stand for all where only percentiles are known


class Epoch(NamedTuple):
    """What is trained on in one pass, held-out rows left out.

    parts   rows; of texts, the parts that they are divided into
    items   what a micro-batch counts: packs, or else the same as `parts`
    tokens  in them, without padding
    sample  tokens of some of the parts, evenly spread, from the shortest on
    """

    parts: int
    items: int
    tokens: float
    sample: np.ndarray


def epoch(facts: Facts, values: Values) -> Epoch:
    """One pass over the rows by `max_length`, `eval_fraction`, `seed` and `packing`.

    Exact where every row's length is known and no row counts more or less than once; else the rows that are known
    stand for the others.
    """
    key = tuple(values[name] for name in ("max_length", "eval_fraction", "seed", "packing"))
    # Packing many rows anew at each edit would take time.
    known: dict[object, Epoch] = facts.__dict__.setdefault("epochs", {})
    if key not in known:
        known[key] = _epoch(facts, *key)
    return known[key]


def optimizer_steps(facts: Facts, settings: Settings) -> int:
    """Optimizer steps of the whole run, as the trainer counts them: each epoch ends with a step, even a partial one; of
    answers to prompts only whole steps are made. PPO makes PPO_PASSES of each round of answers.
    """
    if settings.answer_length:
        prompts = max(1, settings.micro_batch * settings.accumulation // (settings.generations or 1))
        passes = 1 if settings.generations else PPO_PASSES
        return math.ceil(facts.rows // prompts * passes * settings.epochs)
    items = epoch(facts, of(settings)).items
    return math.ceil(math.ceil(math.ceil(items / settings.micro_batch) / settings.accumulation) * settings.epochs)


def of(settings: Settings) -> Values:
    """What an epoch hangs on."""
    return {name: getattr(settings, name) for name in ("max_length", "eval_fraction", "seed", "packing")}


def parts(facts: Facts, max_length: int) -> int:
    """How many parts the counted texts are divided into."""
    return len(packs.divided(_array(facts.lengths), max_length, facts.around))


def _epoch(facts: Facts, max_length: int, eval_fraction: float, seed: int, packing: bool) -> Epoch:
    import numpy as np

    rows = max(0, facts.rows - held_out(facts.rows, eval_fraction))
    if not rows:
        return Epoch(0, 0, 0.0, np.zeros(1))
    lengths = _array(facts.lengths)
    if not len(lengths):
        lengths = np.full(min(rows, _UNKNOWN), max(1, round(facts.tokens_per_row)))
    elif eval_fraction and len(lengths) == facts.rows and (facts.divided or packing):
        lengths = np.delete(lengths, split.held_out(len(lengths), eval_fraction, seed))
    weight = rows / len(lengths)  # of how many rows each stands for one
    found = packs.divided(lengths, max_length, facts.around) if facts.divided else lengths.clip(1, max_length)
    items = packs.count(found, max_length) if packing else len(found)
    sample = np.sort(found)[:: max(1, len(found) // _SAMPLE)]
    return Epoch(round(len(found) * weight), math.ceil(items * weight - 1e-9), float(found.sum() * weight), sample)


def _array(lengths: object) -> np.ndarray:
    import numpy as np

    return np.asarray(lengths, dtype=np.int64)
