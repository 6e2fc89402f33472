"""Supervised fine-tuning, and continued pre-training, which is the same with a loss on every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.worker import build, rows, unpadded
from engine.worker.stages import Prepared, Stage
from engine.worker.trainer import Journalled


class Packs(DataCollatorForLanguageModeling):
    """To the padded micro-batch of their rows, which are then laid end to end (engine/worker/unpadded.py)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return super().torch_call(  # type: ignore[no-any-return]
            [
                {"input_ids": ids, "labels": labels}
                for pack in examples
                for ids, labels in zip(pack["input_ids"], pack["labels"], strict=True)
            ]
        )


class SFT(Journalled, SFTTrainer):
    """Raises FtuiError(MODEL_UNSUPPORTED) where the rows are packs and the model cannot read them end to end: filled up to the
    longest, a pack of many rows would be many times as large.
    """

    def __init__(self, **rest: Any) -> None:
        first = rest["train_dataset"][0]["input_ids"]
        self._packed = bool(first) and isinstance(first[0], list)
        if self._packed:
            rest["data_collator"] = Packs(rest["processing_class"].pad_token_id)
        super().__init__(**rest)
        if self._packed and build.core(self.model).config.get_text_config()._attn_implementation != unpadded.NAME:
            raise FtuiError(
                Exit.MODEL_UNSUPPORTED,
                "packing needs a model that reads rows laid end to end, and a trial with this one failed",
                next_step="train it without: --edit packing=false",
            )

    def counts(self, inputs: dict[str, Any]) -> tuple[int, int, int]:
        computed, read, trained = super().counts(inputs)
        return (read if self._packed else computed), read, trained


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    split, settings = rows.prepare(recipe, folder), recipe.settings
    held_out = None
    if settings.packing:
        train = rows.as_packs(split.train, settings.max_length)
        if len(split.held_out):
            # Row by row, so that the loss is that of a run without packs.
            held_out = rows.as_packs(split.held_out, None)
    else:
        train = rows.as_dataset(split.train)
        if len(split.held_out):
            held_out = rows.as_dataset(split.held_out)
    return Prepared(train, held_out, split.masked, split.sha256, split.rows)


def config(recipe: Recipe, shared: dict[str, Any]) -> SFTConfig:
    return SFTConfig(
        **shared,
        max_length=None,  # rows are cut when they are tokenised
        packing=False,  # and put together there, too: TRL's packs are one sequence for attention that tells rows apart itself
        dataset_kwargs={"skip_prepare_dataset": True},
    )


STAGE = Stage(prepare, config, SFT)
