"""How fast this machine trains a model, measured in seconds by a process of its own (`python -m engine.worker.probe`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine import hardware, speeds
from engine.errors import Exit, FtuiError
from engine.models import facts as model_facts
from engine.recipe import Settings
from engine.speeds import Speed

Progress = Callable[[str, int, int], None]
_GRACE = 20.0  # seconds for a probe that is no longer wanted to finish its step and clear its folder away


def run(model_folder: Path, settings: Settings, progress: Progress | None = None) -> Speed:
    """Measure, keep the measurement for plans (`speeds.known`), return it.

    Raises FtuiError: MODEL_* for a folder that holds no model, PLAN_REFUSED for settings that cannot be, RUN_FAILED with
    the reason of the libraries (out of memory).
    """
    facts = model_facts.read(model_folder)
    reply = _measured(model_folder, settings, progress or (lambda what, done, total: None))
    if "cause" in reply:
        raise FtuiError(
            Exit(reply["code"]), f"the probe failed: {reply['cause']}", str(model_folder), reply["next_step"]
        )
    source = f"a probe on this machine, {time.strftime('%Y-%m-%d')}"
    speed = msgspec.structs.replace(msgspec.convert(reply, Speed), source=source)
    speeds.record(hardware.read(), facts, settings, speed, "probe")
    return speed


def _measured(model_folder: Path, settings: Settings, progress: Progress) -> dict[str, Any]:
    """The last line that the worker says, with its steps reported on the way."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    progress("measuring this machine", 0, 0)
    reply: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.worker.probe", str(model_folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            # Standard input stays open: the probe ends with whoever holds its other end.
            process.stdin.write(msgspec.json.encode(settings) + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                reply = json.loads(line)
                if "done" in reply:
                    progress("measuring this machine", reply["done"], reply["total"])
        except BrokenPipeError:
            pass  # it never came to read; what it said on the way out is below
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not reply or "done" in reply:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
            lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
            killed = "it was killed, most likely for want of memory" if process.returncode == -9 else ""
            cause = killed or (lines[-1] if lines else f"exit code {process.returncode}")
            return {"code": int(Exit.RUN_FAILED), "cause": cause, "next_step": "a smaller --batch or --length may do"}
    return reply
