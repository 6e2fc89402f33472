"""GRPO and RLOO: several answers to each prompt, those that earn more than the others become likelier."""

from __future__ import annotations

from typing import Any

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import RepeatSampler

from engine.recipe import Recipe
from engine.worker import adapters, added_rows
from engine.worker.stages import Stage
from engine.worker.stages.prompts import Worth, prepare
from engine.worker.trainer import Journalled

_Before: Any = object  # what follows stands before the trainer of a stage


class InTurn(RepeatSampler):
    """TRL's order of prompts, but that of an epoch depends on nothing before it, so that a resumed run draws the same.

    trainer  knows the epoch; on a resume nobody tells a sampler
    """

    def __init__(self, trainer: Any, *rest: Any) -> None:
        super().__init__(*rest)
        self._trainer = trainer

    def __iter__(self) -> Any:
        self.generator.manual_seed((self.seed or 0) + int((self._trainer.state.epoch or 0.0) + 1e-6))
        return super().__iter__()


class Rewarded(_Before):
    """Put before TRL's trainers for rewards: prompts that are tokens already, and the mean reward of each step."""

    def __init__(self, *, recipe: Recipe, folder: Any, **rest: Any) -> None:
        rest.pop("eval_dataset")
        super().__init__(reward_funcs=[Worth(recipe, folder)], **rest)
        model: Any = self.model
        if "ref" in getattr(model, "peft_config", {}):
            if recipe.adapter is None:
                model.delete_adapter("ref")  # a new adapter switched off is the reference
            else:
                added_rows.mirror(model, adapters.NAME, "ref")

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _get_train_sampler(self, dataset: Any = None) -> InTurn:
        sampler: Any = super()._get_train_sampler(dataset)
        return InTurn(
            self,
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )

    def counts(self, inputs: Any) -> tuple[int, int, int]:
        return 0, 0, 0  # known when the answers are there, see below

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)
        answers = int(made["completion_mask"].sum())
        self._read += int(made["prompt_mask"].sum()) + answers
        self._trained += answers
        return made

    def rewarded(self) -> float | None:
        found = self._metrics["train"]["reward"]
        return sum(found) / len(found) if found else None


class GRPO(Rewarded, Journalled, GRPOTrainer):
    pass


class RLOO(Rewarded, Journalled, RLOOTrainer):
    pass


def _own(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.settings
    assert settings.generations is not None and settings.answer_length is not None  # `refusals` sees to it
    assert settings.temperature is not None
    return {
        "num_generations": settings.generations,
        "max_completion_length": settings.answer_length,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": settings.beta or 0.0,
        "disable_dropout": False,  # as the settings say
        "log_completions": False,
    }


def config(recipe: Recipe, shared: dict[str, Any]) -> GRPOConfig:
    assert recipe.settings.loss is not None  # as above
    return GRPOConfig(**shared, **_own(recipe), loss_type=recipe.settings.loss)


def config_rloo(recipe: Recipe, shared: dict[str, Any]) -> RLOOConfig:
    return RLOOConfig(**shared, **_own(recipe))


STAGE = Stage(prepare, config, GRPO, rewarded=True)
STAGE_RLOO = Stage(prepare, config_rloo, RLOO, rewarded=True)
