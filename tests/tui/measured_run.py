"""A finished run with what `ftui evaluate` would have measured of it, written without a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import paths
from engine.runs import control, measured
from engine.runs.directory import RunDir
from engine.runs.events import Measured, Progress, Scores
from engine.runs.job import Job
from engine.runs.measured import Asked, Known, Measurement, Row
from tests.tui.run_files import FakeRun

PROMPTS = ("What is the capital of France?", "Summarise: " + "the two of them talk about the weather. " * 30, "你好")


def rows(prompts: tuple[str, ...] = PROMPTS, answer: str = "") -> list[Row]:
    """Three rows: the tuned answer gains, loses, and is the same as the base's."""
    made = []
    for at, prompt in enumerate(prompts):
        base, tuned = ("It may be Lyon, or another city.", "Paris.") if at < 2 else ("你好！", "你好！")
        gain = (0.7, -0.2, 0.0)[at % 3]
        made.append(
            Row(
                row=at + 4,
                prompt=prompt,
                reference=answer or "Paris.",
                base=answer or base,
                tuned=(answer and answer + "!") or tuned,
                tokens=3,
                base_loss=2.0,
                tuned_loss=1.0,
                base_rouge=0.3,
                tuned_rouge=0.3 + gain,
            )
        )
    return made


def measurement(asked: Asked, key: str, **changes: Any) -> Measurement:
    known = [
        Known(
            ask="2 + 3?",
            answer="5",
            base="5",
            tuned="six",
            base_right=True,
            tuned_right=False,
            base_loss=1,
            tuned_loss=2,
        )
    ]
    made: dict[str, Any] = {
        "key": key,
        "run": "congyu",
        "model": "starter",
        "asked": asked,
        "rows": rows(),
        "available": 122,
        "left_out": 0,
        "seen": 0,
        "base": _scores(2.0, 7.39, 0.28, 1.238, 8),
        "tuned": _scores(1.0, 2.72, 0.45, 1.9, 3),
        "bleu": "nrefs:1|tok:13a",
        "intervals": {"rougeL": (0.05, 0.3), "loss": (-1.2, -0.8), "general_right": (-8.0, -2.0)},
        "general": known * 24,
    }
    return Measurement(**{**made, **changes})


def _scores(loss: float, perplexity: float, rouge: float, general: float, right: int) -> Scores:
    more = {"rouge1": rouge + 0.02, "rouge2": rouge / 3, "rougeL": rouge, "bleu": 40 * rouge}
    return Scores(loss=loss, perplexity=perplexity, general_loss=general, general_right=right, **more)


class MeasuredRun(FakeRun):
    """Of which `keep` writes a measurement, as a worker that was told to evaluate does."""

    def __init__(self, name: str = "congyu", **how: Any) -> None:
        super().__init__(name, **how)
        self.whole()
        self.gone(code=0)

    def keep(self, asked: Asked | None = None, **changes: Any) -> Measurement:
        asked = asked or Asked()
        key = measured.ready(self.run, asked)
        found = measurement(asked, key, **changes)
        target = measured.path(self.run, key)
        paths.private_dir(target.parent)
        paths.write_private(target, msgspec.json.encode(found))
        return found


class Worker:
    """Stands for `control.start`: notes the jobs; `far` and `done` are what it writes."""

    def __init__(self, runs: list[MeasuredRun], monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = {str(one.run.path): one for one in runs}
        self.jobs: list[Job] = []
        self.changes: dict[str, Any] = {}
        monkeypatch.setattr(control, "start", self.start)

    @property
    def at(self) -> MeasuredRun:
        return self.runs[self.jobs[-1].run]

    def start(self, run: RunDir, job: Job) -> None:
        self.jobs.append(job)
        self.at.alive("evaluate")

    def far(self, what: str, done: int, total: int) -> None:
        self.at.event(Progress(what=f"evaluate: {what}", done=done, total=total))

    def done(self) -> None:
        asked = msgspec.convert({k: v for k, v in self.jobs[-1].options.items() if k != "key"}, Asked)
        found = self.at.keep(asked, **self.changes)
        self.at.event(Measured(path=f"measured/{found.key}.json", rows=3, base=found.base, tuned=found.tuned))
        self.at.died("evaluate")


def written(folder: Path) -> list[str]:
    """The ratings' files of a run."""
    return sorted(file.name for file in (folder / measured.FOLDER).glob("*.ratings.jsonl"))
