"""The stages, a file each: the rows it takes, the model it trains, and the trainer with its configuration."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.models.shape import Shape
from engine.recipe import Recipe
from engine.recipe import Stage as Name
from engine.worker import imports
from engine.worker.build import for_training

if TYPE_CHECKING:
    from engine.worker.stages.gaps import Gap

_FILES: dict[Name, str] = {
    "sft": "sft",
    "pretraining": "sft",
    "dpo": "dpo",
    "kto": "kto",
    "reward": "reward",
    "grpo": "grpo",
    "rloo": "grpo",
    "ppo": "ppo",
}
# How a model is pre-trained that does not go on with a text.
_GAPS: dict[Shape, str] = {"masked": "masked", "seq2seq": "seq2seq"}


class Prepared(Struct, frozen=True):
    """Rows in tokens, as `datasets.Dataset`; `held_out` is None where nothing is held out.

    masked  rows that are left out because nothing of them would be trained
    rows    that are trained on, where an item of `train` is not a row: a part of one, or several of them
    sha256  of the rows before they were split
    """

    train: Any
    held_out: Any
    masked: int
    sha256: str
    rows: int | None = None


class Stage(Struct, frozen=True):
    """How one stage is trained.

    prepare  the rows of a recipe, for the model in a folder
    config   the trainer's arguments: those that all share (`trainer.arguments`), and its own
    trainer  a class made of `trainer.Journalled` and a trainer of TRL
    build    the model as it is trained
    speaks   whether what is trained can answer a question
    rewarded  whether it learns from the recipe's reward: the trainer then takes `recipe` and `folder`, too
    say       for what cannot answer: something to show while it learns, as model, tokenizer and rows give it: what the model
              was given, and what it made of it
    gap       for what cannot answer: how something is left out of a text
    """

    prepare: Callable[[Recipe, Path], Prepared]
    config: Callable[[Recipe, dict[str, Any]], Any]
    trainer: Callable[..., Any]
    build: Callable[[Recipe, Path], Any] = for_training
    speaks: bool = True
    rewarded: bool = False
    say: Callable[[Any, Any, Prepared], tuple[str, str]] | None = None
    gap: type[Gap] | None = None


def load(name: Name, shape: Shape = "causal") -> Stage:
    """Only the stage that is wanted is imported: each trainer of TRL takes its time. `shape` is that of the model."""
    with imports.quietly():
        file = import_module(f"engine.worker.stages.{_GAPS.get(shape, _FILES[name])}")
    found: Stage = file.STAGE if name != "rloo" else file.STAGE_RLOO
    return found
