"""The chat socket, with an answerer in the model's place."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.worker.service import Ask, Client, Service


class Wire:
    """One raw connection: what a client that knows only the protocol sees."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def say(self, message: object) -> None:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(raw + b"\n")

    def hear(self) -> dict[str, object]:
        return json.loads(self.lines.readline())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "s.sock", lambda: {"state": "ready"})
    made.open()
    yield made
    made.close()


def question(number: int, **more: object) -> dict[str, object]:
    return {"op": "chat", "id": number, "messages": [{"role": "user", "content": "Who are you?"}], **more}


def test_the_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.touch()  # what a killed worker left
    service = Service(path, dict)
    service.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    service.close()
    assert not path.exists()


def test_bad_requests_are_answered_and_do_not_end_the_connection(service: Service, tmp_path: Path) -> None:
    wire = Wire(tmp_path / "s.sock")
    for raw, word in [
        (b"{", "JSON"),
        (b"[1]", "JSON"),
        (b'{"op":"dance"}', "dance"),
        (b'{"op":"chat","id":3,"messages":"hello"}', "messages"),
        (b'{"op":"chat","id":3,"messages":[{"role":"boss","content":"x"}]}', "role"),
    ]:
        wire.say(raw)
        assert word in str(wire.hear()["error"])
    wire.say({"op": "status"})
    assert wire.hear() == {"status": {"state": "ready"}}


def test_a_question_before_there_is_a_model_says_so(service: Service, tmp_path: Path) -> None:
    wire = Wire(tmp_path / "s.sock")
    wire.say(question(1))
    assert "loaded" in str(wire.hear()["error"])


def test_questions_are_answered_in_order_and_between_steps(service: Service, tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(client: Client, ask: Ask) -> None:
        asked.append(ask.id)
        client.send({"id": ask.id, "done": True})

    service.answer = answer
    service.serve_pending()  # nothing was asked: returns
    wire = Wire(tmp_path / "s.sock")
    wire.say(question(1, temperature=0))
    wire.say(question(2))
    while asked != [1, 2]:
        service.serve_pending()
    assert [wire.hear()["id"], wire.hear()["id"]] == [1, 2]


def test_stop_reaches_the_answer_under_way(service: Service, tmp_path: Path) -> None:
    started = threading.Event()

    def answer(client: Client, ask: Ask) -> None:
        started.set()
        while ask.id not in client.stopped:
            pass
        client.send({"id": ask.id, "done": True, "reason": "stopped"})

    service.answer = answer
    serving = threading.Thread(target=service.serve, args=(0.0, 30.0), daemon=True)
    serving.start()
    wire = Wire(tmp_path / "s.sock")
    wire.say(question(7))
    assert started.wait(5)
    wire.say({"op": "stop", "id": 7})
    assert wire.hear()["reason"] == "stopped"
    wire.say({"op": "quit"})
    serving.join(5)
    assert not serving.is_alive()


def test_serving_ends_when_nobody_is_there(service: Service) -> None:
    service.answer = lambda client, ask: None
    service.serve(linger=0.0, first=0.0)


def test_a_client_that_went_away_is_no_error(service: Service, tmp_path: Path) -> None:
    wire = Wire(tmp_path / "s.sock")
    wire.socket.shutdown(socket.SHUT_RDWR)
    left, right = socket.socketpair()
    client = Client(left)
    right.close()
    client.send({"id": 1})
    client.send({"id": 2})
    assert client.gone


def test_it_makes_ready_between_questions_never_ahead_of_one(service: Service, tmp_path: Path) -> None:
    done: list[str] = []

    def answer(client: Client, ask: Ask) -> None:
        done.append(f"answer {ask.id}")
        client.send({"id": ask.id, "done": True})

    service.answer, service.idle = answer, lambda: done.append("ready")
    early = Wire(tmp_path / "s.sock")
    early.say(question(1))
    early.say({"op": "status"})
    assert "status" in early.hear()  # so the question is in line
    threading.Thread(target=service.serve, args=(0.0, 30.0), daemon=True).start()
    assert early.hear()["done"]
    while "ready" not in done:
        time.sleep(0.01)
    assert done[:2] == ["answer 1", "ready"]
    service.quit.set()


def test_it_makes_ready_for_whoever_is_connected_and_for_nobody_else(service: Service, tmp_path: Path) -> None:
    ready = threading.Event()
    service.answer, service.idle = lambda client, ask: None, ready.set
    threading.Thread(target=service.serve, args=(30.0,), daemon=True).start()
    assert not ready.wait(0.5)
    wire = Wire(tmp_path / "s.sock")
    assert ready.wait(10)
    wire.socket.close()
    service.quit.set()
