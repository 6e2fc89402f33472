"""Supervised fine-tuning, and continued pre-training, which is the same with a loss on every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from engine.recipe import Recipe
from engine.worker import rows
from engine.worker.stages import Prepared, Stage
from engine.worker.trainer import Journalled


class SFT(Journalled, SFTTrainer):
    pass


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    split = rows.prepare(recipe, folder)
    held_out = rows.as_dataset(split.held_out) if len(split.held_out) else None
    return Prepared(rows.as_dataset(split.train), held_out, split.masked, split.sha256)


def config(recipe: Recipe, shared: dict[str, Any]) -> SFTConfig:
    return SFTConfig(
        **shared,
        max_length=None,  # rows are cut when they are tokenised
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


STAGE = Stage(prepare, config, SFT)
