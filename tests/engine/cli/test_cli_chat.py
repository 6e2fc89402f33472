"""`ftui chat` against a stand-in for the worker: a socket that speaks its protocol."""

from __future__ import annotations

import io
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import Exit
from engine.runs.directory import RunDir
from engine.runs.events import State
from engine.runs.journal import Writer
from engine.sampling import HOTTEST
from tests.engine.cli.conftest import Said
from tests.engine.cli.test_cli_runs import a_run

Ftui = Callable[..., Said]
Asked = list[dict[str, Any]]


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunDir, Asked]]:
    """A ready run with something that answers on its socket, and what it was asked."""
    run = a_run()
    Writer(run.journal_path).write(State(state="ready"))
    asked: Asked = []

    class Worker(socketserver.StreamRequestHandler):
        def say(self, **reply: Any) -> None:
            self.wfile.write(json.dumps(reply).encode() + b"\n")

        def handle(self) -> None:
            for line in self.rfile:
                request = json.loads(line)
                if request["op"] == "status":
                    self.say(status={"run": run.name, "state": "ready"})
                elif request["op"] == "chat":
                    asked.append(request)
                    if request["messages"][-1]["content"] == "break":
                        self.say(id=request["id"], error="the model has gone")
                        continue
                    for piece in ("I am ", request["which"], " \x1b[31m\nAda."):
                        self.say(id=request["id"], text=piece)
                    self.say(id=request["id"], done=True, reason="end", tokens=3, seconds=0.5)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that leaves is no error."""

    monkeypatch.chdir(run.path)  # a short name, whatever the length of the temporary folder's
    with Server(run.socket_path.name, Worker) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield run, asked
        server.shutdown()


def test_one_answer_on_stdout(ftui: Ftui, talker: tuple[RunDir, Asked]) -> None:
    _, asked = talker
    said = ftui("chat", "ada", "-p", "Who are you?", "--system", "Be brief.", "--temperature", "0", "--seed", "7")
    assert said.code == 0
    assert said.out == "I am tuned ␛[31m\nAda.\n"
    assert said.err == ""
    (request,) = asked
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
    ]
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0.0, 7, 256)


def test_the_base_model_and_json(ftui: Ftui, talker: tuple[RunDir, Asked]) -> None:
    answer = ftui("chat", "ada", "-p", "Who are you?", "--base", "--json").json
    assert answer["answer"] == "I am base \x1b[31m\nAda."
    assert (answer["which"], answer["reason"], answer["tokens"]) == ("base", "end", 3)


def test_a_conversation_line_by_line(ftui: Ftui, talker: tuple[RunDir, Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = talker
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("Hello\n/system Be kind.\nAnd you?\n/base\n/again\n/new\nBye\n/what\n")
    )
    said = ftui("chat", "ada")
    assert said.code == 0
    assert said.out.count("Ada.") == 4
    assert "there is no /what here" in said.out
    first, second, again, bye = asked
    assert [m["role"] for m in first["messages"]] == ["user"]
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert again["messages"] == second["messages"]
    assert (second["which"], again["which"]) == ("tuned", "base")
    assert [m["content"] for m in bye["messages"]] == ["Be kind.", "Bye"]


def test_an_answer_that_fails(ftui: Ftui, talker: tuple[RunDir, Asked]) -> None:
    said = ftui("chat", "ada", "-p", "break")
    assert said.code == Exit.RUN_FAILED
    assert "the model has gone" in said.err


def test_json_needs_a_question(ftui: Ftui, talker: tuple[RunDir, Asked]) -> None:
    assert ftui("chat", "ada", "--json").code == Exit.USAGE


@pytest.mark.parametrize("temperature", ["9", "-1", "nan", "inf", "5.01"])
def test_a_temperature_beyond_its_limits_is_refused(temperature: str, ftui: Ftui) -> None:
    said = ftui("chat", "ada", "-p", "Who?", f"--temperature={temperature}")
    assert said.code == Exit.USAGE and "from 0 (always the likeliest token) to 5" in said.err


def test_the_hottest_temperature_is_asked_for(ftui: Ftui, talker: tuple[RunDir, Asked]) -> None:
    assert ftui("chat", "ada", "-p", "Who?", "--temperature", f"{HOTTEST}").code == 0
    assert talker[1][-1]["temperature"] == HOTTEST
