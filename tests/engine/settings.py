"""Settings for tests: complete, with any field changed by name."""

from __future__ import annotations

from typing import Any

from engine.recipe import Settings


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "method": "lora",
        "learning_rate": 2e-4,
        "epochs": 3.0,
        "micro_batch": 4,
        "accumulation": 1,
        "max_length": 256,
        "rank": 8,
        "alpha": 8,
        "dropout": 0.0,
        "targets": "all-linear",
        "precision": "fp32",
        "optimizer": "adamw_torch",
        "schedule": "cosine",
        "warmup": 0.05,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "eval_fraction": 0.0,
        "stop_on_plateau": False,
        "save_every": 10,
        "sample_every": 10,
        "seed": 42,
    }
    return Settings(**{**values, **changes})
