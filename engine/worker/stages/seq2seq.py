"""Pre-training as T5 does it: spans of a text are left out, the encoder reads the rest, the decoder writes what is missing.

15 % of the tokens in spans of 3 on average, each span replaced by a sentinel, which then stands before it in what is to be
written: "Thank you <extra_id_0> me to your party <extra_id_1> week" -> "<extra_id_0> for inviting <extra_id_1> last" (T5
paper, §3.1 and §3.3; transformers has no collator for it). A text begins with something to read and ends with a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.worker.generate import mixed
from engine.worker.stages import Prepared, Stage, gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPAN = 3.0  # tokens of a span on average
_WRITTEN = 32  # tokens that the model is let write while it learns


class Spans:
    """Texts to {"input_ids", "labels"}."""

    def __init__(self, tokenizer: Any, opening: list[int], closing: list[int]) -> None:
        self._tokenizer, self._sentinels, self._closing = tokenizer, sentinels(tokenizer), closing

    def enough(self, ids: NDArray[Any]) -> bool:
        return len(self._bare(ids)) > 1

    def _bare(self, ids: NDArray[Any]) -> NDArray[Any]:
        closed = ids[len(ids) - len(self._closing) :].tolist() == self._closing
        return ids[: len(ids) - len(self._closing)] if closed else ids

    def __call__(self, ids: NDArray[Any], random: np.random.Generator) -> dict[str, list[int]]:
        text = self._bare(ids)
        hidden = min(max(round(gaps.SHARE * len(text)), 1), len(text) - 1)
        count = min(max(round(hidden / _SPAN), 1), len(text) - hidden, len(self._sentinels))
        kept, left_out = _parts(len(text) - hidden, count, random), _parts(hidden, count, random)
        read: list[int] = []
        written: list[int] = []
        at = 0
        for sentinel, shown, missing in zip(self._sentinels, kept, left_out, strict=False):
            read += [*text[at : at + shown].tolist(), sentinel]
            at += shown
            written += [sentinel, *text[at : at + missing].tolist()]
            at += missing
        return {"input_ids": read + self._closing, "labels": written + self._closing}

    def inputs(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        before = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        rest = {name: value for name, value in batch.items() if name != "labels"}
        return rest | {"decoder_input_ids": before, "use_cache": False}

    def shown(self, row: dict[str, list[int]]) -> NDArray[Any]:
        """What is written between the sentinels."""
        return ~np.isin(row["labels"], [*self._sentinels, *self._closing])

    def text(self, ids: Sequence[int]) -> str:
        """Also of what a model wrote; sentinels are special tokens, too, and stay."""
        apart = {self._tokenizer.pad_token_id, self._tokenizer.eos_token_id}
        return str(self._tokenizer.decode([one for one in ids if one not in apart])).strip()


def sentinels(tokenizer: Any) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, …; of mT5 they are ordinary pieces. Raises FtuiError(MODEL_UNSUPPORTED)."""
    words = tokenizer.get_vocab()
    for before in ("", "\u2581"):
        found: list[int] = []
        while (word := f"{before}<extra_id_{len(found)}>") in words:
            found.append(words[word])
        if found:
            return found
    raise FtuiError(
        Exit.MODEL_UNSUPPORTED,
        "its tokenizer has no sentinels (<extra_id_0>, …) to stand for what is left out",
        next_step="take the tokenizer it was pre-trained with",
    )


def _parts(total: int, count: int, random: np.random.Generator) -> list[int]:
    """`total` in `count` parts of one at least, every way as likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False) + 1) if count > 1 else np.array([], int)
    return np.diff(np.concatenate([[0], cuts, [total]])).tolist()  # type: ignore[no-any-return]


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    return gaps.prepare(recipe, folder, Spans)


@torch.no_grad()
def say(model: Any, tokenizer: Any, found: Prepared) -> tuple[str, str]:
    """A text with gaps, and what the model writes for them."""
    text, spans = gaps.shown(found)
    ids = spans(text, np.random.default_rng(0))["input_ids"]
    given = torch.tensor([ids], device=model.device)
    training = model.training
    model.eval()
    with mixed(model):
        (written,) = model.generate(
            input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=_WRITTEN, do_sample=False
        )
    model.train(training)
    return spans.text(ids), spans.text(written.tolist())


STAGE = Stage(prepare, gaps.config, gaps.Filling, speaks=False, say=say, gap=Spans)
