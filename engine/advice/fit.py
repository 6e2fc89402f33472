"""What the memory at hand allows. Every question here is answered by `memory.forecast`, none by trying."""

from __future__ import annotations

from typing import Any

from engine.advice.kinds import Facts, Values
from engine.models import memory
from engine.models.facts import ModelFacts
from engine.models.memory import Memory
from engine.recipe import Settings

# Stand-ins for settings that no forecast depends on much, and that are decided after memory is asked about.
_NEUTRAL: Values = {
    "learning_rate": 1e-4,
    "epochs": 1.0,
    "micro_batch": 1,
    "accumulation": 2,  # gradients wait while the next micro-batch is computed
    "rank": 32,
    "alpha": 32,
    "dropout": 0.05,
    "targets": "all-linear",
    "optimizer": "adamw_torch_fused",
    "schedule": "cosine",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": True,
    "eval_fraction": 0.0,
    "stop_on_plateau": False,
    "save_every": 1,
    "sample_every": 1,
    "seed": 0,
    "method": "lora",
    "precision": "fp32",
    "max_length": 512,
}


def values_of(settings: Settings) -> Values:
    """All settings by name."""
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def need(facts: Facts, values: Values, **changes: Any) -> Memory | None:
    """The memory that `values` with `changes` would take; None while no model is picked.

    What is not decided yet is taken at its smallest, one row at a time and activations recomputed, but for accumulation.
    """
    if facts.model is None:
        return None
    settings = Settings(**{**_NEUTRAL, **values, **changes})
    longest, device = max(1, facts.max), facts.hardware.device
    return memory.forecast(facts.model, settings, longest=longest, device=device, stage=facts.stage)


def smallest(facts: Facts, values: Values) -> Memory | None:
    """The least that any run of this model takes: QLoRA in 4 bit, row by row, activations recomputed."""
    return need(facts, values, method="qlora", bits=4, micro_batch=1, gradient_checkpointing=True)


def longest_chat(facts: Facts, model: ModelFacts, settings: Settings) -> Memory:
    """What a chat as long as the rows may be takes."""
    length, device = settings.max_length, facts.hardware.device
    return memory.forecast(model, settings, longest=length, device=device, phase="chat", stage=facts.stage)


def fits(facts: Facts, values: Values, **changes: Any) -> bool:
    """Whether that stays within what the device has for a run; True while no model is picked."""
    wanted = need(facts, values, **changes)
    return wanted is None or wanted.total <= facts.hardware.budget
