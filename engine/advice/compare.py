"""What is different between two plans: for "what if", and for two plans side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from engine.advice.kinds import Advice, Plan
from engine.text import duration, number, size

Kind = Literal["verdict", "stage", "setting", "steps", "time", "memory", "part", "warning", "refusal"]
_NUMBER = re.compile(r"\d[\d.,]*(?:e-?\d+)?")


class Change(Struct, frozen=True):
    """One thing that is not the same in both plans.

    name    a setting's field; "verdict" (of the gate), "stage", "steps", "time", "memory"; a part of the memory ("adapter");
            "warning" or "refusal"
    before  as it was: a setting's value, optimizer steps, seconds, bytes, the words of a warning; None where there was none
    after   as it is then
    effect  what that means, in a few plain words
    """

    name: str
    before: Any
    after: Any
    effect: str
    kind: Kind = "setting"

    def words(self) -> tuple[str, str]:
        """`before` and `after` as a person reads them; empty where there was none."""
        return said(self.kind, self.before), said(self.kind, self.after)


def compare(before: Plan, after: Plan) -> list[Change]:
    """Everything that differs, verdict and stage ahead: what the person changed first, then what moved with it, then what follows from both.

    Memory comes as the total ("memory") and by part ("part"). A warning that only has other numbers is one change;
    else one was gained (`before` is None) or lost (`after` is None).
    """
    settings = list(_settings(before, after))
    settings.sort(key=lambda change: not _edited(change.name, before, after))
    return [*_gate(before, after), *settings, *_outcome(before, after), *_sayings(before, after)]


def brief(changes: Sequence[Change]) -> str:
    """What follows from the changes, in one line: "steps 50 to 25, memory +0.4 GB"; empty when nothing does."""
    parts = []
    for change in changes:
        if change.kind in ("steps", "time"):
            old, new = change.words()
            parts.append(f"{change.name} {old} to {new}")
        elif change.kind == "memory":
            parts.append(f"memory {change.effect}")
        elif change.kind == "refusal" and change.before is None:
            parts.append("will not start")
    return ", ".join(parts)


def said(kind: Kind, value: Any) -> str:
    """A value of a change as a person reads it; empty for None."""
    if value is None:
        return ""
    if kind == "steps":
        return f"{value:,}"
    if kind == "time":
        return duration(value)
    if kind in ("memory", "part"):
        return size(value)
    return number(value)


def _gate(before: Plan, after: Plan) -> Iterator[Change]:
    """Whether to tune at all, and what kind of training it is."""
    if before.gate.verdict != after.gate.verdict:
        yield Change("verdict", before.gate.verdict, after.gate.verdict, after.gate.why, "verdict")
    if before.stage.value != after.stage.value:
        yield Change("stage", before.stage.value, after.stage.value, after.stage.reason, "stage")


def _edited(name: str, before: Plan, after: Plan) -> bool:
    return before.edits.get(name) != after.edits.get(name)


def _settings(before: Plan, after: Plan) -> Iterator[Change]:
    for advice in after.advice:
        name = advice.field
        old, new = getattr(before.settings, name), getattr(after.settings, name)
        if old != new:
            yield Change(name, old, new, _effect(advice, new))


def _effect(advice: Advice, value: Any) -> str:
    """Why a setting has this value: the advice's own reason, or what is known of a value that departs from it."""
    if value == advice.value:
        return advice.reason
    known = next((other.effect for other in advice.alternatives if other.value == value), "")
    return known or f"advised {number(advice.value)}: {advice.reason}"


def _outcome(before: Plan, after: Plan) -> Iterator[Change]:
    if before.steps != after.steps:
        yield Change("steps", before.steps, after.steps, _times(before.steps, after.steps, "as many updates"), "steps")
    if said("time", before.seconds) != said("time", after.seconds):
        yield Change("time", before.seconds, after.seconds, _times(before.seconds, after.seconds, "as long"), "time")
    old = dict(before.memory.parts()) if before.memory else {}
    new = dict(after.memory.parts()) if after.memory else {}
    if old == new:
        return
    total = (before.memory.total if before.memory else None, after.memory.total if after.memory else None)
    yield Change("memory", *total, _more(*total), "memory")
    for name in new or old:
        if old.get(name) != new.get(name):
            yield Change(name, old.get(name), new.get(name), _more(old.get(name), new.get(name)), "part")


def _times(old: float | None, new: float | None, of: str) -> str:
    """ "twice as many updates", "0.7 times as long"; empty where one of them is not known."""
    if not old or new is None:
        return ""
    ratio = new / old
    if 0.95 < ratio < 1.05:
        return f"about {of}"
    words = {"0.5": "half", "2": "twice"}.get(f"{ratio:.2g}")
    return f"{words} {of}" if words else f"{ratio:.2g} times {of}"


def _more(old: int | None, new: int | None) -> str:
    """ "+0.4 GB", "-310 MB"; empty where one of them is not known."""
    if old is None or new is None:
        return ""
    return f"{'+' if new >= old else '-'}{size(abs(new - old))}"


def _sayings(before: Plan, after: Plan) -> Iterator[Change]:
    """Refusals and warnings that came, went, or name other numbers."""
    kinds: tuple[tuple[Kind, str, str, list[str], list[str]], ...] = (
        ("refusal", "will not start", "no longer in the way", before.refusals, after.refusals),
        ("warning", "new", "gone", before.warnings, after.warnings),
    )
    for kind, came, went, old, new in kinds:
        earlier = {_NUMBER.sub("#", words): words for words in old}
        later = {_NUMBER.sub("#", words): words for words in new}
        for key in [*later, *(key for key in earlier if key not in later)]:
            was, now = earlier.get(key), later.get(key)
            if was != now:
                effect = came if was is None else went if now is None else "other numbers"
                yield Change(kind, was, now, effect, kind)
