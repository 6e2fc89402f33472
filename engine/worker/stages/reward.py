"""The reward model: a score for each answer, higher for the better one of a pair. What RL learns from."""

from __future__ import annotations

from typing import Any

import torch
from trl import RewardConfig, RewardTrainer

from engine.recipe import Recipe
from engine.worker import unpadded_scores
from engine.worker.stages import Stage
from engine.worker.stages.dpo import prepare
from engine.worker.stages.preferences import Heard, padded, pairs_right
from engine.worker.trainer import Journalled


class Collator:
    """Pairs to a batch of twice as many texts: all the better ones, then all the worse ones."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [pair[f"{side}_input_ids"] for side in ("chosen", "rejected") for pair in pairs]
        return {
            "input_ids": padded(ids, self._padding),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
        }


class Reward(Journalled, RewardTrainer):
    """The accuracy is the share of held-out pairs whose better answer has the higher score, the margin by how much."""

    def __init__(self, **rest: Any) -> None:
        self._margins: list[float] = []
        super().__init__(data_collator=Collator(rest["processing_class"].pad_token_id), **rest)
        if rest["without_padding"]:
            unpadded_scores.install(self.model, self.pace.laid)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # the rows are tokens already

    def counts(self, inputs: dict[str, Any]) -> tuple[int, int, int]:
        read = int(inputs["attention_mask"].sum())
        return inputs["input_ids"].numel(), read, read

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        heard: Any = Heard(model)
        done = super().prediction_step(heard, inputs, True, ignore_keys)
        better, worse = heard.output.logits.float().squeeze(-1).cpu().chunk(2)
        self._margins += (better - worse).tolist()
        return done

    def measured(self) -> dict[str, Any]:
        margins, self._margins = self._margins, []
        return {"accuracy": pairs_right(margins), "margin": sum(margins) / len(margins)} if margins else {}


def config(recipe: Recipe, shared: dict[str, Any]) -> RewardConfig:
    return RewardConfig(
        **shared,
        max_length=None,  # rows are cut when they are tokenised
        disable_dropout=False,  # as the settings say
        remove_unused_columns=False,
    )


STAGE = Stage(prepare, config, Reward, speaks=False)
