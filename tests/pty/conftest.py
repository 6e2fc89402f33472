"""One world of hostile strings for the tests of verbs and of screens."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.models import starter
from engine.runs.directory import RunDir
from tests.pty import places, stream
from tests.pty.texts import Texts
from tests.tui.fake_worker import FakeWorker

COUNT = int(os.environ.get("FTUI_HOSTILE", "400"))


class World(NamedTuple):
    """Where the hostile strings are; `texts.count` were made."""

    folder: Path
    texts: Texts
    rows: Path
    files: dict[str, Path]
    models: list[str]
    presets: list[str]
    recipes: dict[str, Path]
    runs: list[RunDir]
    long: RunDir
    logged: RunDir

    def worker(self) -> FakeWorker:
        """Answers on the socket of the first run with a result; whoever asks "error" gets one."""

        def answer(_: str, messages: list[dict[str, str]]) -> Sequence[str]:
            if messages[-1]["content"] == "error":
                raise ValueError(self.texts())
            return [text + "\n" for text in self.texts.many(min(COUNT // 10, 100))]

        return FakeWorker(next(run for run in self.runs if run.result), answer)

    def told(self, what: str, raw: bytes, began: float) -> str:
        """What was measured, in a line."""
        seen = stream.tokens(raw)
        return (
            f"\n{what}: {self.texts.count} strings made, {len(seen)} seen on the terminal, {len(raw):,} bytes, "
            f"{raw.count(0x1B):,} escape sequences, {time.monotonic() - began:.0f} s"
        )


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    texts = Texts()
    for name in ("STATE", "CONFIG", "CACHE"):  # DATA holds the starter, whose path is a link's
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / texts.name()))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_" + texts())
    monkeypatch.setenv("FTUI_WORKER_MODULE", "tests.pty.worker")
    starter.folder().symlink_to(tiny_model, target_is_directory=True)
    folder = tmp_path / texts.name()
    folder.mkdir()
    share = COUNT // 10
    rows = places.rows(folder, texts, 4 * share)
    return World(
        folder,
        texts,
        rows,
        places.other_rows(folder, texts, share // 2),
        places.models(tiny_model, texts, 12),
        places.presets(texts, share // 2),
        places.recipes(folder, texts, rows),
        places.runs(texts, share),
        places.run(texts, "failed", count=share, minute=1),
        places.run(texts, "failed", log=share, minute=2),
    )
