"""A token in the environment stays there: in no file, no line of a journal or log, no argument, and nothing printed.

The same runs are looked at for the rest of what is promised of a worker: what it opens to others, unpickles and starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import Exit
from engine.recipe import Recipe, to_yaml
from engine.runs import directory, processes, status
from engine.runs.directory import RunDir
from engine.runs.events import Failure, Note
from engine.runs.journal import Reader, Writer
from engine.secrets import HIDDEN, redacted, secrets
from tests.engine.runs.conftest import HERE, over, until
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401

CANARY = "hf_CanaryNothingMayQuoteThis"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def ftui(*words: str) -> tuple[int, str]:
    """A verb as a person types it: its exit code and everything it printed. Arguments of all processes are looked at."""
    face = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=processes.environment(),
    )
    seen = 0
    while face.poll() is None:
        seen = max(seen, len(lines := list(arguments())))
        assert not any(CANARY.encode() in line for line in lines)
        assert not listening(), "a process of a run listens on the network"
        try:
            face.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
    said, _ = face.communicate()
    assert seen, "no process of this user was looked at"
    assert CANARY not in said.decode(), said
    return face.returncode, said.decode()


def listening() -> list[str]:
    """TCP sockets in the state LISTEN (0A) that a process of any of the runs holds, faces and supervisors too."""
    pids = [os.getpid()]
    for run in directory.all_runs():
        record = status.read_json(run.supervisor_path)
        known = [processes.parse(record.get(who)) for who in ("supervisor", "worker")]
        pids += [who.pid for who in known if processes.alive(who) and who is not None]
    held = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                held.add(str(descriptor.readlink()))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [" ".join(line) for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held]


def open_to_others(*roots: Path) -> list[Path]:
    """Files, folders and sockets below that anybody else may read, write or enter."""
    return [
        path for root in roots for path in root.rglob("*") if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]


def arguments() -> Iterator[bytes]:
    """The command line of each process that can be looked at."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def files_that_quote_it(*roots: Path) -> list[Path]:
    return [
        path
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and (CANARY.encode() in path.read_bytes() or CANARY in path.name)
    ]


def test_train_chat_export_and_a_failure_leave_no_token(
    recipe: Callable[..., Recipe],  # noqa: F811
    tiny_model: Path,
    tmp_path: Path,
    private_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    loose_umask: None,
) -> None:
    """And the failure is that of a model folder deleted under a run: cause and next step in three lines."""
    audit = tmp_path / "audit"
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "audited_worker")
    monkeypatch.setenv("FTUI_AUDIT_LOG", str(audit))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    plan = recipe("canary", epochs=2.0)
    plan.model.source = str(model)
    file = tmp_path / "canary.yaml"
    file.write_text(to_yaml(plan))
    code, said = ftui("train", str(file), "--wait")
    assert code == Exit.OK, said
    (run,) = directory.all_runs()
    worker = status.read_json(run.supervisor_path)
    assert worker["worker"] and status.read(run).state == "ready"
    code, said = ftui("chat", "canary", "-p", "Who are you?", "--max-tokens", "4", "--json")
    assert code == Exit.OK and '"answer"' in said, said
    code, said = ftui("export", "canary", "--to", str(tmp_path / "exported"))
    assert code == Exit.OK and any((tmp_path / "exported").iterdir()), said
    shutil.rmtree(model)
    code, said = ftui("extend", "canary", "--epochs", "1", "--wait")
    assert code != Exit.OK and "there is no such model folder" in said
    now = status.read(run)
    assert now.state == "failed" and now.where == str(model) and now.next_step
    assert "\n" not in now.cause + now.where + now.next_step
    assert not files_that_quote_it(private_folders, tmp_path)
    # The run itself is whole: with the folder back it goes on.
    shutil.copytree(tiny_model, model)
    code, said = ftui("resume", "canary", "--wait")
    assert code == Exit.OK and "goes on from step 6" in said, said
    assert not files_that_quote_it(private_folders, tmp_path)
    assert not open_to_others(*private_folders.glob("*/ftui"), tmp_path / "exported")
    left = [path for root in (private_folders, tmp_path / "exported") for path in root.rglob("*") if path.is_file()]
    print(f"{len(left)} files left by training, chat, export, a failure and a resume: none quotes the token")
    # Training, resuming from a checkpoint, chat and export: nothing was unpickled, no shell, no port.
    seen = audit.read_text().splitlines()
    assert seen.count("watching") >= 4
    known = ("watching", "subprocess.Popen", "socket.bind <socket.socket fd=")
    assert [line for line in seen if not line.startswith(known)] == []
    # Sockets of the file system (family 1) only.
    assert [line for line in seen if line.startswith("socket.") and "family=1," not in line] == []
    assert not [line for line in seen if "shell" in line or "/bin/sh" in line]


def test_a_library_that_quotes_the_token(
    recipe: Callable[..., Recipe],  # noqa: F811
    tmp_path: Path,
    private_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "leaky_worker")
    run = directory.create(recipe("leaky"), {})
    from engine.runs import control
    from engine.runs.job import Job

    control.start(run, Job("train", str(run.path), {"resume": None}))
    until(lambda: over(run), 120)
    now = status.read(run)
    assert now.state == "failed" and now.cause == f"RuntimeError: 401 for {HIDDEN}"
    log = run.log_path.read_text()
    assert f"Bearer {HIDDEN}" in log and f"retrying with {HIDDEN}" in log and "Traceback" in log
    code, said = ftui("logs", "leaky")
    assert code == Exit.OK and HIDDEN in said
    assert not files_that_quote_it(private_folders, tmp_path)


def test_a_journal_line_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", 'with "quotes" and \\ in it')
    run = RunDir(tmp_path)
    writer = Writer(run.journal_path)
    writer.write(Note(text=f"as {CANARY} and {os.environ['SOME_API_KEY']}"))
    writer.write(Failure(cause=CANARY, where=CANARY, next_step=CANARY))
    assert CANARY.encode() not in run.journal_path.read_bytes()
    note, failure = Reader(run.journal_path).poll()
    assert isinstance(note, Note) and note.text == f"as {HIDDEN} and {HIDDEN}"
    assert isinstance(failure, Failure) and (failure.cause, failure.where, failure.next_step) == (HIDDEN,) * 3


def test_what_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HF_TOKEN_PATH", "/home/somebody/.cache/huggingface/token")
    monkeypatch.setenv("OTHER_TOKEN", CANARY + "-and-more")
    assert CANARY in secrets() and "false" not in secrets()
    assert redacted(f"false {CANARY}-and-more {CANARY} /home/somebody/.cache/huggingface/token") == (
        f"false {HIDDEN} {HIDDEN} /home/somebody/.cache/huggingface/token"
    )
