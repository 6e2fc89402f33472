"""A fake worker that fails as often as RUN/fake.txt says ("2 then train", "9 then train") and then does what is after it.

"stop then train": the person asks for a stop in the moment in which it fails.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import fake_worker

from engine.runs import events
from engine.runs.directory import RunDir
from engine.runs.journal import Reader, Writer


def main() -> int:
    job = json.loads(sys.stdin.readline())
    run = RunDir(Path(job["run"]))
    often, _, then = (run.path / "fake.txt").read_text().partition(" then ")
    retries = [event for event in Reader(run.journal_path).poll() if isinstance(event, events.Retry)]
    if (often == "stop" and not retries) or (often != "stop" and len(retries) < int(often)):
        journal = Writer(run.journal_path)
        journal.write(events.State(state="training"))
        for step in range(1, 7) if not retries else ():
            journal.write(fake_worker.a_step(step))
            if step == 5:
                fake_worker.save(run, step)
                journal.write(events.Checkpoint(step=5, path="checkpoints/step-000005"))
        if often == "stop":
            run.stop_path.touch()
        journal.write(events.State(state="preparing", detail=f"try {len(retries) + 2} of 4"))
        journal.write(
            events.Retry(attempt=job["attempt"] + 1, kind="memory", cause="out of memory", change="fewer rows at once")
        )
        return os.EX_TEMPFAIL
    fake_worker.train(run, job, then)
    return 0


if __name__ == "__main__":
    sys.exit(main())
