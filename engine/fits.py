"""What else fits: the memory that every method takes at every micro-batch, each method as the plan would have it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from engine import draft as drafts
from engine.advice.fields import METHODS
from engine.advice.refusals import refusals
from engine.draft import Draft
from engine.errors import FtuiError
from engine.models import memory
from engine.models.memory import Memory
from engine.recipe import Method, Settings

# Every method and the bits that it packs the base into; first those that change the model itself, then adapters.
_METHODS: tuple[tuple[Method, int], ...] = (
    ("full", 0),
    ("galore", 0),
    ("freeze", 0),
    ("lora", 0),
    ("qlora", 8),
    ("qlora", 4),
    ("bottleneck", 0),
    ("ia3", 0),
    ("prefix", 0),
    ("prompt", 0),
)
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)


class Cell(Struct, frozen=True):
    """One micro-batch: what it takes, and whether the device has that for a run."""

    micro_batch: int
    memory: Memory
    fits: bool


class Fit(Struct, frozen=True):
    """One method.

    label          the method in words
    bits           that the base is packed into, or 0
    checkpointing  whether its plan recomputes activations
    refused        why the method cannot be used here at all, whatever memory there is; then there are no cells
    """

    method: Method
    bits: int
    label: str
    checkpointing: bool = False
    cells: tuple[Cell, ...] = ()
    refused: str = ""


def table(draft: Draft) -> list[Fit]:
    """Every method with every micro-batch up to 32; what else changes with a method (rank, checkpointing, …) is as its plan has it."""
    plans = [_plan(draft, method, bits) for method, bits in _METHODS]
    known = draft.advice_facts
    # Why each cannot be; memory is left to the cells.
    reasons = [[plan] if isinstance(plan, str) else refusals(known, plan, None) for plan in plans]
    anyway = set.intersection(*map(set, reasons))  # what stands in the way of all of them is no matter of the method
    found = []
    for (method, bits), plan, why in zip(_METHODS, plans, reasons, strict=True):
        label = f"{METHODS[method]} {bits} bit" if bits else METHODS[method]
        if isinstance(plan, str) or not anyway.issuperset(why):
            refused = next((one for one in why if one not in anyway), why[0])
            found.append(Fit(method, bits, label, refused=refused))
        else:
            found.append(Fit(method, bits, label, plan.gradient_checkpointing, _cells(draft, plan)))
    return found


def _plan(draft: Draft, method: Method, bits: int) -> Settings | str:
    """The settings of the plan with this method, or why it cannot have it."""
    edits = {**draft.choice.edits, "method": method, **({"bits": bits} if bits else {})}
    try:
        return drafts.replan(draft, edits).plan.settings
    except FtuiError as error:
        return ": ".join(filter(None, (error.cause, error.next_step)))


def _cells(draft: Draft, settings: Settings) -> tuple[Cell, ...]:
    """One for each micro-batch."""
    hardware, longest, stage = draft.advice_facts.hardware, draft.lengths.max, draft.recipe.stage
    found = []
    for micro_batch in MICRO_BATCHES:
        changed = msgspec.structs.replace(settings, micro_batch=micro_batch)
        needed = memory.forecast(draft.facts, changed, longest=longest, device=hardware.device, stage=stage)
        found.append(Cell(micro_batch, needed, needed.total <= hardware.budget))
    return tuple(found)
