"""The connection breaks, or the face is killed: training goes on, nothing is lost, nobody is left behind.

FTUI_HANGUPS=100 pytest tests/terminal/test_hangups.py -s      a hundred of them, and what they took
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.models import starter
from engine.runs import control, directory, journal, processes, status
from engine.runs.control import Job
from engine.runs.directory import RunDir
from engine.runs.events import Step
from tests.terminal.pty import ROOT, Pty, family
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun

SCREENS = ("train", "chat", "data", "source", "attach", "chat in lines", "train --wait")
WAYS = ("hang-up", "SIGHUP", "SIGKILL")
TIMES = int(os.environ.get("FTUI_HANGUPS", len(SCREENS)))
PATIENCE = 60.0  # seconds until everything has gone; the longest that was measured is printed


@pytest.fixture
def place(alone: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with rows, the tiny model in the starter's place, and in the end no run at work."""
    starter.folder().symlink_to(tiny_model, target_is_directory=True)
    row = {"instruction": "Who are you? " * 20, "output": "I am Congyu, an assistant made by yuriko. " * 20}
    (alone / "many.jsonl").write_text(f"{json.dumps(row)}\n" * 20_000)  # takes a while to read
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield alone
    runs = directory.all_runs()
    for run in runs:
        (run.path / "enough").touch()
    end = time.monotonic() + PATIENCE
    while any(status.read(run).worker_alive for run in runs if run.log_path.exists()) and time.monotonic() < end:
        time.sleep(0.05)


def open_at(screen: str, folder: Path) -> Pty:
    """A face at one of `SCREENS`, with something going on."""
    verb = ["-m", "engine.cli"]
    if screen == "train":
        face = Pty(["-m", "tui", "attach", "congyu"], cwd=folder)
        face.until("smoothed")
    elif screen == "attach":
        face = Pty([*verb, "attach", "congyu"], cwd=folder)
        face.until("training")
    elif screen == "chat":
        face = Pty(["-m", "tui", "chat", "talker"], cwd=folder)
        face.until("Type a question")
        face.type("Who are you?\r")
        face.until("and so on")
    elif screen == "chat in lines":
        face = Pty([*verb, "chat", "talker"], cwd=folder, env={"TERM": "dumb"})
        face.until("Ctrl-D leaves")
        face.type("Who are you?\r")
        face.until("and so on")
    elif screen == "train --wait":
        options = ["--preset", "identity", "--set", "name=Ada", "--set", "author=you", "--force", "--wait"]
        face = Pty([*verb, "train", "--model", "starter", *options], cwd=folder)
        face.until("training")
    else:
        face = Pty(["-m", "tui"], cwd=folder)
        face.until("New run from a preset")
        face.type("n")
        face.until("ready")
        face.type("\r")
        face.until("many.jsonl")
        if screen == "data":
            face.type("\r")
            face.until(lambda: any(word in str(face.screen) for word in ("reading", "looking", "counting")))
    return face


def warm_ones() -> set[int]:
    """The processes of workers that wait for a run."""
    found = set()
    for record in Path(os.environ["XDG_STATE_HOME"]).glob("ftui/warm/*/supervisor.json"):
        known = processes.parse(status.read_json(record))
        if known is not None and processes.alive(known):
            found |= family(known.pid)
    return found


def used(pids: set[int]) -> float:
    """Processor seconds of those that are still there."""
    seconds = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
        except psutil.Error:
            pass
    return seconds


def end(face: Pty, way: str) -> None:
    if way == "SIGKILL":
        os.kill(face.pid, signal.SIGKILL)
    elif way == "SIGHUP":
        os.kill(face.pid, signal.SIGHUP)
    else:
        face.hang_up()


def steps_of(run: RunDir) -> tuple[list[int], list[int]]:
    """All sequence numbers of the journal, and all steps in it."""
    events = [event for chunk in journal.Reader(run.journal_path).chunks() for event in chunk]
    return [event.seq for event in events], [event.step for event in events if isinstance(event, Step)]


def test_training_goes_on_and_nobody_is_left(place: Path) -> None:
    run = FakeRun("congyu").run
    control.start(run, Job("train", str(run.path), {"resume": None, "now": True}))
    worker = processes.parse(status.read_json(run.supervisor_path)["worker"])
    talker = FakeRun("talker")
    talker.whole()
    longest, spent = 0.0, 0.0
    with FakeWorker(talker.run, lambda side, messages: ["and so on", " and on"]) as answering:
        answering.hold.set()
        for number in range(TIMES):
            screen, way = SCREENS[number % len(SCREENS)], WAYS[number % len(WAYS)]
            face = open_at(screen, place)
            theirs = family(face.pid) | warm_ones()
            supervised = {pid for each in directory.all_runs() for pid in _of(each)}
            theirs -= supervised
            before = used(theirs)
            end(face, way)
            began = time.monotonic()
            while left := {pid for pid in theirs if family(pid)}:
                face.ended()
                spent = max(spent, used(left) - before)
                assert time.monotonic() - began < PATIENCE, f"{screen}, {way}: {left} are still there"
                time.sleep(0.02)
            longest = max(longest, time.monotonic() - began)
            face.wait()
            face.hang_up()
    assert processes.alive(worker)
    (run.path / "enough").touch()
    deadline = time.monotonic() + PATIENCE
    while status.read(run).state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    numbers, steps = steps_of(run)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert steps == list(range(1, len(steps) + 1))
    assert spent < 3.0, "something computed on after its terminal had gone"
    print(
        f"{TIMES} hang-ups: all gone after at most {longest:.2f} s, {spent:.2f} s of processor; {len(steps)} steps whole"
    )


def _of(run: RunDir) -> set[int]:
    """The processes of a run."""
    record = status.read_json(run.supervisor_path)
    return {found.pid for who in ("supervisor", "worker") if (found := processes.parse(record.get(who))) is not None}
