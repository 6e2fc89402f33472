"""What the two ways of pre-training by gaps share (BERT's, T5's): rows whose gaps are drawn anew in each epoch, and the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from engine.data import packs
from engine.data import tokenizer as tokens
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.worker import build, rows
from engine.worker.stages import Prepared
from engine.worker.stages.preferences import padded
from engine.worker.trainer import Journalled

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARE = 0.15  # of the tokens that are to be found (BERT paper and T5 paper)
_SHOWN = 48  # tokens of the text that the model is shown while it learns


class Gap(Protocol):
    """How gaps are made: by a tokenizer of transformers, in texts that begin and end with tokens of its own."""

    def __init__(self, tokenizer: Any, opening: list[int], closing: list[int]) -> None: ...

    def enough(self, ids: NDArray[Any]) -> bool:
        """Whether the text is long enough for a gap."""

    def __call__(self, ids: NDArray[Any], random: np.random.Generator) -> dict[str, list[int]]:
        """{"input_ids", "labels"} of a text."""

    def inputs(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """What `model` takes of a batch of them."""

    def shown(self, row: dict[str, list[int]]) -> NDArray[Any]:
        """Which of the labels stand for a gap that a person can see in the text: truth values."""

    def text(self, ids: Sequence[int]) -> str:
        """The text for a person, with its gaps."""


class Gapped(Dataset[dict[str, list[int]]]):
    """Texts in tokens, with gaps. They are drawn from the seed, the epoch and the number of the row alone: a resumed run
    draws the same as one that was never stopped, and held-out rows, whose epoch stays 0, are the same at each evaluation.
    """

    def __init__(self, texts: Sequence[NDArray[Any]], gap: Gap, seed: int) -> None:
        self.texts, self.gap, self._seed = texts, gap, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        return self.gap(np.asarray(self.texts[at], np.int64), np.random.default_rng((self._seed, self.epoch, at)))


def prepare(recipe: Recipe, folder: Path, kind: type[Gap]) -> Prepared:
    """Texts, long ones divided at max_length. FtuiError(PLAN_REFUSED) if none is left."""
    found, most = rows.draw(recipe, folder), recipe.settings.max_length
    own = tokens.load(folder)
    gap = kind(build.tokenizer(folder, recipe.model.trust_remote_code), own.opening, own.closing)
    chosen = {*found.train, *found.held_out}
    texts = {
        at: [part for part in parts(found.made[at][0][0], most, own.opening, own.closing) if gap.enough(part)]
        for at in chosen
    }
    usable = {at for at in chosen if texts[at]}
    if not usable.intersection(found.train):
        raise FtuiError(
            Exit.PLAN_REFUSED,
            "every text is too short to leave something out",
            recipe.data.source,
            "give longer texts, or raise max_length",
        )

    def table(which: Sequence[int]) -> Gapped | None:
        some = [part for at in which for part in texts[at]]
        return Gapped(some, gap, recipe.settings.seed) if some else None

    masked = found.masked + len(chosen - usable)
    trained = sum(at in usable for at in found.train)
    return Prepared(table(found.train), table(found.held_out), masked, found.dataset.sha256, trained)


def parts(ids: NDArray[Any], most: int, opening: list[int], closing: list[int]) -> list[NDArray[Any]]:
    """A text in parts of at most `most` tokens, around each of which stands what the tokenizer puts around the whole."""
    if len(ids) <= most:
        return [ids]
    bare = ids[len(opening) : len(ids) - len(closing)]
    each = packs.parts(len(bare), most - len(opening) - len(closing))
    return [np.concatenate([opening, bare[begin:end], closing]).astype(ids.dtype) for begin, end in each]


class _Epochs(TrainerCallback):
    """Tells the rows which epoch it is, also on a resume in the middle of one."""

    def __init__(self, rows: Gapped) -> None:
        self._rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rows.epoch = int((state.epoch or 0.0) + 1e-6)


class Filling(Journalled, Trainer):
    """The loss is the mean over all tokens of an optimizer step that were left out. The head computes those alone, as
    BERT's own code does: logits of a whole vocabulary for every token would take most of the memory.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(data_collator=Collator(rest["processing_class"].pad_token_id), **rest)
        # Models of these families take `num_items_in_batch` and do nothing with it.
        self.model_accepts_loss_kwargs, self.loss_is_scaled_for_ga = True, True
        self.add_callback(_Epochs(rest["train_dataset"]))
        self._gap: Gap = rest["train_dataset"].gap

    def counts(self, inputs: dict[str, Any]) -> tuple[int, int, int]:
        learned = int((inputs["labels"] != rows.UNTRAINED).sum())
        return inputs["input_ids"].numel(), int(inputs["attention_mask"].sum()), learned

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        wanted = inputs["labels"] != rows.UNTRAINED
        logits = predicted(model, self._gap, inputs, wanted)
        summed = torch.nn.functional.cross_entropy(logits.float(), inputs["labels"][wanted], reduction="sum")
        loss = summed / (wanted.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss


class Collator:
    """Rows to a batch, filled up on the right."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, found: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return {
            "input_ids": padded([row["input_ids"] for row in found], self._padding),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in found], 0),
            "labels": padded([row["labels"] for row in found], rows.UNTRAINED),
        }


def bare(model: Any) -> Any:
    """The model of transformers, whatever adapter is around it."""
    return build.core(getattr(model, "module", model))


def predicted(model: Any, gap: Gap, batch: dict[str, Any], wanted: torch.Tensor) -> torch.Tensor:
    """Logits of the `wanted` tokens of a batch, [wanted, vocabulary]."""
    with only(bare(model), wanted):
        return torch.as_tensor(model(**gap.inputs(bare(model), batch)).logits)


@contextlib.contextmanager
def only(model: Any, wanted: torch.Tensor) -> Iterator[None]:
    """The head computes the `wanted` tokens alone; `wanted` is [rows, tokens] of truth values."""
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda head, given: (given[0][wanted],))
    try:
        yield
    finally:
        hook.remove()


def config(recipe: Recipe, shared: dict[str, Any]) -> TrainingArguments:
    return TrainingArguments(**shared, remove_unused_columns=False)


def shown(found: Prepared) -> tuple[NDArray[Any], Any]:
    """The beginning of a text that the model is shown while it learns, of a held-out one where there is one; and what makes
    its gaps."""
    some = found.train if found.held_out is None else found.held_out
    return np.asarray(some.texts[0][:_SHOWN], np.int64), some.gap
