"""Texts of which a part is left out, measured: how unlikely that part is to a model, and how much of it is the model's first guess."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from msgspec import Struct

from engine.data.convert import Example
from engine.models import facts
from engine.worker import rows, stages
from engine.worker.generate import mixed
from engine.worker.session import Session
from engine.worker.stages import gaps

_BETWEEN = " · "  # the tokens of gaps, for a person


class Filled(Struct, frozen=True):
    """What a model makes of a text.

    loss   summed over the `tokens` that were left out, in nats
    right  of the `shown` gaps, which a person would see, those whose token it finds likeliest; `words` are its guesses
    """

    loss: float
    tokens: int
    right: int
    shown: int
    words: str


class Texts:
    """Texts as the run `now` divides them, of long ones the first part. What is left out is drawn by the number of a row alone: the same for every model, and each time."""

    def __init__(self, now: Session, kind: type[gaps.Gap]) -> None:
        self._now, self._most = now, now.recipe.settings.max_length
        self._gap = kind(now.tokenizer, now.rows.opening, now.rows.closing)

    def row(self, example: Example) -> dict[str, list[int]] | None:
        """{"input_ids", "labels"}, None for a text that is too short."""
        (measure,) = self._now.rows.measure([self._now.rows.render(example)])
        rows = self._now.rows
        text = gaps.parts(np.array(measure.ids), self._most, rows.opening, rows.closing)[0]
        return self._gap(text, np.random.default_rng(example.row)) if self._gap.enough(text) else None

    def told(self, row: dict[str, list[int]]) -> tuple[str, str | None]:
        """The text with its gaps, and what stood in them; None where none can be seen."""
        _, shown = self._places(row)
        return self._gap.text(row["input_ids"]), self._words(np.array(row["labels"])[shown]) if shown.any() else None

    @torch.no_grad()
    def filled(self, model: Any, row: dict[str, list[int]]) -> Filled:
        ids = torch.tensor([row["input_ids"]], device=model.device)
        labels = torch.tensor([row["labels"]], device=model.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        out, shown = self._places(row)
        with mixed(model):
            logits = gaps.predicted(model, self._gap, given, labels != rows.UNTRAINED).float()
        wanted = torch.tensor(np.array(row["labels"])[out], device=logits.device)
        summed = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        guess = logits.argmax(-1).cpu().numpy()[shown[out]]
        right = int((guess == np.array(row["labels"])[shown]).sum())
        return Filled(float(summed), int(out.sum()), right, int(shown.sum()), self._words(guess))

    def _places(self, row: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Where in the labels something is left out, and where of it a person sees a gap: truth values."""
        out = np.array(row["labels"]) != rows.UNTRAINED
        return out, out & self._gap.shown(row)

    def _words(self, ids: Any) -> str:
        return _BETWEEN.join(str(self._now.tokenizer.decode([int(one)])).strip() for one in ids)


def of(now: Session) -> Texts | None:
    """None for a model that goes on with a text."""
    shape = facts.read(now.folder).shape
    kind = stages.load(now.recipe.stage, shape).gap
    return Texts(now, kind) if kind is not None else None
