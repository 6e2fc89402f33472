"""The real worker up to its turn, on a machine told by FTUI_TEST_MACHINE (a file, read at each look); in training's place
it waits for RUN/finish, RUN/fail or a stop."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec

from engine import hardware
from engine.errors import Exit, FtuiError
from engine.hardware import GpuUser, Hardware
from engine.runs.directory import RunDir
from engine.runs.events import Failure, State
from engine.runs.journal import Writer
from engine.worker import __main__ as worker


def session(run: RunDir) -> Any:
    return SimpleNamespace(run=run, recipe=run.recipe(), journal=Writer(run.journal_path))


def train(now: Any, *_: object, before_ready: Callable[[], None] = lambda: None) -> bool:
    path, journal = now.run.path, now.journal
    journal.write(State(state="training", detail=os.environ.get("CUDA_VISIBLE_DEVICES", "")))
    while not (path / "finish").exists():
        if (path / "fail").exists():
            cause = (path / "fail").read_text()
            (path / "fail").unlink()
            raise FtuiError(Exit.RUN_FAILED, cause)
        if now.run.stop_path.exists():
            now.run.stop_path.unlink()
            journal.write(State(state="stopped"))
            return False
        time.sleep(0.01)
    before_ready()
    journal.write(State(state="ready"))
    return True


def after(error: BaseException, _recipe: object, _job: object, journal: Writer) -> int:
    """As engine.worker.retries: once more after "again", else the end."""
    if str(error) == "again":
        return os.EX_TEMPFAIL
    journal.write(Failure(cause=str(error)))
    journal.write(State(state="failed"))
    return 1


class Machine(msgspec.Struct):
    hardware: Hardware
    users: dict[int, list[GpuUser]] = {}


def machine() -> Machine:
    return msgspec.json.decode(Path(os.environ["FTUI_TEST_MACHINE"]).read_bytes(), type=Machine)


def module(name: str, **content: object) -> None:
    made = ModuleType(name)
    vars(made).update(content)
    sys.modules[name] = made


def main(train: Any = train) -> int:
    module("engine.worker.session", Session=session)
    module("engine.worker.train", run=train)
    module("engine.worker.failures")
    module("engine.worker.retries", same_device=lambda job: None, after=after)
    import engine.worker

    vars(engine.worker).update(
        {name: sys.modules[f"engine.worker.{name}"] for name in ("train", "failures", "retries")}
    )
    hardware.read = lambda: machine().hardware  # type: ignore[assignment]
    hardware.users = lambda: machine().users  # type: ignore[assignment]
    worker._import_all = lambda: None
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
