"""Checks of what computes: Python's packages, the processor, the cards and their driver, 4-bit arithmetic."""

from __future__ import annotations

import platform
import sys

from packaging.requirements import InvalidRequirement, Requirement

from engine.doctor.machine import Check, Machine
from engine.text import size

# Named where all is well; the others are only told where something is wrong with them.
SHOWN = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "tokenizers", "textual")

# One 4-bit linear layer forwards and backwards: what QLoRA needs, on the device that would train.
_FOUR_BIT = """
import torch, bitsandbytes
device = "cuda" if torch.cuda.is_available() else "cpu"
layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(device)
x = torch.randn(2, 64, device=device, requires_grad=True)
layer(x).sum().backward()
assert torch.isfinite(x.grad).all()
print(device)
"""
_FOUR_BIT_LIMIT = 120.0  # seconds; the import of torch alone may take twenty on a busy disk


def packages(machine: Machine) -> list[Check]:
    """Installed versions against the ones that the tests ran with (pyproject.toml says from where to where)."""
    checks = [Check(name="python", level="ok", detail=f"{platform.python_version()} at {sys.executable}")]
    wrong, missing = [], []
    for line in machine.requirements():
        try:
            needed = Requirement(line)
        except InvalidRequirement:
            continue
        if needed.marker is not None and not needed.marker.evaluate():
            continue
        there = machine.version(needed.name)
        if there is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(there.partition("+")[0], prereleases=True):
            tested = ", ".join(sorted(map(str, needed.specifier), reverse=True))
            wrong.append((needed, f"{needed.name} {there} is here, tested with {tested}"))
    found = [f"{name} {version}" for name in SHOWN if (version := machine.version(name))]
    checks.append(Check(name="packages", level="ok", detail=", ".join(found)))
    if missing:
        fix = "pip install --upgrade finetune-tui"
        checks.append(Check(name="packages", level="bad", detail=f"missing: {', '.join(missing)}", fix=fix))
    for needed, detail in wrong:
        fix = f"pip install '{needed.name}{needed.specifier}'"
        checks.append(Check(name="packages", level="warning", detail=detail, fix=fix))
    return checks


def devices(machine: Machine) -> list[Check]:
    there = machine.hardware()
    bf16 = "bf16 instructions" if there.cpu_bf16 else "no bf16 instructions: training runs in fp32"
    low = there.memory_free < 2_000_000_000
    checks = [
        Check(name="processor", level="ok", detail=f"{there.cpu}, {there.cores} cores, {bf16}"),
        Check(
            name="memory",
            level="warning" if low else "ok",
            detail=f"{size(there.memory_free)} of {size(there.memory_total)} free",
            fix="close something, or pick a smaller model" if low else "",
        ),
    ]
    for gpu in there.gpus:
        busy = gpu.memory_free < gpu.memory_total / 2
        checks.append(
            Check(
                name=f"gpu {gpu.index}",
                level="warning" if busy else "ok",
                detail=f"{gpu.name}, {size(gpu.memory_free)} of {size(gpu.memory_total)} free",
                fix="somebody is using it: `nvidia-smi` shows who; --gpu auto takes another" if busy else "",
            )
        )
    return [*checks, *_driver(machine, bool(there.gpus))]


def _driver(machine: Machine, cards: bool) -> list[Check]:
    """Driver, NVML and the CUDA that torch was built with must fit each other (NVIDIA's CUDA compatibility guide)."""
    driver, built = machine.driver(), machine.torch_cuda()
    loaded = machine.read("/proc/driver/nvidia/version")
    if driver.problem:
        if not loaded and machine.run("nvidia-smi", "-L")[0] == 127:
            return [Check(name="gpu", level="warning", detail="none: small models train on the processor")]
        mismatch = "mismatch" in driver.problem.lower()
        fix = "reboot: the driver was updated while the old one is still loaded" if mismatch else ""
        fix = fix or "run `nvidia-smi`; after a driver update, reboot; in a container, start it with the GPUs"
        detail = f"a driver is here, but NVML says: {driver.problem}"
        return [Check(name="driver", level="bad", detail=detail, fix=fix)]
    if not cards:
        fix = "look at CUDA_VISIBLE_DEVICES; in a container, start it with the GPUs"
        return [Check(name="gpu", level="bad", detail="the driver answers, but no GPU may be used", fix=fix)]
    has = f"NVIDIA {driver.version}, for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    if not built:
        detail = "the installed torch is a build without CUDA and cannot use the GPU"
        fix = "pip install --force-reinstall torch, with the index that pytorch.org names for your driver"
        return [Check(name="driver", level="bad", detail=detail, fix=fix)]
    # Within a major version a newer build runs on an older driver.
    if int(built.partition(".")[0]) > driver.cuda[0]:
        fix = f"update the driver, or install a torch for CUDA {driver.cuda[0]}"
        return [Check(name="driver", level="bad", detail=f"{has}; torch was built with CUDA {built}", fix=fix)]
    return [Check(name="driver", level="ok", detail=f"{has}; torch with CUDA {built}; NVML answers")]


def four_bit(machine: Machine) -> list[Check]:
    """QLoRA needs bitsandbytes; a broken build can take its whole process down, so another process tries."""
    code, said, complaint = machine.run(sys.executable, "-c", _FOUR_BIT, seconds=_FOUR_BIT_LIMIT)
    if code == 0:
        return [Check(name="4-bit", level="ok", detail=f"bitsandbytes works on {said.strip()}")]
    reason = (complaint.strip().splitlines() or [f"exit code {code}"])[-1]
    return [
        Check(
            name="4-bit",
            level="warning",
            detail=f"bitsandbytes does not work: {reason[:200]}",
            fix="QLoRA is not available; LoRA is. To mend it: pip install --force-reinstall bitsandbytes",
        )
    ]
