"""Rows of a data set as the tokens a trainer sees: cut, split and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.data import dataset as data
from engine.data import split
from engine.data import tokenizer as tokens
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe


class Split(Struct):
    """Pre-tokenised rows, each {"input_ids": [...], "labels": [...]} with -100 where there is no loss."""

    train: list[dict[str, list[int]]]
    held_out: list[dict[str, list[int]]]
    masked: int  # rows left out because nothing in them would be trained after cutting
    sha256: str


def prepare(recipe: Recipe, folder: Path) -> Split:
    """Read, render, tokenise, cut at `max_length` (the first tokens are kept) and hold out `eval_fraction`.

    Raises FtuiError(DATA_*) as the data room does, and PLAN_REFUSED when no row has anything to train on.
    """
    settings = recipe.settings
    rows = data.load(recipe.data)
    tokenizer = tokens.load(folder)
    kept: list[dict[str, list[int]]] = []
    for example in rows.examples:
        made = tokenizer.tokenize(example)
        labels = made.labels[: settings.max_length]
        # The first label is never predicted, so it does not count.
        if any(label != -100 for label in labels[1:]):
            kept.append({"input_ids": made.input_ids[: settings.max_length], "labels": labels})
    masked = len(rows.examples) - len(kept)
    if not kept:
        raise FtuiError(
            Exit.PLAN_REFUSED,
            f"nothing would be trained: at {settings.max_length} tokens every row is cut before its answer begins",
            recipe.data.source,
            "raise max_length, or shorten the prompts",
        )
    held_out = set(split.held_out(len(kept), settings.eval_fraction, settings.seed))
    return Split(
        train=[row for i, row in enumerate(kept) if i not in held_out],
        held_out=[row for i, row in enumerate(kept) if i in held_out],
        masked=masked,
        sha256=rows.sha256,
    )


def as_dataset(rows: list[dict[str, list[int]]]) -> Any:
    """The rows as a `datasets.Dataset` with the columns that TRL takes as already prepared."""
    from datasets import Dataset

    return Dataset.from_dict({key: [row[key] for row in rows] for key in ("input_ids", "labels")})
