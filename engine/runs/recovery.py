"""What a training that failed may change by itself before it is tried again, and what it asks the person for.

Only rules: nothing is read, written or started here. The worker that failed asks them and writes what they say into the
recipe; the supervisor starts the next try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.errors import Exit, FtuiError
from engine.recipe import TOGETHER, Settings
from engine.runs.events import AnyEvent, Retry
from engine.runs.supervisor import TRIES

Kind = Literal["memory", "nan", "gpu"]

_LEAST_LENGTH = 64  # tokens a row: below that there is no row worth offering
# What a checkpoint holds the state of, or what decided which rows it has seen: another run, not the same one changed.
_FIXED = (
    *("rank", "alpha", "targets", "trained_layers", "optimizer", "eval_fraction", "rope", "seed"),
    *("loss", "beta", "generations", "packing"),
    *("rslora", "dora", "init", "virtual_tokens", "added_tokens"),
)


class Change(Struct, frozen=True):
    """Other values for `settings` (none: the same again), and in words what they do."""

    settings: dict[str, Any]
    text: str

    @property
    def options(self) -> str:
        """As `ftui resume` takes them: "--edit micro_batch=2 --edit accumulation=2"."""
        return " ".join(f"--edit {name}={_word(value)}" for name, value in self.settings.items())


def next_try(settings: Settings, kind: Kind, tries: Sequence[Retry]) -> Change | None:
    """What the next try does otherwise; None when there is none without the person.

    kind   why this try failed
    tries  the tries that ftui made by itself before, after the one that the person started
    """
    if len(tries) >= TRIES - 1:
        return None
    if kind == "memory":
        return less_memory(settings)
    if any(one.kind == kind for one in tries):
        return None  # what helps against these helps at once or not at all
    if kind == "nan":
        return lower_rate(settings)
    return Change({}, "the same again")


def less_memory(settings: Settings) -> Change | None:
    """The next step down that leaves what is learned as it is: the same rows in each optimizer step.

    Half the micro-batch (or the next smaller that divides the effective batch, so that the product stays the same); at
    the fewest gradient checkpointing; None after that. The fewest is 1, or 2 where a loss compares rows with each other.
    """
    rows = settings.micro_batch * settings.accumulation
    least = 2 if settings.loss in TOGETHER else 1
    fewer = next((n for n in range(settings.micro_batch // 2, least - 1, -1) if rows % n == 0), None)
    if fewer is not None:
        unit = "packs" if settings.packing else "rows"
        return Change(
            {"micro_batch": fewer, "accumulation": rows // fewer},
            f"{fewer} instead of {settings.micro_batch} {unit} at once, still {rows} a step",
        )
    if not settings.gradient_checkpointing:
        return Change({"gradient_checkpointing": True}, "gradient checkpointing: activations are computed twice")
    return None


def lower_rate(settings: Settings) -> Change:
    rate = settings.learning_rate / 2
    return Change({"learning_rate": rate}, f"half the learning rate, {rate:g}")


def offers(settings: Settings, kind: Kind, four_bit: bool) -> list[Change]:
    """What the person may choose when no try is left, the mildest first; each goes on from the checkpoint.

    four_bit  whether 4-bit loading works here
    """
    found: list[Change | None] = []
    if kind == "memory":
        found.append(less_memory(settings))
        if four_bit and settings.method == "lora":
            found.append(Change({"method": "qlora"}, "packs the base into 4 bits"))
        shorter = settings.max_length // 2 // 8 * 8
        if shorter >= _LEAST_LENGTH and not settings.packing:  # other packs are another order of rows
            found.append(Change({"max_length": shorter}, f"takes rows of {shorter} tokens at most"))
    elif kind == "nan":
        if settings.precision != "fp32":
            found.append(Change({"precision": "fp32"}, "computes in fp32"))
        if settings.precision == "fp16":
            found.append(Change({"precision": "bf16"}, "computes in bf16, on cards from Ampere on"))
        found.append(Change(lower_rate(settings).settings, "lowers the rate again"))
    return [change for change in found if change is not None]


def tries_before(events: Sequence[AnyEvent], attempt: int) -> list[Retry]:
    """The tries in the journal's `events` that led up to `attempt` without a person in between, the newest first."""
    found: list[Retry] = []
    for event in reversed(events):
        if isinstance(event, Retry) and event.attempt == attempt - len(found):
            found.append(event)
    return found


def edited(settings: Settings, edits: Mapping[str, Any]) -> Settings:
    """`settings` with typed `edits`, for a run that goes on from its checkpoint.

    FtuiError(RECIPE_INVALID) for what the checkpoint does not fit, or what would make another run of it.
    """
    after = msgspec.structs.replace(settings, **edits)
    fixed = [name for name in _FIXED if getattr(after, name) != getattr(settings, name)]
    if settings.packing and after.max_length != settings.max_length:
        fixed.append("max_length")  # of packs, which would be others
    if {settings.method, after.method} not in ({settings.method}, {"lora", "qlora"}):
        fixed.append("method")
    if after.micro_batch * after.accumulation != settings.micro_batch * settings.accumulation:
        fixed.append("micro_batch x accumulation")  # the place in the rows is counted in optimizer steps
    if fixed:
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"{', '.join(fixed)} cannot change within a run: its checkpoints would not fit",
            next_step="make a new run of it: ftui train recipe.yaml --edit …",
        )
    return after


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
