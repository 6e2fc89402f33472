"""A process that workers are forked off, for tests that train: importing torch takes longer than a tiny training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import forking


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the process listens that forks off workers (see forked_worker.py)."""
    with forking.server(tmp_path_factory.mktemp("f") / "s") as place:
        yield place


@pytest.fixture
def forks(fork_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this test are forked off the server."""
    for name, value in forking.settings(fork_server).items():
        monkeypatch.setenv(name, value)
