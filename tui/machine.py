"""The machine in a few words, for the header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import safe

if TYPE_CHECKING:
    from engine.hardware import Hardware


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


def _short(name: str) -> str:
    """ "NVIDIA H100 80GB HBM3" as "H100": the first word that holds a digit, else the last word."""
    parts = name.replace("-", " ").split() or ["?"]
    return next((part for part in parts if any(letter.isdigit() for letter in part)), parts[-1])
