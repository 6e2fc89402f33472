"""What works on this machine, what does not, and what to do about it. Each check stands alone and never raises."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine import hardware, paths
from engine.text import size

Level = Literal["ok", "warning", "bad"]

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "tokenizers", "textual")
HUB_LIMIT = 3.0  # seconds
# A small model with its checkpoints and a merged export; below it a run is likely to end on a full disk.
DISK_LOW = 5_000_000_000

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


class Check(Struct, kw_only=True):
    """One thing looked at. `fix` says what to do; empty where nothing needs doing."""

    name: str
    level: Level
    detail: str
    fix: str = ""


def report() -> list[Check]:
    """All checks, in the order of what breaks a run first. Takes a few seconds: 4-bit is tried in a subprocess."""
    four_bit: list[Check] = []
    trying = threading.Thread(target=lambda: four_bit.append(_four_bit()), daemon=True)
    trying.start()
    quick: list[Callable[[], list[Check]]] = [_versions, _devices, _disk, _permissions, _leaving, _hub]
    checks = [check for look in quick for check in look()]
    trying.join()
    return [*checks, *four_bit]


def _versions() -> list[Check]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    checks = [Check(name="python", level="ok", detail=f"{platform.python_version()} at {sys.executable}")]
    checks.append(Check(name="packages", level="ok", detail=", ".join(found)))
    if missing:
        checks.append(
            Check(
                name="packages",
                level="bad",
                detail=f"missing: {', '.join(missing)}",
                fix="pip install --upgrade finetune-tui",
            )
        )
    return checks


def _devices() -> list[Check]:
    machine = hardware.read()
    bf16 = "bf16 instructions" if machine.cpu_bf16 else "no bf16 instructions: training runs in fp32"
    checks = [
        Check(name="processor", level="ok", detail=f"{machine.cpu}, {machine.cores} cores, {bf16}"),
        _memory(machine.memory_free, machine.memory_total),
    ]
    if machine.gpus:
        for gpu in machine.gpus:
            detail = f"{gpu.name}, {size(gpu.memory_free)} of {size(gpu.memory_total)} free"
            busy = gpu.memory_free < gpu.memory_total / 2
            checks.append(
                Check(
                    name=f"gpu {gpu.index}",
                    level="warning" if busy else "ok",
                    detail=detail,
                    fix="somebody else is using it: `nvidia-smi` shows who; --gpu N takes another" if busy else "",
                )
            )
        checks.append(_driver(machine.torch_cuda))
    elif shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        checks.append(
            Check(
                name="gpu",
                level="bad",
                detail="a driver is installed, but no GPU answers",
                fix="run `nvidia-smi`; after a driver update, reboot; in a container, start it with the GPUs",
            )
        )
    else:
        checks.append(Check(name="gpu", level="warning", detail="none: small models train on the processor"))
    return checks


def _memory(free: int, total: int) -> Check:
    low = free < 2_000_000_000
    return Check(
        name="memory",
        level="warning" if low else "ok",
        detail=f"{size(free)} of {size(total)} free",
        fix="close something, or pick a smaller model" if low else "",
    )


def _driver(torch_cuda: bool) -> Check:
    if not torch_cuda:
        return Check(
            name="driver",
            level="bad",
            detail="the installed torch is a build without CUDA and cannot use the GPU",
            fix="pip install --force-reinstall torch, with the index that pytorch.org names for your driver",
        )
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    except OSError:
        found = None
    return Check(name="driver", level="ok", detail=f"NVIDIA {found[1]}" if found else "version not readable")


def _disk() -> list[Check]:
    checks = []
    for name, folder in (("runs", paths.runs_dir()), ("models", paths.models_dir())):
        free = shutil.disk_usage(folder).free
        low = free < DISK_LOW
        checks.append(
            Check(
                name=f"disk for {name}",
                level="warning" if low else "ok",
                detail=f"{size(free)} free at {folder}",
                fix=f"free some space, or move it: set XDG_{'STATE' if name == 'runs' else 'DATA'}_HOME" if low else "",
            )
        )
    return checks


def _permissions() -> list[Check]:
    """Runs hold what was in the training rows: nobody else may look."""
    checks = []
    for folder in (paths.runs_dir(), paths.models_dir()):
        status = folder.stat()
        if status.st_uid != os.getuid():
            owner = _user(status.st_uid)
            checks.append(
                Check(
                    name="permissions",
                    level="bad",
                    detail=f"{folder} belongs to {owner}",
                    fix=f"chown it to {_user(os.getuid())}, or set another XDG folder",
                )
            )
        elif stat.S_IMODE(status.st_mode) & 0o077:
            checks.append(
                Check(
                    name="permissions",
                    level="warning",
                    detail=f"{folder} can be read by others",
                    fix=f"chmod 700 {folder}",
                )
            )
    return checks or [Check(name="permissions", level="ok", detail="runs and models are readable by you only")]


def _leaving() -> list[Check]:
    """Whether systemd ends what a person started when they log out (logind.conf, KillUserProcesses)."""
    kills, where = False, ""
    files = [Path("/etc/systemd/logind.conf"), *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf"))]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for value in re.findall(r"(?mi)^\s*KillUserProcesses\s*=\s*(\w+)", text):
            kills, where = value.lower() in {"yes", "true", "1", "on"}, str(path)
    user = _user(os.getuid())
    if not kills or Path("/var/lib/systemd/linger", user).exists():
        return [Check(name="logging out", level="ok", detail="a run goes on when you log out")]
    return [
        Check(
            name="logging out",
            level="bad",
            detail=f"{where} ends every process of yours when you log out, runs too",
            fix=f"loginctl enable-linger {user}",
        )
    ]


def _hub() -> list[Check]:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return [
            Check(name="hub", level="warning", detail="switched off by HF_HUB_OFFLINE", fix="unset it to fetch models")
        ]
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=HUB_LIMIT):
                answer.append("")
        except urllib.error.HTTPError:
            answer.append("")  # it answers; which page it has does not matter here
        except (OSError, ValueError) as error:
            answer.append(str(getattr(error, "reason", error)))

    # The timeout above does not cover the name look-up, so the whole question has one as well.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_LIMIT)
    if answer == [""]:
        return [Check(name="hub", level="ok", detail=f"{address} answers")]
    reason = answer[0] if answer else f"no answer within {HUB_LIMIT:.0f} s"
    return [
        Check(
            name="hub",
            level="warning",
            detail=f"{address}: {reason}",
            fix="models that are here still work; behind a mirror, set HF_ENDPOINT",
        )
    ]


def _four_bit() -> Check:
    """QLoRA needs bitsandbytes; a broken build can take its whole process down, so another process tries."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _FOUR_BIT],
            capture_output=True,
            text=True,
            timeout=120,
            errors="replace",
            check=False,
        )
        worked, reason = (
            done.returncode == 0,
            (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1],
        )
    except (OSError, subprocess.SubprocessError) as error:
        worked, reason = False, str(error)
    if worked:
        return Check(name="4-bit", level="ok", detail=f"bitsandbytes works on {done.stdout.strip()}")
    return Check(
        name="4-bit",
        level="warning",
        detail=f"bitsandbytes does not work: {reason[:200]}",
        fix="QLoRA is not available; LoRA is. To mend it: pip install --force-reinstall bitsandbytes",
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
