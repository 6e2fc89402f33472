"""Accidents around a run: each says its cause and the next step in three lines at most, and nothing is lost.

A disk that is full or read-only is a tmpfs in a mount namespace of a process of its own, so that nobody else sees it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import __version__, paths
from engine.errors import Exit, FtuiError
from engine.runs import chat, checkpoints, control, directory, processes, status
from engine.runs.directory import RunDir
from engine.runs.events import Note, State
from engine.runs.journal import Reader, Writer
from engine.runs.view import RunView
from tests.engine.runs.conftest import HERE, make_recipe, over, pid_of, train, until
from tests.engine.runs.fake_worker import a_step, save

Make = Callable[..., RunDir]


def refusal(act: Callable[[], object]) -> FtuiError:
    """What a person is told: one to three lines, no line within a line."""
    with pytest.raises(FtuiError) as caught:
        act()
    error = caught.value
    assert 1 <= len(error.lines()) <= 3 and all("\n" not in line and len(line) < 300 for line in error.lines())
    assert error.next_step
    return error


def at_once(act: Callable[[], object], times: int = 3) -> list[object]:
    """What `act` gave or raised, done by several faces at the same moment."""
    outcomes: list[object] = []
    ready = threading.Barrier(times)

    def go() -> None:
        ready.wait()
        try:
            outcomes.append(act())
        except FtuiError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=go) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# two starts, two faces ----------------------------------------------------------------------------------------------


def test_a_second_start_is_refused_and_told_how_to_watch(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    worker = pid_of(run)
    for act in (lambda: train(run), lambda: control.resume(run), lambda: control.extend(run, 1)):
        error = refusal(act)
        assert error.code == Exit.RUN_STATE and error.next_step == "watch it: ftui attach congyu"
    assert pid_of(run) == worker and status.read(run).state == "training"


def test_two_faces_stop_resume_and_watch_one_run(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    faces = [(Reader(run.journal_path), RunView()) for _ in range(2)]
    until(lambda: status.read(run).step == 7)
    stopped = at_once(lambda: control.stop(run, wait=True).state)
    assert stopped == ["stopped"] * 3
    until(lambda: over(run))
    (run.path / "fake.txt").write_text("train")
    resumed = at_once(lambda: control.resume(run))
    assert resumed.count(7) == 1
    for error in resumed:
        assert error == 7 or (isinstance(error, FtuiError) and error.code == Exit.RUN_STATE and error.next_step)
    until(lambda: over(run))
    assert status.read(run).state == "ready" and run.log_path.read_text().count("job train") == 2
    for reader, view in faces:
        view.fold(reader.poll())
        assert list(view.steps.step) == list(range(1, 21)) and view.state == "ready"
    assert [event.seq for event in Reader(run.journal_path).poll()] == list(range(1, faces[0][1].seq + 1))


def test_two_faces_that_want_to_chat_get_one_worker(make_run: Make) -> None:
    run = make_run("train")
    train(run)
    until(lambda: over(run))
    assert at_once(lambda: control.serve(run)) == [None] * 3
    assert run.log_path.read_text().count("job serve") == 1 and chat.answers(run.socket_path)


# the state folder ---------------------------------------------------------------------------------------------------

MOUNTED = """
import json, os, subprocess, sys, time
from pathlib import Path
from engine.errors import FtuiError
from engine.runs import control, directory, status
from engine.runs.job import Job
from tests.engine.runs.conftest import make_recipe, over, train, until
from tests.engine.runs.fake_worker import save
def train(run): control.start(run, Job("train", str(run.path), {"resume": None}))
def lines(act):
    try:
        act()
    except FtuiError as error:
        return [int(error.code), *error.lines()]
    return "done"
