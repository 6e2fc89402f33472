"""Shared fixtures: private XDG folders for every test, and a tiny real model made without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes: more of them than cores wait for each other by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA_HOME = os.environ.get("XDG_DATA_HOME")  # before any test changes it


@pytest.fixture(autouse=True)
def private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has XDG folders of its own; returns their parent."""
    home = tmp_path / "xdg"
    for name in ("DATA", "STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FTUI_LINGER", "0")
    monkeypatch.setenv("FTUI_ASCII", "0")  # whatever the locale of who runs the tests
    return home


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See tests/tiny.py."""
    return tiny.build(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def starter_model(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The 135M starter model from the person's own data folder, fetched into it if it is not there yet."""
    if DATA_HOME is None:
        monkeypatch.delenv("XDG_DATA_HOME")
    else:
        monkeypatch.setenv("XDG_DATA_HOME", DATA_HOME)
    from engine.errors import Exit, FtuiError
    from engine.models import sources

    try:
        return sources.resolve("starter")
    except FtuiError as error:
        if error.code == Exit.NETWORK:
            pytest.skip(f"the starter model cannot be fetched here: {error.cause}")
        raise


@pytest.fixture
def shared_data() -> Iterator[Path]:
    """The folder of real demo files that may lie beside the project; skips where it does not."""
    folder = Path(os.environ.get("FTUI_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared demo data beside the project")
    yield folder
