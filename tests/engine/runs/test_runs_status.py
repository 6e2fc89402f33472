"""Status is read from the end of a journal, however long it is. No processes here: see test_runs_control.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.runs import control, journal, processes, status
from engine.runs.directory import RunDir
from engine.runs.events import AnyEvent, Evaluated, Failure, Note, Progress, Start, State
from tests.engine.runs.fake_worker import a_step

Make = Callable[..., RunDir]
START = Start(attempt=1, from_step=0, total_steps=5000, epochs=2.5, rows=10)


def living(run: RunDir, **more: object) -> None:
    """This test process poses as the supervisor."""
    me = processes.plain(processes.identity())
    run.supervisor_path.write_text(json.dumps({"attempt": 1, "journal": 0, "supervisor": me, "worker": me, **more}))


def write(run: RunDir, *events: AnyEvent) -> None:
    writer = journal.Writer(run.journal_path)
    for event in events:
        writer.write(event)
    writer.close()


def test_long_journal(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="preparing"), State(state="training"), START, Evaluated(step=0, loss=9.0))
    steps = [a_step(step, loss=1 / step) for step in range(1, 3001)]
    write(run, *steps)
    living(run)
    assert run.journal_path.stat().st_size > 4 * status.WINDOW
    now = status.read(run)
    assert (now.state, now.step, now.total_steps, now.epochs) == ("training", 3000, 5000, 2.5)
    assert (now.loss, now.eval_loss, now.seconds_left) == (1 / 3000, 9.0, 9.0) and now.worker_alive
    assert now.started is not None and now.updated is not None and now.started <= now.updated
    write(run, Evaluated(step=3000, loss=0.5), State(state="saving"))
    with run.journal_path.open("ab") as file:
        file.write(b'{"event":"state","seq":9999,"time":1.0,"state":"fai')
    now = status.read(run)
    assert (now.state, now.eval_loss) == ("saving", 0.5)


def test_state_far_from_the_end_without_steps(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="loading"), State(state="tokenizing"))
    write(run, *[Progress(what="rows", done=done, total=3000) for done in range(20_000)])
    living(run)
    assert run.journal_path.stat().st_size > journal.CHUNK
    assert status.read(run).state == "tokenizing"


def test_marks_lie_across_blocks(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("")
    monkeypatch.setattr(status, "WINDOW", 200)
    monkeypatch.setattr(journal, "CHUNK", 64)
    write(run, State(state="loading"), State(state="evaluating"))
    for length in range(1, 150):
        write(run, Note(text="n" * length))
        with status.Tail(run.journal_path) as tail:
            found = tail.last("state")
            assert isinstance(found, State) and found.state == "evaluating"


def test_text_that_poses_as_an_event_does_not_count(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="training"), Note(text='\n{"event":"state","seq":9,"time":1.0,"state":"ready"}\n'))
    living(run)
    assert status.read(run).state == "training"


def test_exit_of_an_earlier_attempt_says_nothing(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="preparing"))
    run.exit_path.write_text(json.dumps({"attempt": 1, "code": None, "signal": 9, "oom_killed": False, "time": 1.0}))
    living(run, attempt=2)
    assert status.read(run).state == "preparing"
    gone = {"host": processes.host(), "boot_id": processes.boot_id(), "pid": 1, "start": -1}
    living(run, attempt=2, supervisor=gone, worker=None)
    assert status.read(run).state == "lost"
    write(run, State(state="ready"))
    assert status.read(run).state == "ready"


def test_an_earlier_failure_does_not_explain_a_later_one(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="training"), Failure(cause="no room"), State(state="failed", detail="out of memory"))
    size = run.journal_path.stat().st_size
    write(run, State(state="preparing"), State(state="failed"))
    living(run, attempt=2, journal=size)
    assert status.read(run).cause == ""


def test_run_of_another_machine(make_run: Make) -> None:
    run = make_run("")
    write(run, State(state="training"))
    other = {"host": "node7", "boot_id": "x", "pid": 1, "start": 1}
    living(run, supervisor=other, worker=other)
    with control._claim(run):  # the lock is held, as over a shared file system
        now = status.read(run)
        assert (now.state, now.detail, now.worker_alive) == ("training", "on node7", False)
    assert status.read(run).state == "lost"


def test_damaged_files_count_as_missing(make_run: Make) -> None:
    run = make_run("")
    for path in (run.supervisor_path, run.exit_path, run.journal_path, run.recipe_path):
        path.write_bytes(b'\xff{"attempt": [')
    assert status.read(run).state == "lost"
    run.supervisor_path.write_text('["a"]')
    assert status.read(run).state == "lost"


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert status.last_words(log) == ""
    log.write_bytes(b"one\n" * 50_000 + b"RuntimeError: \xff\n\n  \n")
    assert status.last_words(log) == "RuntimeError: �"
