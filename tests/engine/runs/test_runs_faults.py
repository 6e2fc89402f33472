"""Faults of the system at every point where a worker saves, put there by strace: nothing that was saved is lost.

A few of them by default; FTUI_FAULTS=60 tries sixty, FTUI_FAULTS=all every call that touches the run with every fault.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import paths
from engine.recipe import Recipe
from engine.runs import checkpoints, control, directory, status
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Note
from engine.runs.job import Job
from engine.runs.journal import Reader
from engine.runs.view import RunView
from tests.engine.runs.conftest import HERE, over, until
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401

FAULTS = ("error=ENOSPC", "error=EIO", "signal=SIGKILL")
SAVED = ("/checkpoints", "/events.jsonl", "/adapter")


def traced() -> bool:
    """Whether strace is here and may trace and inject."""
    if shutil.which("strace") is None:
        return False
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=mkdir", "-e", "inject=mkdir:error=EIO", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not traced(), reason="strace is missing or may not trace here")


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """under(module, fault): from now on workers are `module` under strace with `fault`; returns where the calls are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FTUI_STRACE_LOG", str(tmp_path / "calls"))

    def change(module: str, fault: str = "", trace: bool = True) -> Path:
        monkeypatch.setenv("FTUI_WORKER_MODULE", "strace_worker" if trace else module)
        monkeypatch.setenv("FTUI_STRACE_MODULE", module)
        monkeypatch.setenv("FTUI_STRACE_INJECT", fault)
        return tmp_path / "calls"

    return change


def calls(log: Path) -> list[tuple[str, int, str]]:
    """Every traced call of the process's own thread that touches what a run saves: (call, which one of its kind, words)."""
    found: list[tuple[str, int, str]] = []
    counts: Counter[str] = Counter()
    lines = log.read_text(errors="replace").splitlines()
    main = lines[0].split()[0]
    for line in lines:
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match and match[1] == main:
            counts[match[2]] += 1
            words = re.sub(r"AT_FDCWD<[^>]*>", "", match[3])  # where the process stands, not what it touches
            if any(part in words for part in SAVED):
                found.append((match[2], counts[match[2]], words))
    return found


def finish(run: RunDir, seconds: float = 60.0) -> status.Status:
    control.start(run, Job("train", str(run.path), {"resume": None}))
    until(lambda: over(run), seconds)
    return status.read(run)


def consistent(run: RunDir, now: status.Status) -> None:
    """What must hold whatever happened to the worker."""
    assert not now.worker_alive and now.state in ("ready", "failed"), now
    if now.state == "failed":
        assert now.cause and "\n" not in now.cause and "resume" in now.next_step
    else:
        assert run.result is not None
    for step, folder in checkpoints.committed(run):
        assert checkpoints.verify(folder), f"half a checkpoint stands under the name of step {step}"
    told = [event.step for event in Reader(run.journal_path).poll() if isinstance(event, Checkpoint)]
    newest = checkpoints.newest_verified(run)
    assert not told or (newest is not None and newest[0] >= max(told)), "a checkpoint that was journalled is gone"


def chosen(points: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """The (call, number, fault) to try: spread evenly over the calls, the faults in turn."""
    every = [(call, number, fault) for call, number, _ in points for fault in FAULTS]
    wanted = os.environ.get("FTUI_FAULTS", "9")
    count = len(every) if wanted == "all" else min(len(every), int(wanted))
    # One past a third of the faults on, so that neighbours differ in the fault as well.
    return [every[(index * len(every) // count + index % 3) % len(every)] for index in range(count)]


def test_no_fault_at_a_save_point_loses_what_was_saved(
    make_run: Callable[..., RunDir], under: Callable[..., Path]
) -> None:
    """The worker here trains nothing, but saves with the real journal and the real checkpoints."""
    log = under("fake_worker")
    assert finish(make_run("train", "whole")).state == "ready"
    points = calls(log)
    assert {"write", "fsync", "fdatasync", "rename", "openat", "mkdir"} <= {call for call, _, _ in points}
    ends: Counter[str] = Counter()
    for call, number, fault in chosen(points):
        log = under("fake_worker", f"{call}:{fault}:when={number}")
        run = make_run("train")
        now = finish(run)
        words = log.read_text()
        assert "INJECTED" in words or "killed by SIGKILL" in words, (call, number, fault)
        consistent(run, now)
        ends[now.state] += 1
        if now.state == "failed":
            under("fake_worker", trace=False)
            control.resume(run)
            until(lambda run=run: over(run))
            assert status.read(run).state == "ready", (call, number, fault)
        view = RunView()
        view.fold(Reader(run.journal_path).poll())
        assert list(view.steps.step) == list(range(1, 21)), (call, number, fault)
        assert view.state == "ready" and view.seq == len(Reader(run.journal_path).poll())
    assert ends["failed"], "no fault reached the worker"
    print(
        f"{ends.total()} faults at save points: {ends['ready']} did not end the worker, {ends['failed']} did and were resumed; "
        "nothing that was saved is lost"
    )


def trained(run: RunDir) -> tuple[list[str], bytes]:
    """The losses as the view has them, and the weights: what must not differ by one bit."""
    view = RunView()
    view.fold(Reader(run.journal_path).poll())
    return [f"{step} {loss!r}" for step, loss in zip(view.steps.step, view.steps.loss, strict=True)], (
        run.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_a_real_run_goes_on_over_a_full_disk_and_after_a_kill_within_a_save(
    recipe: Callable[..., Recipe],  # noqa: F811
    under: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log = under("engine.worker")
    undisturbed = directory.create(recipe("undisturbed", epochs=6.0), {})
    assert finish(undisturbed, 300).state == "ready"
    points = calls(log)

    def first(call: str, step: int) -> int:
        """Which call of its kind is the first one of the save after `step`."""
        names = (checkpoints.name(step), f"checkpoint-{step}/", f"checkpoint-{step}>")
        return next(number for kind, number, words in points if kind == call and any(name in words for name in names))

    # The second checkpoint finds no room, and within the third one the worker is killed (its rename is one less then).
    faults = f"fsync:error=ENOSPC:when={first('fsync', 12)} rename:signal=SIGKILL:when={first('rename', 18) - 1}"
    log = under("engine.worker", faults)
    shutil.rmtree(paths.cache_dir())  # what the first run counted would spare this one some calls
    run = directory.create(recipe("tried", epochs=6.0), {})
    now = finish(run, 300)
    consistent(run, now)
    assert (now.state, now.detail, now.step) == ("failed", "killed", 18) and "INJECTED" in log.read_text()
    notes = [event.text for event in Reader(run.journal_path).poll() if isinstance(event, Note)]
    assert notes == ["the disk is full: no checkpoint at step 12; training goes on"]
    under("engine.worker", trace=False)
    assert control.resume(run) == 6
    until(lambda: over(run), 300)
    assert status.read(run).state == "ready" and trained(run) == trained(undisturbed)
