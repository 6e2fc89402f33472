"""Supervised fine-tuning, and continued pre-training, which is the same with a loss on every token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from engine.recipe import Recipe
from engine.worker import rows, unpadded
from engine.worker.stages import Prepared, Stage
from engine.worker.trainer import Journalled


@dataclass
class Config(SFTConfig):
    """`unpadded`: micro-batches without padding, where the model can (engine/worker/unpadded.py)."""

    unpadded: bool = True


class SFT(Journalled, SFTTrainer):
    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        model: Any = self.model
        rows: Any = self.train_dataset
        if rest["args"].unpadded and unpadded.fits(model):
            before = model.config._attn_implementation
            model.set_attn_implementation(unpadded.NAME)
            if unpadded.agrees(model, [rows[at] for at in range(min(3, len(rows)))]):
                self.data_collator = unpadded.collate
            else:
                model.set_attn_implementation(before)

    def counts(self, inputs: dict[str, Any]) -> tuple[int, int, int]:
        if "pieces" not in inputs:
            return super().counts(inputs)
        (_, common), *rows = inputs["pieces"]
        lengths = [common + end - begin for begin, end in rows]
        # Computed is told as padded rows would be: plans count those.
        return len(rows) * max(lengths), sum(lengths), int((inputs["shift_labels"] != unpadded.IGNORED).sum())

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if "pieces" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        found = unpadded.loss(model, inputs, num_items_in_batch)
        # As TRL does: what is divided by the tokens of all processes is averaged over them afterwards.
        return found if num_items_in_batch is None else found * self.accelerator.num_processes


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    split = rows.prepare(recipe, folder)
    held_out = rows.as_dataset(split.held_out) if len(split.held_out) else None
    return Prepared(rows.as_dataset(split.train), held_out, split.masked, split.sha256)


def config(recipe: Recipe, shared: dict[str, Any]) -> Config:
    return Config(
        **shared,
        unpadded=recipe.settings.unpadded and recipe.settings.neftune is None,  # whose noise goes by the padded length
        max_length=None,  # rows are cut when they are tokenised
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


STAGE = Stage(prepare, config, SFT)
