"""A machine on which nothing is found but what a test puts there, for processes on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def alone(private_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, an empty hub cache, workers that pace. Returns the folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "tests.terminal.pacing_worker")
    for name in ("FTUI_ASCII", "NO_COLOR", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    return here
