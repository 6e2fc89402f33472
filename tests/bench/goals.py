"""The goals of reliability in full, one after another: `python -m tests.bench.goals [PART …]`; `--list` names the parts.

Each part is a test that the suite runs in a short version, or a benchmark; what it measured is printed as the last column
of one table. A part whose test fails says so, and the exit code is 1. All of it takes about 45 minutes on two cores.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from engine.runs import processes

ROOT = Path(__file__).parents[2]
# The first picture of a run of a million steps, from nothing (tests/bench/reliability.py).
OPENED = r"^first picture, from afar +([\d.]+) s +([\d.]+) s +(\d+) MB"


class Goal(NamedTuple):
    """What is asked, what runs it, and which lines of its output are the figure."""

    goal: str
    figure: str
    command: list[str]
    settings: dict[str, str]
    measured: str


def tests(*words: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-s", "-n", "0", "--durations=0", *words]


GOALS: dict[str, Goal] = {
    "kills": Goal(
        "SIGKILL at random steps and inside saves",
        "200 points: all resumable, losses and weights identical",
        tests("tests/engine/runs/test_runs_kills.py"),
        {"FTUI_KILLS": "200"},
        r"^\d+ kills in .*",
    ),
    "disk": Goal(
        "disk full at each write of a save",
        "training continues, previous checkpoint intact",
        tests("tests/engine/runs/test_runs_disk_full.py", "tests/engine/runs/test_runs_faults.py"),
        {"FTUI_FULL": "all", "FTUI_FAULTS": "all"},
        r"^\d+ (?:writes found|faults).*",
    ),
    "corrupt": Goal(
        "corrupt checkpoint (flip, cut, remove any file)",
        "all of 500 detected, falls back, none silent",
        tests("tests/engine/runs/test_runs_checkpoints.py", "-k", "every_damage or newest_whole"),
        {},
        r"^\d+ damages.*",
    ),
    "hangups": Goal(
        "hang-up, face killed",
        "100 times: worker alive, no event lost",
        tests("tests/terminal/test_hangups.py"),
        {"FTUI_HANGUPS": "100"},
        r"^\d+ hang-ups:.*",
    ),
    "watching": Goal(
        "re-attach with 1M logged steps",
        "first paint under 1 s, under 150 MB",
        [sys.executable, "tests/bench/reliability.py"],
        {},
        OPENED,
    ),
    "data": Goal(
        "malformed data files",
        "10,000 without a traceback, the row named in 99 %",
        tests("tests/engine/data/test_data_named.py", "tests/engine/data/test_data_mutations.py"),
        {"FTUI_MUTATIONS": "10000", "FTUI_FUZZ_SECONDS": "300"},
        r"^[\d,]+ damaged files.*",
    ),
    "escapes": Goal(
        "escape and markup payloads on every screen and verb",
        "10,000, none reaches the terminal, none acts",
        tests("tests/pty"),
        {"FTUI_HOSTILE": "10000"},
        r"^(?:verbs|screens): .*",
    ),
    "secrets": Goal(
        "secrets",
        "a canary token appears in no byte written, argv or journal",
        tests("tests/engine/runs/test_runs_secrets.py"),
        {},
        r"^\d+ files.*",
    ),
}


def run(name: str) -> tuple[bool, str]:
    """(held, what was measured) of one part; its whole output goes to the terminal as it comes."""
    goal = GOALS[name]
    began = time.monotonic()
    environment = {**processes.environment(), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **goal.settings}
    with subprocess.Popen(
        goal.command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip().lstrip("."))  # pytest marks each test that is done
    found = [line for line in lines if re.match(goal.measured, line)]
    if name == "watching" and (opened := re.match(OPENED, found[0]) if found else None):
        found = [f"ready in {opened[1]} s, {opened[2]} s of processor, {opened[3]} MB"]
    held = process.returncode == 0
    skipped = any(re.search(r"\bskipped\b", line) for line in lines)
    words = "; ".join(found) or ("skipped here" if skipped else "held" if held else "")
    return held, f"{words or 'FAILED'} ({time.monotonic() - began:.0f} s)" if held else f"FAILED {words}"


def main(names: list[str]) -> int:
    if "--list" in names:
        print("\n".join(f"{name:<10}{goal.goal}" for name, goal in GOALS.items()))
        return 0
    if unknown := [name for name in names if name not in GOALS]:
        sys.exit(f"no such part: {', '.join(unknown)}; there are: {', '.join(GOALS)}")
    measured = {}
    for name in names or GOALS:
        print(f"\n== {GOALS[name].goal}", flush=True)
        measured[name] = run(name)
    print(f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| goal | figure | measured |\n|---|---|---|")
    for name, (_, words) in measured.items():
        print(f"| {GOALS[name].goal} | {GOALS[name].figure} | {words} |")
    return int(not all(held for held, _ in measured.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
