"""The machine in a few words: for the header, and for the picker of a place to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.hardware import Hardware
    from engine.runs.occupancy import Spot


def words(hardware: Hardware) -> str:
    """ "GPU0 H100 61% 23/80 GB", or "2 cores 20 GB free" where there is no GPU."""
    if not hardware.gpus:
        cores = f"{hardware.cores} core" + ("s" if hardware.cores != 1 else "")
        return f"{cores} {hardware.memory_free / 1e9:.0f} GB free"
    gpu = hardware.gpus[0]
    used, total = (gpu.memory_total - gpu.memory_free) / 1e9, gpu.memory_total / 1e9
    busy = "" if gpu.utilisation is None else f" {gpu.utilisation}%"
    more = f" +{len(hardware.gpus) - 1}" if len(hardware.gpus) > 1 else ""
    return f"GPU{gpu.index} {safe(_short(gpu.name))}{busy} {used:.0f}/{total:.0f} GB{more}"


def where(spots: Sequence[Spot]) -> str:
    """ "GPU 0 NVIDIA H100, 79 GB of 80 GB free" where there is one card; empty where there is more to choose, or none."""
    if len(spots) != 1 or spots[0].slot == "cpu":
        return ""
    return f"{spots[0].title} {spots[0].name}, {spots[0].words}"


def places(spots: Sequence[Spot]) -> list[tuple[str, str, str]]:
    """The places to choose from, as a `Choice` takes them; empty where there is one, and nobody on it.

    Names are "auto", "gpu-0" …, and "now" for a start that waits for nobody. Meanings are foreign text.
    """
    from engine.runs import occupancy

    free = [spot for spot in spots if spot.free]
    if not spots or (len(spots) == 1 and free):
        return []
    best = occupancy.best(list(spots))
    beside = f", beside {best.beside}: both will be slower" if best.beside else ""
    at_once = ("now", "At once", f"on {best.title}{beside}")
    if len(spots) == 1:
        behind = f"behind {best.training[0]} on {best.title}" if best.training else f"as soon as {best.title} is free"
        ahead = f", {best.waiting} more in line" if best.waiting else ""
        strangers = f": {best.strangers}" if best.strangers and not best.training else ""
        return [("auto", "In line", f"{behind}{ahead}{strangers}; starts by itself"), at_once]
    first = f"the first that is free: {best.title}, now" if free else "the first that is free; none is now"
    cards = [(spot.slot, spot.title, f"{_short(spot.name)}, {spot.words}") for spot in spots]
    return [("auto", "Any GPU", first), *cards, *([] if free else [at_once])]


def trouble(spots: Sequence[Spot], chosen: str, need: int) -> str:
    """Why a plan that takes `need` bytes does not fit at the place that was chosen; empty where it fits."""
    from engine.runs import occupancy

    if not spots:
        return ""
    if chosen == "now":
        return occupancy.best(list(spots)).short_of(need, now=True)
    fitting = [spot for spot in spots if chosen in ("auto", spot.slot)]
    short = [spot.short_of(need) for spot in fitting]
    return short[0] if short and all(short) else ""


def _short(name: str) -> str:
    """ "NVIDIA H100 80GB HBM3" as "H100": the first word that holds a digit, else the last word."""
    parts = name.replace("-", " ").split() or ["?"]
    return next((part for part in parts if any(letter.isdigit() for letter in part)), parts[-1])
