"""Stands in for engine.worker in these tests: same start, same files, no model. What it does is in RUN/fake.txt."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from engine.runs import chat, checkpoints, events
from engine.runs.directory import RunDir
from engine.runs.journal import Writer


def save(run: RunDir, step: int) -> None:
    staging = checkpoints.stage(run.checkpoints, step)
    (staging / "weights.bin").write_bytes(bytes(range(256)) * 8)
    (staging / "state").mkdir()
    (staging / "state" / "rng.bin").write_bytes(step.to_bytes(64, "big"))
    checkpoints.commit(staging, run.checkpoints / checkpoints.name(step), {"recipe_sha256": "r"})


def a_step(step: int, loss: float = 1.0) -> events.Step:
    return events.Step(
        step=step,
        epoch=step / 10,
        loss=loss,
        learning_rate=1e-3,
        grad_norm=0.5,
        tokens=step * 10,
        tokens_per_second=5.0,
        memory=1000,
        seconds_left=9.0,
    )


def train(run: RunDir, job: dict, what: str) -> None:
    journal = Writer(run.journal_path)
    resume = job["options"]["resume"]
    first = int(resume[-6:]) if resume else 0
    total = round(run.recipe().settings.epochs * 10)
    journal.write(events.State(state="training"))
    journal.write(events.Start(attempt=job["attempt"], from_step=first, total_steps=total, epochs=total / 10, rows=10))
    for step in range(first + 1, total + 1):
        journal.write(a_step(step))
        if step % 5 == 0:
            save(run, step)
            journal.write(events.Checkpoint(step=step, path=f"checkpoints/{checkpoints.name(step)}"))
        if what == "eat" and step == 7:
            b"x" * (1 << 30)  # more than it may have
        while what == "hang" and step == 7 and not run.stop_path.exists():
            time.sleep(0.01)
        if run.stop_path.exists():
            save(run, step)
            journal.write(events.Checkpoint(step=step, path=f"checkpoints/{checkpoints.name(step)}"))
            journal.write(events.State(state="stopped"))
            return
    run.adapter.mkdir(exist_ok=True)
    (run.adapter / "adapter_config.json").write_text("{}")
    (run.adapter / "adapter_model.safetensors").write_bytes(b"x")
    journal.write(events.Result(kind="adapter", path="adapter", step=total))
    journal.write(events.State(state="ready"))


def serve(run: RunDir) -> None:
    """Answers every line; "quit" ends it."""
    run.socket_path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    with chat.address(run.socket_path) as name:
        server.bind(name)
    server.listen()
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as lines, contextlib.suppress(OSError):
            for line in lines:
                if json.loads(line)["op"] == "quit":
                    return
                lines.write(json.dumps({"status": {"run": run.name, "state": "ready"}}).encode() + b"\n")
                lines.flush()


def main() -> None:
    warm = os.environ.get("FTUI_WARM_DIR")
    if warm:
        with contextlib.suppress(OSError):
            Path(warm, "ready").touch()
    line = sys.stdin.readline()
    if not line:
        return
    job = json.loads(line)
    run = RunDir(Path(job["run"]))
    log = os.open(run.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    print("job", job["kind"], "pid", os.getpid(), "warm" if warm else "cold", flush=True)
    what = (run.path / "fake.txt").read_text()
    journal = Writer(run.journal_path)
    if what == "environment":
        names = ("CUDA_VISIBLE_DEVICES", "PYTHONUNBUFFERED", "TOKENIZERS_PARALLELISM", "FTUI_WARM_DIR")
        mask = os.umask(0o077)
        print(json.dumps({name: os.environ.get(name) for name in names} | {"umask": mask, "cwd": str(Path.cwd())}))
    elif what == "exit 3":
        journal.write(events.State(state="loading"))
        print("ValueError: the \x1b[31mlast\x1b[0m line\n")
        sys.exit(3)
    elif what == "failure":
        journal.write(events.Failure(cause="no room on the card", where="step 3", next_step="a smaller batch", code=30))
        if job["kind"] == "train":
            journal.write(events.State(state="failed", detail="out of memory"))
        sys.exit(1)
    elif what == "fill":
        with (run.path / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        sys.exit(3)
    elif what == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (run.path / "child").write_text(str(child.pid))
        journal.write(events.State(state="training"))
        time.sleep(600)
    elif job["kind"] == "serve" or what == "linger":
        if job["kind"] == "train":
            train(run, job, "train")
        serve(run)
    elif what == "deaf":
        journal.write(events.State(state="training"))
        time.sleep(600)
    else:
        train(run, job, what)


if __name__ == "__main__":
    main()
