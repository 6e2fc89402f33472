"""Stands in for engine.worker: whatever its job, it says hostile things in the journal and in the log, and fails or exports."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

from engine.runs import events
from engine.runs.directory import RunDir
from engine.runs.journal import Writer
from tests.pty import places
from tests.pty.texts import Texts


def main() -> None:
    line = sys.stdin.readline()
    if not line:
        return
    job = json.loads(line)
    run = RunDir(Path(job["run"]))
    texts = Texts(70_000 + os.getpid() % 1000 * 9)
    journal = Writer(run.journal_path)
    with run.log_path.open("ab") as log:
        log.write("".join(texts() + "\n" for _ in range(5)).encode("utf-8", "surrogatepass") + b"\x9b31m\xff\n")
    if job["kind"] == "export":
        journal.write(events.State(state="loading", detail=texts.utf8()))
        if job["options"]["kind"] == "merged":
            journal.write(events.Failure(cause=texts.utf8(), where=texts.utf8(), next_step=texts.utf8(), code=53))
        else:
            journal.write(events.Exported(kind="adapter", path=texts.utf8(), difference=0.5))
        return
    for event in places.events(texts, 30, "failed"):
        if event["event"] in ("state", "progress", "start", "step", "sample", "note", "evaluation", "failure"):
            journal.write(msgspec.convert({**event, "seq": 0}, events.AnyEvent))


main()
