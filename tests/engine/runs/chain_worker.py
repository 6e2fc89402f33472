"""slot_worker that leaves a result: RUN/finish ends it well, RUN/fail badly, a stop stops it."""

from __future__ import annotations

import sys
from typing import Any

from engine import paths
from engine.runs import waiting
from engine.runs.events import Result
from tests.engine.runs import slot_worker


def train(now: Any, *rest: object) -> bool:
    return slot_worker.train(now, *rest, before_ready=lambda: leave_result(now.run, now.journal))


def leave_result(run: Any, journal: Any) -> None:
    run.adapter.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "tokenizer.json"):
        (run.adapter / name).write_text("{}")
    (run.adapter / "adapter_model.safetensors").write_bytes(run.name.encode())
    files = {path.name: paths.sha256(path) for path in run.adapter.iterdir()}
    journal.write(Result(kind="adapter", path="adapter", step=1, files=files))


if __name__ == "__main__":
    waiting.LOOK = 0.1
    sys.exit(slot_worker.main(train))
