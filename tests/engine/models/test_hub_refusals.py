"""What is said when the hub refuses: its real client against answers as the hub gives them, from a server of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.errors import Exit

# model -> (status, X-Error-Code, X-Error-Message)
ANSWERS = {
    "someone/gated": (403, "GatedRepo", "Access to model someone/gated is restricted"),
    "someone/unknown": (404, "RepoNotFound", "Repository not found"),
    "someone/private": (401, "RepoNotFound", "Repository not found"),
    "someone/token": (401, "", "Invalid credentials in Authorization header"),
    "someone/forbidden": (403, "", "Forbidden"),
    "someone/broken": (500, "", "Internal error"),
    "someone/revision": (404, "RevisionNotFound", "Invalid rev id: v9"),
}
ASK = """
import json, sys
from engine.errors import FtuiError
from engine.models import hub
found = {}
for name in sys.argv[1:]:
    try:
        hub.download(name, None, lambda what, done, total: None, "v9" if name.endswith("revision") else None)
    except FtuiError as error:
        found[name] = error.as_dict()
print(json.dumps(found))
"""


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = next(
            (name for name in ANSWERS if f"/{name}/" in self.path or self.path.endswith(name)), "someone/unknown"
        )
        status, code, message = ANSWERS[name]
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, object]]]:
    """What `hub.download` raises for each model of ANSWERS, and for one of a hub that is not there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_address[1]}"
    home = str(tmp_path_factory.mktemp("hub"))

    def ask(endpoint: str, *names: str) -> dict[str, dict[str, object]]:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_TOKEN": "hf_notatoken"}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, check=True
        )
        return dict(json.loads(done.stdout))

    found = ask(here, *ANSWERS)
    server.shutdown()
    server.server_close()
    yield {**found, **ask(here, "someone/offline")}


@pytest.mark.parametrize(
    ("model", "code", "cause", "next_step"),
    [
        ("gated", Exit.NETWORK, "someone/gated is gated: its owner asks for an agreement first", "accept it on"),
        ("unknown", Exit.MODEL_MISSING, "the hub knows no model someone/unknown, or it is private", "check the name"),
        ("private", Exit.MODEL_MISSING, "the hub knows no model someone/private, or it is private", "set HF_TOKEN"),
        ("token", Exit.NETWORK, "the hub does not let this token fetch someone/token", "set HF_TOKEN to a valid"),
        ("forbidden", Exit.NETWORK, "the hub does not let this token fetch someone/forbidden", "that may read it"),
        ("revision", Exit.MODEL_MISSING, "someone/revision has no revision v9", ""),
        ("broken", Exit.NETWORK, "the hub has a problem of its own: it answers 500", "try again later"),
        ("offline", Exit.NETWORK, "the hub cannot be reached, and someone/offline is not on", "check the network"),
    ],
)
def test_each_refusal_has_its_own_text(
    refusals: dict[str, dict[str, object]], model: str, code: Exit, cause: str, next_step: str
) -> None:
    told = refusals[f"someone/{model}"]
    assert told["code"] == code and str(told["cause"]).startswith(cause) and next_step in str(told["next_step"]), told
