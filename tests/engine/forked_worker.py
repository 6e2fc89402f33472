"""The real worker, forked off a process that has done the imports: a hundred runs pay for them once.

Started by a supervisor in the worker's place, this is a stub: it hands its standard streams and folder to the process that
listens at FTUI_FORKS, writes the pid of the worker forked there into `worker.pid`, passes signals on, and ends as that one
ends. Where the stub is killed, so is the worker.

FTUI_KILL_AT=N  the worker kills itself right before the Nth file of a checkpoint or result that it opens, makes, renames
                or removes; 0 only counts them, into `saves`
FTUI_FULL_AT=N  the disk is full when the worker writes, makes or renames the Nth of them; then there is room again
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAVING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}
WRITING = {"open", "os.mkdir", "os.rename"}
SAVED = ("/checkpoints/", "/.adapter.", "/adapter")


def stub() -> int:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(os.environ["FTUI_FORKS"])
        settings = "\n".join(f"{name}={value}" for name, value in os.environ.items() if "\n" not in value)
        socket.send_fds(wire, [f"{Path.cwd()}\n{settings}\0".encode()], [0, 1, 2])
        replies = wire.makefile("r")
        worker = int(replies.readline())
        Path("worker.pid").write_text(str(worker))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, _: os.kill(worker, number))
        status = int(replies.readline())
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def serve(place: str) -> None:
    from engine.worker.__main__ import _import_all

    _import_all()
    for name in ("jobs", "session", "train", "export", "stages.dpo", "stages.reward", "stages.grpo"):
        importlib.import_module(f"engine.worker.{name}")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        while True:
            wire, _ = listener.accept()
            said, streams, _, _ = socket.recv_fds(wire, 1 << 16, 3)
            while not said.endswith(b"\0"):
                said += wire.recv(1 << 16)
            pid = os.fork()
            if pid == 0:
                listener.close()
                wire.close()
                work(said[:-1].decode().splitlines(), streams)
            for stream in streams:
                os.close(stream)
            wire.sendall(f"{pid}\n".encode())
            threading.Thread(target=ended, args=(wire, pid), daemon=True).start()


def ended(wire: socket.socket, pid: int) -> None:
    worker = os.pidfd_open(pid)
    with wire:
        ready, _, _ = select.select([worker, wire], [], [])
        if worker not in ready:  # the stub is gone: it never sends more
            os.kill(pid, signal.SIGKILL)
        os.close(worker)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            wire.sendall(f"{status}\n".encode())


def work(said: list[str], streams: list[int]) -> None:
    """In the forked process: stand where the stub stands, and do the job."""
    code = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # Held by both names, as in a fresh interpreter: who wraps the one must not see the other closed.
        sys.stdin = sys.__stdin__ = open(0)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w")  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w")  # noqa: SIM115
        os.chdir(said[0])
        os.environ.clear()
        os.environ.update(line.split("=", 1) for line in said[1:])
        if "FTUI_KILL_AT" in os.environ:
            at_save(int(os.environ["FTUI_KILL_AT"]), SAVING, kill)
        elif "FTUI_FULL_AT" in os.environ:
            at_save(int(os.environ["FTUI_FULL_AT"]), WRITING, full)
        from engine.worker.__main__ import main

        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def at_save(number: int, events: set[str], strike: Callable[[], None]) -> None:
    """Do `strike` right before the `number`th of these events at a checkpoint or result; 0 counts them, into `saves`."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in events or not any(
            isinstance(word, str | bytes | os.PathLike) and saves(word) for word in arguments[:2]
        ):
            return
        if events is WRITING and not writes(event, arguments):
            return
        seen += 1
        if seen == number:
            strike()
        if number == 0:
            descriptor = os.open("saves", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, b".")
            os.close(descriptor)

    sys.addaudithook(hook)


def writes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether it takes room on the disk: not what is only read, and no folder that is there already."""
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event != "os.mkdir" or not Path(arguments[0]).is_dir()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def saves(word: str | bytes | os.PathLike[str]) -> bool:
    return any(part in os.fsdecode(word) for part in SAVED)


if __name__ == "__main__":
    if "FTUI_FORKS_SERVE" in os.environ:
        serve(os.environ["FTUI_FORKS_SERVE"])
    else:
        sys.exit(stub())
