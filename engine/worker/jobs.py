"""What a worker can be told to do, and how each job ends in the journal."""

from __future__ import annotations

from pathlib import Path

from engine.errors import Exit, FtuiError
from engine.runs.directory import RunDir
from engine.runs.events import State
from engine.runs.job import Job
from engine.runs.journal import Writer
from engine.worker.service import Service


def run(job: Job, linger: float, first: float) -> int:
    """Do the job and return the process's exit code.

    linger  seconds to keep the model for the next question when nobody is connected
    first   seconds that a worker started for chat waits for its first client
    """
    kind, options, where = job.kind, job.options, RunDir(Path(job.run))
    journal = Writer(where.journal_path)
    status = {"run": where.path.name, "state": kind}
    service = Service(where.socket_path, lambda: status)
    recipe = None
    try:
        from engine.worker.session import Session

        now = Session(where)
        recipe = now.recipe
        if kind == "train":
            from engine.worker import train

            service.open()
            if not train.run(now, options.get("resume"), job.attempt, service):
                return 0  # who stops a run wants the memory back
        elif kind == "serve":
            from engine.worker import answer, build

            now.model = build.for_chat(recipe, now.folder, _result(where, options.get("checkpoint")))
            service.answer = lambda client, ask: answer.reply(now, client, ask)
            service.open()
        else:
            from engine.worker import export

            target = Path(options["to"]) if options.get("to") else export.default_folder(now, options["kind"])
            export.run(now, options["kind"], target, options.get("shard_size") or "5GB")
            return 0
        status["state"] = "ready"
        service.serve(linger, first if kind == "serve" else 0.0)
        return 0
    except BaseException as error:
        from engine.worker import failures

        failure = failures.describe(error, recipe, where.name)
        journal.write(failure)
        if kind == "train":
            journal.write(State(state="failed", detail=failure.cause))
        return 1
    finally:
        service.close()


def _result(where: RunDir, checkpoint: str | None) -> Path:
    """What answers: the result, or a checkpoint of a run that has none yet."""
    if checkpoint:
        return where.path / checkpoint
    if where.result is None:
        raise FtuiError(Exit.RUN_STATE, "this run has no result to chat with yet", where.name, "let it train first")
    return where.result
