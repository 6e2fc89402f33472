"""Pre-training as BERT does it: words are masked, and the model finds them by what stands on both sides.

15 % of the tokens of each row, one at least; of those 80 % become the mask token, 10 % another token, 10 % stay as they
are (BERT paper, §3.1; tuning primer). transformers' own collator draws from one stream of numbers, which a resumed run does
not find again, and may leave a short row without any mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.recipe import Recipe
from engine.worker import rows
from engine.worker.generate import mixed
from engine.worker.stages import Prepared, Stage, gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASKED, _OTHER = 0.8, 0.1  # the rest stays


class Masks:
    """Texts to {"input_ids", "labels"}; special tokens are never left out, nor put in."""

    def __init__(self, tokenizer: Any, opening: list[int], closing: list[int]) -> None:
        self._tokenizer, self._opening, self._closing = tokenizer, opening, closing
        self._special = np.array(tokenizer.all_special_ids)
        self._ordinary = np.setdiff1d(np.arange(len(tokenizer)), self._special)
        self.mask = tokenizer.mask_token_id

    def enough(self, ids: NDArray[Any]) -> bool:
        return bool((~np.isin(ids, self._special)).any())

    def chosen(self, ids: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
        free = np.flatnonzero(~np.isin(ids, self._special))
        return random.choice(free, max(1, round(gaps.SHARE * len(free))), replace=False)

    def __call__(self, ids: NDArray[Any], random: np.random.Generator) -> dict[str, list[int]]:
        chosen = self.chosen(ids, random)
        labels = np.full(len(ids), rows.UNTRAINED)
        labels[chosen] = ids[chosen]
        how, seen = random.random(len(chosen)), np.array(ids)
        seen[chosen[how < _MASKED]] = self.mask
        other = chosen[(how >= _MASKED) & (how < _MASKED + _OTHER)]
        seen[other] = random.choice(self._ordinary, len(other))
        return {"input_ids": seen.tolist(), "labels": labels.tolist()}

    def inputs(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name != "labels"}

    def shown(self, row: dict[str, list[int]]) -> NDArray[Any]:
        """Neither the other tokens nor those that stayed as they are."""
        return np.array(row["input_ids"]) == self.mask

    def text(self, ids: Sequence[int]) -> str:
        text = list(ids[len(self._opening) :])
        if self._closing and text[-len(self._closing) :] == self._closing:
            text = text[: -len(self._closing)]
        return str(self._tokenizer.decode(text)).strip()


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    return gaps.prepare(recipe, folder, Masks)


@torch.no_grad()
def say(model: Any, tokenizer: Any, found: Prepared) -> tuple[str, str]:
    """A text with masks, and the same with the words that the model finds likeliest in their places."""
    text, masks = gaps.shown(found)
    hidden = masks.chosen(text, np.random.default_rng(0))
    asked, filled = np.array(text), np.array(text)
    asked[hidden] = masks.mask
    ids = torch.tensor(asked[None], device=model.device)
    training = model.training
    model.eval()
    with mixed(model):
        likeliest = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].argmax(-1).cpu().numpy()
    model.train(training)
    filled[hidden] = likeliest[hidden]
    return masks.text(asked.tolist()), masks.text(filled.tolist())


STAGE = Stage(prepare, gaps.config, gaps.Filling, speaks=False, say=say, gap=Masks)
