"""Machines, models and data sets that the rules are tried on."""

from __future__ import annotations

from typing import Any

from engine.advice.kinds import Advice, Facts, Plan
from engine.hardware import Gpu, Hardware
from engine.speeds import Measured, Speed, Work
from tests.engine.models import known
from tests.engine.settings import settings

GB = 10**9

SMOL = known.published(known.SMOLLM2_135M)
QWEN = known.published(known.QWEN3_06B)
LLAMA = known.published(known.LLAMA_8B)

OLD_CPU = Hardware(cpu="old processor", cores=2, memory_total=25 * GB, memory_free=23 * GB, disk_free=500 * GB)
NEW_CPU = Hardware(
    cpu="new processor", cores=2, cpu_bf16=True, memory_total=25 * GB, memory_free=23 * GB, disk_free=500 * GB
)


def card(free: float, name: str = "NVIDIA H100", bf16: bool = True) -> Hardware:
    """A machine with one card that has `free` GB free."""
    gpu = Gpu(0, name, int(free * GB), int(free * GB), 0, bf16)
    return Hardware(gpus=[gpu], cpu="processor", cores=16, memory_free=64 * GB, disk_free=500 * GB)


def facts(rows: int = 1000, **changes: Any) -> Facts:
    """`rows` ordinary instructions for the starter model on a large card, with any fact changed."""
    given: dict[str, Any] = {
        "model": SMOL,
        "hardware": card(80),
        "rows": rows,
        "p50": 104,
        "p95": 190,
        "p99": 231,
        "max": 257,
        "mean": 110.0,
    }
    return Facts(**{**given, **changes})


def identity(rows: int = 91, **changes: Any) -> Facts:
    return facts(rows, **{"intent": "identity", "hardware": OLD_CPU, **changes})


def of(plan: Plan, field: str) -> Advice:
    return next(advice for advice in plan.advice if advice.field == field)


def measured(
    seconds_per_token: float,
    seconds_per_batch: float = 0.0,
    seconds_per_update: float = 0.0,
    padded: bool = True,
    **changes: Any,
) -> list[Measured]:
    """What a probe of LoRA (or of settings with any field changed) left behind."""
    speed = Speed(
        seconds_per_batch=seconds_per_batch,
        seconds_per_token=seconds_per_token,
        seconds_per_update=seconds_per_update,
        padded=padded,
        source="measured by a probe on this machine",
    )
    return [Measured(work=Work.of(settings(**changes)), speed=speed, by="probe", when=0.0)]
