"""Chat over a Unix socket, answered by the process that holds the model.

A thread reads requests; the main thread, which owns the model, answers them: in a loop once the run is ready, or
between two optimizer steps while it trains. The protocol is one JSON object a line and is described in docs/runs.md.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.data.convert import Message
from engine.runs import chat

MAX_LINE = 4 << 20  # bytes of one request


class Ask(Struct, kw_only=True):
    """One question with everything before it. `which`: the tuned model or the base it came from."""

    id: int
    messages: list[Message]
    which: str = "tuned"
    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 256
    seed: int | None = None


class Client:
    """One connection. Writes are serialised; a client that has gone is only noticed, never an error."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self.gone = False
        self.stopped: set[int] = set()

    def send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            try:
                self.connection.sendall(line)
            except OSError:
                self.gone = True


class Service:
    """Listens at `path` (mode 0600, in the run's private folder) from `open` until `close`."""

    def __init__(self, path: Path, status: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._status = status
        self._asked: queue.Queue[tuple[Client, Ask]] = queue.Queue()
        self._clients: set[Client] = set()
        self._listener: socket.socket | None = None
        self.answer: Callable[[Client, Ask], None] | None = None  # set once there is a model
        self.silent = "the model is still being loaded"  # why nothing is answered
        # Makes ready for the next question, when somebody is connected and none waits, or one is answered.
        self.idle: Callable[[], None] = lambda: None
        self.quit = threading.Event()
        self._last = time.monotonic()

    def open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # a killed worker's
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with chat.address(self._path) as name:
            self._listener.bind(name)
        self._path.chmod(0o600)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def serve_pending(self) -> None:
        """Answer what was asked meanwhile, then return: called between optimizer steps."""
        while self.answer is not None:
            try:
                client, ask = self._asked.get_nowait()
            except queue.Empty:
                return
            self.answer(client, ask)

    def serve(self, linger: float, first: float = 0.0, room_needed: Callable[[], bool] | None = None) -> None:
        """Answer until asked to quit, or until nobody has been connected for `linger` seconds.

        first        seconds to wait at least for a first client
        room_needed  whether another wants the memory: then it ends as soon as nobody is connected
        """
        deadline = time.monotonic() + max(linger, first)
        while not self.quit.is_set():
            try:
                client, ask = self._asked.get(timeout=0.2)
            except queue.Empty:
                if self._clients:
                    self.idle()
                    deadline = time.monotonic() + linger
                elif time.monotonic() > deadline or (room_needed is not None and room_needed()):
                    return
                continue
            assert self.answer is not None
            self.answer(client, ask)
            self.idle()
            deadline = time.monotonic() + linger

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not chat.same_user(connection):
                connection.close()
                continue
            threading.Thread(target=self._read, args=(Client(connection),), daemon=True).start()

    def _read(self, client: Client) -> None:
        self._clients.add(client)
        try:
            with client.connection.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE):
                    self._request(client, line)
        except OSError:
            pass
        finally:
            client.gone = True
            self._clients.discard(client)
            client.connection.close()

    def _request(self, client: Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            kind = request.get("op")
        except (ValueError, AttributeError):
            client.send({"error": "not a JSON object"})
            return
        match kind:
            case "chat":
                try:
                    ask = msgspec.convert(request, Ask)
                except msgspec.ValidationError as error:
                    client.send({"id": request.get("id"), "error": str(error)})
                    return
                if self.answer is None:
                    client.send({"id": ask.id, "error": self.silent})
                    return
                self._asked.put((client, ask))
            case "stop":
                client.stopped.add(request.get("id", -1))
            case "status":
                client.send({"status": self._status()})
            case "quit":
                self.quit.set()
                client.send({"status": self._status()})
            case _:
                client.send({"error": f"no such op: {kind}"})
