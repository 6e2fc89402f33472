"""Runs as they lie on disk, written through the public journal; no process is started."""

from __future__ import annotations

import math

import msgspec

from engine import recipe as recipes
from engine.runs import directory
from engine.runs.directory import RunDir
from engine.runs.events import Event, Failure, Start, State, Step
from engine.runs.journal import Writer

NOW = 1_795_000_000.0  # the clock of these tests, seconds since 1970

SETTINGS = recipes.Settings(
    method="lora",
    learning_rate=1e-3,
    epochs=5,
    micro_batch=4,
    accumulation=1,
    max_length=256,
    rank=8,
    alpha=16,
    dropout=0.0,
    targets="all-linear",
    precision="fp32",
    optimizer="adamw_torch",
    schedule="cosine",
    warmup=0.05,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    eval_fraction=0.0,
    stop_on_plateau=False,
    save_every=50,
    sample_every=20,
    seed=0,
)


def fake_run(
    name: str,
    ends: str = "ready",
    step: int = 115,
    total: int = 115,
    model: str = "starter",
    when: float = NOW,
    **settings: object,
) -> RunDir:
    """A run whose journal ends in state `ends` after `step` of `total` steps, at `when` (seconds since 1970)."""
    recipe = recipes.Recipe(
        name=name,
        model=recipes.Model(source=model),
        data=recipes.Data(source="preset:identity"),
        settings=msgspec.structs.replace(SETTINGS, **settings),
    )
    run = directory.create(recipe, {})
    events: list[Event] = [
        State(state="training"),
        Start(attempt=1, from_step=0, total_steps=total, epochs=5.0, rows=91),
    ]
    for number in range(1, step + 1):
        events.append(
            Step(
                step=number,
                epoch=number / total * 5,
                loss=0.3 + 2.1 * math.exp(-number / (total / 5)),
                learning_rate=1e-3,
                grad_norm=1.0,
                tokens=number * 120,
                tokens_per_second=210.0,
                memory=2_000_000_000,
                seconds_left=(total - number) * 1.5,
            )
        )
    if ends == "failed":
        events.append(Failure(cause="out of memory at batch 4", next_step="lower the batch"))
    if ends != "training":
        events.append(State(state=ends))  # type: ignore[arg-type]
    writer = Writer(run.journal_path)
    for event in events:
        event.time = when
        writer.write(event)
    writer.close()
    return run
