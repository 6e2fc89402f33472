"""Talking to a run's worker over its socket: one JSON object a line, both ways; docs/runs.md has the protocol."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from engine.errors import Exit, FtuiError
from engine.runs.directory import RunDir, handle

LONGEST = 100  # bytes of a path that sun_path (108) takes for certain


class Reply(Struct, kw_only=True):
    """A piece of an answer, or its end (`done`) with why it ended, its tokens and seconds. `text` is foreign."""

    text: str = ""
    done: bool = False
    reason: Literal["", "end", "length", "stopped"] = ""
    tokens: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """What to bind or connect to for the socket at `path`. A path too long for the kernel goes through /proc."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _connect(path: Path, timeout: float | None = None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with address(path) as name:
            connection.connect(name)
        if not same_user(connection):
            raise PermissionError("the worker belongs to another user")
    except BaseException:
        connection.close()
        raise
    return connection


def same_user(connection: socket.socket) -> bool:
    """Whether the other end of a Unix socket is a process of this user, as the kernel knows it (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def answers(path: Path, timeout: float = 2.0) -> bool:
    """Whether a worker listens on the socket. One that is too busy to answer within `timeout` seconds does."""
    try:
        with _connect(path, timeout) as connection:
            connection.sendall(b'{"op":"status"}\n')
            try:
                return bool(connection.recv(1))
            except TimeoutError:
                return True
    except OSError:
        return False


def quit_worker(path: Path) -> None:
    """Ask the worker that listens on the socket to end; nothing happens where none does."""
    with contextlib.suppress(OSError), _connect(path, 2.0) as connection:
        connection.sendall(b'{"op":"quit"}\n')


class Chat:
    """A conversation with a worker. One question at a time; `stop` and `close` may be called from another thread.

    FtuiError(RUN_STATE) when no worker listens: `control.serve(run)` sees to one.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        try:
            self._socket = _connect(run.socket_path)
        except OSError:
            raise FtuiError(
                Exit.RUN_STATE, "no worker answers", run.name, f"start one: ftui chat {handle(run)}"
            ) from None
        self._lines = self._socket.makefile("rb")
        self._sending = threading.Lock()
        self._last = 0
        self._asking: int | None = None

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        which: Literal["tuned", "base"] = "tuned",
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_tokens: int = 256,
        seed: int | None = None,
    ) -> Iterator[Reply]:
        """The answer to a conversation ([{"role", "content"}, …]), piece by piece; the last piece is `done`.

        temperature  0 takes the likeliest token each time
        Leaving the iteration early stops the answer. FtuiError(RUN_FAILED) when the worker cannot answer or ends.
        """
        self._last += 1
        number = self._last
        self._send(
            {
                "id": number,
                "op": "chat",
                "messages": [dict(message) for message in messages],
                "which": which,
                "temperature": temperature,
                "top_p": top_p,
                "max_tokens": max_tokens,
                "seed": seed,
            }
        )
        self._asking = number
        over = False
        try:
            while not over:
                reply = self._receive()
                if reply.get("id") != number:
                    continue  # the rest of an answer that was left
                if "error" in reply:
                    over = True
                    raise FtuiError(Exit.RUN_FAILED, str(reply["error"]), self._run.name)
                over = bool(reply.get("done"))
                yield Reply(
                    text=str(reply.get("text", "")),
                    done=over,
                    reason=reply.get("reason", ""),
                    tokens=int(reply.get("tokens", 0)),
                    seconds=float(reply.get("seconds", 0.0)),
                )
        finally:
            self._asking = None
            if not over:
                with contextlib.suppress(FtuiError):
                    self._send({"op": "stop", "id": number})

    def stop(self) -> None:
        """End the answer that is being given; its iteration then ends with reason "stopped"."""
        number = self._asking
        if number is not None:
            self._send({"op": "stop", "id": number})

    def status(self) -> dict[str, Any]:
        """What the worker says of itself: {"run": …, "state": …}. Not while an answer is being given."""
        self._send({"op": "status"})
        while True:
            reply = self._receive()
            if isinstance(reply.get("status"), dict):
                return dict(reply["status"])

    def quit(self) -> None:
        """End the worker."""
        self._send({"op": "quit"})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._socket.sendall(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        except OSError:
            raise self._gone() from None

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
            value = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            value = None
        if not isinstance(value, dict):
            raise self._gone()
        return value

    def _gone(self) -> FtuiError:
        return FtuiError(Exit.RUN_FAILED, "the worker has gone", self._run.name, f"its log: {self._run.log_path}")
