"""A process that workers are forked off, for tests that train: importing torch takes longer than a tiny training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runs import processes
from tests.engine.runs.conftest import until

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds for the imports, on a machine that does much else


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the process listens that forks off workers (see forked_worker.py)."""
    place = tmp_path_factory.mktemp("f") / "s"
    environment = processes.environment()
    environment |= {
        "FTUI_FORKS_SERVE": str(place),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH", "")])),
    }
    server = subprocess.Popen([sys.executable, "-P", "-m", "forked_worker"], env=environment)
    try:
        until(lambda: place.exists() or server.poll() is not None, PATIENCE)
        assert server.poll() is None
        yield place
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def forks(fork_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this test are forked off the server."""
    monkeypatch.setenv("FTUI_FORKS", str(fork_server))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "forked_worker")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
