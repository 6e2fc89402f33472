"""What a worker is asked to do. One JSON line on its standard input."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field


class Job(Struct):
    """A worker's one task.

    run      absolute path of the run directory
    options  train: {"resume": "checkpoints/step-000096" or null}, with "extend": N after `extend`, and "now": true for a
             run that waits for nobody
             serve: {} or {"checkpoint": "checkpoints/step-000096"} where the run has no result yet
             export: what the exporter needs
             evaluate: engine.runs.measured.Asked, and the "key" of the answer
             every kind: "gpu": index of the GPU, where one was chosen (set CUDA_VISIBLE_DEVICES before CUDA is used)
    attempt  which attempt of the run this is, from 1 on; filled in by `control.start`
    """

    kind: Literal["train", "serve", "export", "evaluate"]
    run: str
    options: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
