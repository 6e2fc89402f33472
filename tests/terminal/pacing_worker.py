"""In the place of engine.worker: as long as the run's folder holds no file `enough`, a step every 20 ms, then an end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from engine.runs import events
from engine.runs.directory import RunDir
from engine.runs.journal import Writer

LONGEST = 100_000  # steps, should nobody say that it is enough


def main() -> None:
    warm = os.environ.get("FTUI_WARM_DIR")
    if warm:
        Path(warm, "ready").touch()
    line = sys.stdin.readline()
    if not line:
        return
    run = RunDir(Path(json.loads(line)["run"]))
    journal = Writer(run.journal_path)
    journal.write(events.State(state="training"))
    journal.write(events.Start(attempt=1, from_step=0, total_steps=LONGEST, epochs=5.0, rows=91))
    for step in range(1, LONGEST + 1):
        journal.write(
            events.Step(
                step=step,
                epoch=step / 600,
                loss=2.0 / step**0.3,
                learning_rate=1e-3,
                grad_norm=0.5,
                tokens=step * 300,
                tokens_per_second=5.0,
                memory=1_000_000,
                seconds_left=0.02 * (LONGEST - step),
            )
        )
        if (run.path / "enough").exists():
            break
        time.sleep(0.02)
    journal.write(events.State(state="ready"))


if __name__ == "__main__":
    main()
