"""What works on this machine, what does not, and what to do about it. Each check stands alone and never raises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from engine.doctor import hub, place, stack
from engine.doctor.machine import Check, Level, Machine
from engine.secrets import redacted

__all__ = ["LOOKS", "Check", "Level", "Machine", "report"]

# In the order in which they are told. Permissions are looked at before anything is made or mended.
LOOKS: tuple[Callable[[Machine], list[Check]], ...] = (
    place.permissions,
    stack.packages,
    stack.devices,
    place.memory_limit,
    place.shared_memory,
    place.disks,
    place.leaving,
    place.workers,
    place.terminal,
    hub.hub,
    stack.four_bit,
)


def report(machine: Machine | None = None) -> list[Check]:
    """All checks. They look at once and take as long as the slowest: 4-bit, which is tried in a process of its own."""
    here = Machine() if machine is None else machine
    checks = _looked(LOOKS[0], here)
    with ThreadPoolExecutor(len(LOOKS)) as at_once:
        looking = [at_once.submit(_looked, look, here) for look in LOOKS[1:]]
        checks += [check for one in looking for check in one.result()]
    return [msgspec.structs.replace(check, detail=redacted(check.detail), fix=redacted(check.fix)) for check in checks]


def _looked(look: Callable[[Machine], list[Check]], machine: Machine) -> list[Check]:
    """What a check finds; that it failed, where a machine is stranger than it thought."""
    try:
        return look(machine)
    except Exception as error:
        name = look.__name__.replace("_", " ")
        detail = f"this could not be looked at: {type(error).__name__}: {error}"
        return [Check(name=name, level="warning", detail=detail, fix="this is a fault in ftui; the rest stands")]
