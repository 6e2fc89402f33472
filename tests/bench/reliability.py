"""What watching costs at scale: `python tests/bench/reliability.py [steps]` (a million by default; needs 300 MB of disk).

A journal of that many steps is written as a worker writes it, then each way of opening it is a process of its own, so that
its memory is its own too. "ready" is the wall time from the start of the process, "processor" what it computed; a plain
loop of the json module over the same file stands beside them for scale.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import tempfile
import time

import msgspec

from engine.recipe import Data, Model, Recipe
from engine.runs import directory, processes
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Evaluated, Sample, Start, State, Step
from engine.runs.journal import Writer
from tests.engine.settings import settings

SAVE_EVERY = 5000  # steps between two checkpoints, evaluations and samples
DAY = 86_400

WAYS = {
    "json module": """
for line in open(run.journal_path, "rb"):
    json.loads(line)
""",
    "status of the run": """
from engine.runs import status
assert status.read(run).step == STEPS
""",
    "every event (chunks)": """
from engine.runs.journal import Reader
assert sum(map(len, Reader(run.journal_path).chunks())) > STEPS
""",
    "the picture (points)": """
from engine.runs.journal import Reader
from engine.runs.view import RunView
view = RunView()
for events in Reader(run.journal_path).points():
    view.fold(events)
view.smoothed(0.01)
assert len(view.steps) == STEPS
""",
    "first picture, from afar": """
from engine.runs.journal import Reader
from engine.runs.view import RunView
from tui.widgets.chart import Curve, draw
view = RunView()
view.fold(Reader(run.journal_path).glimpse())
draw(Curve(view.steps.step, view.steps.loss, view.smoothed(0.01), [], STEPS), 76, 18)
assert view.steps.step[0] == 1 and view.steps.step[-1] == STEPS
""",
    "picture and chart": """
from engine.runs.journal import Reader
from engine.runs.view import RunView
from tui.widgets.chart import Curve, draw
view = RunView()
for events in Reader(run.journal_path).points():
    view.fold(events)
draw(Curve(view.steps.step, view.steps.loss, view.smoothed(0.01), [], STEPS), 76, 18)
""",
    "table of runs": """
from tui.listing import Listing
(line,) = Listing().read(time.time())
assert line.step == STEPS
""",
    "ftui attach, in a pipe": """
from tui.__main__ import main
sys.argv = ["ftui", "attach", "long"]
main()
""",
}

SAMPLE = """
import json, os, resource, sys, time
from engine.runs.directory import RunDir
from pathlib import Path
run, STEPS = RunDir(Path(sys.argv[1])), int(sys.argv[2])
out, sys.stdout = sys.stdout, open(os.devnull, "w")
try:
    exec(sys.argv[3])
finally:
    print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=out)
"""


def write(run: RunDir, steps: int) -> None:
    """A finished run of so many steps, about 80 ms each: a day has a million."""
    chance = random.Random(1)
    with run.journal_path.open("wb") as file:
        number = 0

        def put(event: object) -> None:
            nonlocal number
            number += 1
            event.seq, event.time = number, time.time() - DAY * (1 - number / steps)  # type: ignore[attr-defined]
            file.write(msgspec.json.encode(event) + b"\n")

        put(State(state="training"))
        put(Start(attempt=1, from_step=0, total_steps=steps, epochs=10, rows=steps))
        for step in range(1, steps + 1):
            left = 1 - step / steps
            put(
                Step(
                    step=step,
                    epoch=10 * step / steps,
                    loss=2 * math.exp(3 * left - 3) + chance.random() / 3,
                    learning_rate=1e-4 * left,
                    grad_norm=2 * chance.random(),
                    tokens=512 * step,
                    tokens_per_second=6000 + 100 * chance.random(),
                    memory=8_000_000_000 + chance.randrange(1 << 20),
                    seconds_left=DAY * left,
                )
            )
            if step % SAVE_EVERY == 0:
                put(Checkpoint(step=step, path=f"checkpoints/step-{step:06d}"))
                put(Evaluated(step=step, loss=1.0))
                put(Sample(step=step, prompt="Who are you?", answer="I am an assistant. " * 5))
    writer = Writer(run.journal_path)
    writer.write(State(state="ready"))
    writer.close()


def main(steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        recipe = Recipe(name="long", model=Model(source="starter"), data=Data(source="rows.jsonl"), settings=settings())
        run = directory.create(recipe, {})
        write(run, steps)
        size = run.journal_path.stat().st_size
        print(
            f"{steps:,} steps, {size / 1e6:.0f} MB of journal; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        print(f"{'':<24}{'ready':>9}{'processor':>12}{'memory':>10}")
        for name, code in WAYS.items():
            best: tuple[float, float, float] = (math.inf, math.inf, math.inf)
            for _ in range(3):
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", SAMPLE, str(run.path), str(steps), "import json\n" + code],
                    env=processes.environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(done.stderr)
                took = time.perf_counter() - began
                processor, memory = map(float, done.stdout.split())
                best = min(best, (took, processor, memory))
            print(f"{name:<24}{best[0]:>7.2f} s{best[1]:>10.2f} s{best[2]:>7.0f} MB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
