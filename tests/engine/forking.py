"""A process that workers are forked off: importing torch takes longer than a tiny training (see forked_worker.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from engine.runs import processes

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds for the imports, on a machine that does much else


@contextlib.contextmanager
def server(place: Path) -> Iterator[Path]:
    """The process, which listens at the socket `place` when this begins."""
    environment = processes.environment()
    environment |= {
        "FTUI_FORKS_SERVE": str(place),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH", "")])),
    }
    process = subprocess.Popen([sys.executable, "-P", "-m", "forked_worker"], env=environment)
    try:
        end = time.monotonic() + PATIENCE
        while not place.exists():
            assert process.poll() is None and time.monotonic() < end, "no worker can be forked"
            time.sleep(0.01)
        yield place
    finally:
        process.kill()
        process.wait()


def settings(place: Path) -> dict[str, str]:
    """What the environment needs so that workers are forked off the server at `place`."""
    return {
        "FTUI_FORKS": str(place),
        "FTUI_WORKER_MODULE": "forked_worker",
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
