"""The chat client against a small server in a thread."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Exit, FtuiError
from engine.runs import chat
from engine.runs.directory import RunDir

Serve = Callable[[RunDir], list[dict[str, Any]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(run): listens there; returns the requests it got. Answers word by word, "wait" only once stopped."""
    servers: list[socket.socket] = []

    def handle(connection: socket.socket, seen: list[dict[str, Any]]) -> None:
        with connection, connection.makefile("rwb") as lines:

            def send(message: dict[str, Any]) -> None:
                lines.write(json.dumps(message).encode() + b"\n")
                lines.flush()

            waiting = None
            try:
                for line in lines:
                    request = json.loads(line)
                    seen.append(request)
                    number = request.get("id")
                    match request["op"]:
                        case "status":
                            send({"status": {"run": "r", "state": "ready"}})
                        case "stop" if waiting == number:
                            send({"id": number, "done": True, "reason": "stopped", "tokens": 1, "seconds": 0.5})
                        case "chat":
                            said = request["messages"][-1]["content"]
                            if said == "die":
                                return
                            if said == "no":
                                send({"id": number, "error": "the context is full"})
                                continue
                            for word in ("I ", "am ", "丛雨\n"):
                                send({"id": number, "text": word})
                            waiting = number
                            if said != "wait":
                                send({"id": number, "done": True, "reason": "end", "tokens": 3, "seconds": 0.25})
            except OSError:
                pass

    def start(run: RunDir) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        server = socket.socket(socket.AF_UNIX)
        with chat.address(run.socket_path) as name:
            server.bind(name)
        server.listen()
        servers.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection, seen), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return seen

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture(params=["short", "long"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    path = tmp_path / ("r" if request.param == "short" else "丛" * 60)
    path.mkdir()
    run = RunDir(path)
    assert request.param == "short" or len(bytes(run.socket_path)) > 108
    return run


ASK = [{"role": "user", "content": "Who are you?"}]


def test_ask(run: RunDir, serve: Serve) -> None:
    seen = serve(run)
    assert chat.answers(run.socket_path)
    with chat.Chat(run) as talk:
        replies = list(talk.ask(ASK, which="base", temperature=0.0, seed=7, max_tokens=9, top_p=1.0))
        assert "".join(reply.text for reply in replies) == "I am 丛雨\n"
        assert (replies[-1].done, replies[-1].reason, replies[-1].tokens, replies[-1].seconds) == (True, "end", 3, 0.25)
        assert not any(reply.done for reply in replies[:-1])
        assert talk.status() == {"run": "r", "state": "ready"}
        assert len(list(talk.ask(ASK))) == 4
    chats = [request for request in seen if request["op"] == "chat"]
    assert chats[0] == {
        "id": 1,
        "op": "chat",
        "messages": ASK,
        "which": "base",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": 7,
    }
    assert chats[1]["id"] == 2


def test_stop_from_another_thread(run: RunDir, serve: Serve) -> None:
    serve(run)
    with chat.Chat(run) as talk:
        replies = []
        for reply in talk.ask([{"role": "user", "content": "wait"}]):
            replies.append(reply)
            if len(replies) == 3:
                threading.Thread(target=talk.stop).start()
        assert replies[-1].reason == "stopped"
        talk.stop()  # nothing is being answered: nothing happens
        assert [reply.text for reply in talk.ask(ASK)][:3] == ["I ", "am ", "丛雨\n"]


def test_leaving_an_answer_stops_it_and_its_rest_is_not_mixed_in(run: RunDir, serve: Serve) -> None:
    seen = serve(run)
    with chat.Chat(run) as talk:
        asking = talk.ask([{"role": "user", "content": "wait"}])
        next(asking)
        asking.close()  # type: ignore[attr-defined]
        assert [reply.text for reply in talk.ask(ASK)] == ["I ", "am ", "丛雨\n", ""]
    assert {"op": "stop", "id": 1} in seen


def test_errors(run: RunDir, serve: Serve) -> None:
    with pytest.raises(FtuiError) as caught:
        chat.Chat(run)
    assert caught.value.code == Exit.RUN_STATE and not chat.answers(run.socket_path)
    chat.quit_worker(run.socket_path)
    serve(run)
    with chat.Chat(run) as talk:
        with pytest.raises(FtuiError, match="the context is full"):
            list(talk.ask([{"role": "user", "content": "no"}]))
        assert len(list(talk.ask(ASK))) == 4  # and it goes on
        with pytest.raises(FtuiError, match="has gone"):
            list(talk.ask([{"role": "user", "content": "die"}]))


def test_socket_file_of_a_killed_worker_does_not_count(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(run.socket_path))
    dead.close()
    assert not chat.answers(run.socket_path)


def test_close_ends_a_waiting_answer(tmp_path: Path, serve: Serve) -> None:
    run = RunDir(tmp_path)
    serve(run)
    talk = chat.Chat(run)
    with pytest.raises(FtuiError):
        for number, _ in enumerate(talk.ask([{"role": "user", "content": "wait"}])):
            if number == 2:
                threading.Timer(0.05, talk.close).start()
