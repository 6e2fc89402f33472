"""A worker that chats, as far as the face can tell: it listens on the run's socket and speaks its protocol."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from engine.runs.chat import address
from engine.runs.directory import RunDir

Answerer = Callable[[str, list[dict[str, str]]], Sequence[str]]  # (side, messages) -> the pieces of an answer


class FakeWorker:
    """Answers every question with the pieces that `answer` gives; keeps what it was asked in `asked`.

    hold  while set, an answer waits after its first piece until it is stopped or `hold` is cleared
    """

    def __init__(self, run: RunDir, answer: Answerer) -> None:
        self.run = run
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.hold = threading.Event()
        self.connected = 0
        self._stopped: set[int] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with address(run.socket_path) as name:
            self._listener.bind(name)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._listener.close()
        self.run.socket_path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        sending = threading.Lock()

        def send(message: dict[str, Any]) -> None:
            with sending:
                connection.sendall(json.dumps(message).encode() + b"\n")

        self.connected += 1
        try:
            with connection:
                for line in connection.makefile("rb"):
                    message = json.loads(line)
                    if message["op"] == "status":
                        send({"status": {"run": str(self.run.path), "state": "ready"}})
                    elif message["op"] == "stop":
                        self._stopped.add(message["id"])
                    elif message["op"] == "chat":
                        self.asked.append(message)
                        threading.Thread(target=self._reply, args=(message, send), daemon=True).start()
        except OSError:
            return
        finally:
            self.connected -= 1

    def _reply(self, message: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        number, reason = message["id"], "end"
        try:
            pieces = self.answer(message["which"], message["messages"])
        except Exception as error:
            send({"id": number, "error": str(error)})
            return
        sent = 0
        for piece in pieces:
            send({"id": number, "text": piece})
            sent += 1
            while self.hold.is_set() and number not in self._stopped:
                threading.Event().wait(0.005)
            if number in self._stopped:
                reason = "stopped"
                break
        send({"id": number, "done": True, "reason": reason, "tokens": sent, "seconds": sent / 16})