def remount(how): subprocess.run(["mount", "-o", "remount," + how, "/mnt"], check=True)
"""


def on_a_small_disk(code: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `code` where /mnt, the state folder, is a disk of 512 kB; what it prints as JSON. Skips where none can be made."""
    for prefix in (["unshare", "-m"], ["unshare", "-rm"]):
        mount = [*prefix, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if shutil.which("unshare") and not subprocess.run(mount, capture_output=True, check=False).returncode:
            break
    else:
        pytest.skip("no disk can be mounted here")
    monkeypatch.setenv("XDG_STATE_HOME", "/mnt")
    monkeypatch.setenv("FTUI_WORKER_MODULE", "fake_worker")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    script = 'mount -t tmpfs -o size=512k,mode=700 tmpfs /mnt && exec "$0" -c "$1"'
    done = subprocess.run(
        [*prefix, "sh", "-c", script, sys.executable, MOUNTED + code],
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_read_only_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    said = on_a_small_disk(
        """
run = directory.create(make_recipe(), {})
save(run, 5)
remount("ro")
print(json.dumps({
    "new": lines(lambda: directory.create(make_recipe(), {})),
    "start": lines(lambda: train(run)),
    "resume": lines(lambda: control.resume(run)),
    "runs": [found.name == run.name for found in directory.all_runs()],
    "state": status.read(run).state,
}))
""",
        monkeypatch,
    )
    for act in ("new", "start", "resume"):
        code, cause, _, next_step = said[act]
        assert code == Exit.PERMISSION and cause.endswith("its file system is read-only"), said
        assert "XDG_STATE_HOME" in next_step
    assert said["runs"] == [True] and said["state"] == "lost"  # looking works


def test_a_full_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    said = on_a_small_disk(
        """
run = directory.create(make_recipe(), {})
save(run, 5)
(run.path / "fake.txt").write_text("train")
filler = Path("/mnt/filler")
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(b"x" * 4096): pass
    except OSError:
        pass
said = {
    "new": lines(lambda: directory.create(make_recipe("other"), {})),
    "resume": lines(lambda: control.resume(run)),
    "runs": os.listdir("/mnt/ftui/runs") == [run.name],
}
filler.unlink()
said["again"] = lines(lambda: control.resume(run))
until(lambda: over(run))
print(json.dumps({**said, "end": status.read(run).state}))
""",
        monkeypatch,
    )
    for act in ("new", "resume"):
        code, cause, _, next_step = said[act]
        assert code == Exit.DISK_FULL and cause.endswith("the disk is full") and "free some space" in next_step
    assert said["runs"], "half a run was left behind"
    assert (said["again"], said["end"]) == ("done", "ready")


def test_how_a_run_ended_is_noted_on_a_disk_that_it_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    said = on_a_small_disk(
        """
run = directory.create(make_recipe(), {})
(run.path / "fake.txt").write_text("fill")
train(run)
until(lambda: over(run))
now = status.read(run)
(run.path / "filler").unlink()
(run.path / "fake.txt").write_text("train")
control.resume(run)
until(lambda: over(run))
print(json.dumps([now.state, now.cause, now.next_step, status.read(run).state]))
""",
        monkeypatch,
    )
    assert said == ["failed", "the worker ended with exit code 3", "ftui resume congyu", "ready"]


def test_a_state_folder_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As anybody but root, in root's folder."""
    code = MOUNTED + (
        "import pwd\npwd.getpwuid(0)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(json.dumps(lines(lambda: directory.create(make_recipe(), {}))))"
    )
    monkeypatch.setenv("XDG_STATE_HOME", "/")
    done = subprocess.run(
        [sys.executable, "-c", code], env=processes.environment(), capture_output=True, text=True, check=True
    )
    number, cause, where, next_step = json.loads(done.stdout)
    assert number == Exit.PERMISSION and cause.endswith("it belongs to user root") and where == "/ftui"
    assert "XDG_STATE_HOME" in next_step


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_root_does_not_write_into_the_folder_of_a_user() -> None:
    mine = directory.create(make_recipe("mine"), {})
    theirs = directory.create(make_recipe("theirs"), {})
    os.chown(theirs.path, 65534, 65534)
    assert directory.all_runs() == [mine]  # a folder of somebody else is no run
    folder = paths.runs_dir()
    os.chown(folder, 65534, 65534)
    error = refusal(lambda: directory.create(make_recipe(), {}))
    assert error.code == Exit.PERMISSION and "belongs to user" in error.cause
    assert len(list(folder.iterdir())) == 2


# clocks and pids ----------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_back_changes_no_conclusion(make_run: Make) -> None:
    run = make_run("")
    writer = Writer(run.journal_path)
    clock = 2_000_000_000.0
    for event in (State(state="training"), *[a_step(step) for step in range(1, 6)], State(state="ready")):
        event.time = clock
        clock -= 3600  # each event an hour before the one that it follows
        writer.write(event)
    now = status.read(run)
    assert (now.state, now.step) == ("ready", 5)
    assert now.started == 2_000_000_000.0 and now.updated is not None and now.updated >= now.started
    view = RunView()
    view.fold(Reader(run.journal_path).poll())
    assert list(view.steps.step) == [1, 2, 3, 4, 5] and view.state == "ready"


@pytest.mark.parametrize("changed", [{"start": 1}, {"boot_id": "the boot before"}])
def test_a_pid_that_another_process_has_now(make_run: Make, changed: dict[str, object]) -> None:
    run = make_run("train")
    Writer(run.journal_path).write(State(state="training"))
    save(run, 5)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        who = processes.plain(processes.identity(bystander.pid))
        assert who is not None
        record = {"attempt": 1, "journal": 0, "supervisor": {**who, **changed}, "worker": {**who, **changed}}
        run.supervisor_path.write_text(json.dumps(record))
        now = status.read(run)
        assert now.state == "lost" and not now.worker_alive and now.next_step == "ftui resume congyu"
        assert ("restarted" in now.cause) == ("boot_id" in changed)
        refusal_of_stop = pytest.raises(FtuiError, match="not running: it is lost")
        with refusal_of_stop:
            control.stop(run)
        assert control.resume(run) == 5
        until(lambda: status.read(run).state == "ready")
        assert bystander.poll() is None, "a bystander was signalled"
    finally:
        bystander.kill()
        bystander.wait()


# other data, another version ----------------------------------------------------------------------------------------


def test_what_changed_since_a_checkpoint_is_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    staging = checkpoints.stage(run.checkpoints, 5)
    (staging / "weights").write_bytes(b"w")
    then = {"data_sha256": "a", "versions": {"ftui": "0.1", "torch": "2.1", "gone": "1"}}
    folder = checkpoints.commit(staging, run.checkpoints / "step-000005", then)
    assert checkpoints.changes(folder, then) == []
    assert checkpoints.changes(folder, {**then, "data_sha256": "b"}) == [
        "the rows have changed since the checkpoint: training goes on with the new ones"
    ]
    now = {**then, "versions": {"ftui": "0.2", "torch": "2.1", "new": "3"}}
    assert checkpoints.changes(folder, now) == ["versions have changed since the checkpoint: ftui 0.1 → 0.2"]


def upgraded(run: RunDir, more: str = "") -> None:
    """The recipe as another version of ftui would have written it."""
    text = run.recipe_path.read_text()
    run.recipe_path.write_text(text.replace(f"ftui: {__version__}", "ftui: 7.0.0") + more)


def test_an_upgrade_between_start_and_resume_is_said(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    control.stop(run, wait=True)
    until(lambda: over(run))
    (run.path / "fake.txt").write_text("train")
    upgraded(run)
    assert control.resume(run) == 7
    until(lambda: status.read(run).state == "ready")
    notes = [event.text for event in Reader(run.journal_path).poll() if isinstance(event, Note)]
    assert notes == [f"begun with ftui 7.0.0, going on with {__version__}"]


def test_a_recipe_that_this_version_cannot_follow_is_refused_before_anything_starts(make_run: Make) -> None:
    run = make_run("train")
    Writer(run.journal_path).write(State(state="stopped"))
    upgraded(run, "hologram: true\n")
    size = run.journal_path.stat().st_size
    error = refusal(lambda: control.resume(run))
    assert error.code == Exit.RECIPE_INVALID and "ftui 7.0.0 made this run" in error.cause and "hologram" in error.cause
    assert error.where == str(run.recipe_path) and "go on with ftui 7.0.0" in error.next_step
    assert run.journal_path.stat().st_size == size and not run.supervisor_path.exists()
    assert status.read(run).state == "stopped"  # looking works all the same
