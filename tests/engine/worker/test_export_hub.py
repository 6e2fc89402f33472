"""Pushing to a hub that speaks the hub's own protocol, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from engine.errors import Exit, FtuiError
from engine.worker.exports import push

TOKEN = "hf_a-token-that-may-write"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: id -> (private, path -> content). Tokens other than TOKEN are unknown."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, tuple[bool, dict[str, bytes]]] = {}
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None: ...

    def _reply(self, status: int, value: Any, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def _known(self) -> bool:
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._reply(401, {"error": "Invalid user token."})
        return False

    def do_GET(self) -> None:
        if not self._known():
            return
        if self.path == "/api/whoami-v2":
            return self._reply(200, {"name": "me", "type": "user"})
        name = "/".join(self.path.split("/")[3:5]).partition("?")[0]
        if name not in self.server.repositories:
            return self._reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        _, files = self.server.repositories[name]
        self._reply(200, {"id": name, "siblings": [{"rfilename": path} for path in files]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._known():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if not name.startswith("me/"):
                return self._reply(403, {"error": "You don't have the rights to create a model there"})
            self.server.repositories.setdefault(
                name, (asked.get("visibility") == "private" or bool(asked.get("private")), {".gitattributes": b""})
            )
            return self._reply(200, {"url": f"http://{self.headers['Host']}/{name}", "id": name})
        if self.path == "/api/validate-yaml":  # the card's front matter
            return self._reply(200, {"errors": [], "warnings": []})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._reply(200, {"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.server.repositories[name][1][entry["value"]["path"]] = content
        self._reply(
            200, {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/1", "commitOid": "1", "success": True}
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "README.md").write_text("# card")
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/somebody/base", "r": 8}')
    return made


def refused(code: Exit, *words: str) -> None:
    with pytest.raises(FtuiError) as caught:
        push.ready("me/congyu")
    said = " ".join(caught.value.lines())
    assert caught.value.code == code and all(word in said for word in words), said
    assert TOKEN not in said


@pytest.mark.parametrize("private", [True, False])
def test_one_commit_with_every_file_and_no_folder_of_this_machine(hub: Hub, folder: Path, private: bool) -> None:
    push.ready("me/congyu")
    assert hub.repositories == {}
    url = push.push(folder, "me/congyu", private=private, base="owner/base")
    assert url.endswith("me/congyu")
    kept, files = hub.repositories["me/congyu"]
    assert kept is private and set(files) == {".gitattributes", *(path.name for path in folder.iterdir())}
    assert files["adapter_model.safetensors"] == b"weights"
    assert json.loads(files["adapter_config.json"]) == {"base_model_name_or_path": "owner/base", "r": 8}
    assert "/home/somebody/base" in (folder / "adapter_config.json").read_text()  # here it must be found
    assert sum("/commit/" in path for path in hub.asked) == 1
    # What is there stays there.
    refused(Exit.EXPORT_FAILED, "exists on the hub and is not empty", "another name")


def test_a_repository_that_an_interrupted_push_left_empty_is_used(hub: Hub, folder: Path) -> None:
    hub.repositories["me/congyu"] = (True, {".gitattributes": b""})
    push.ready("me/congyu")
    push.push(folder, "me/congyu", private=True, base="owner/base")
    assert "README.md" in hub.repositories["me/congyu"][1]


def test_tokens_and_rights(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FtuiError) as caught:
        push.push(folder, "somebody-else/congyu", private=True, base="x")
    assert caught.value.code == Exit.PERMISSION and "may not write to somebody-else/congyu" in caught.value.cause
    monkeypatch.setenv("HF_TOKEN", "hf_another-token")
    refused(Exit.PERMISSION, "does not know the token", "HF_TOKEN")
    monkeypatch.delenv("HF_TOKEN")
    refused(Exit.PERMISSION, "there is no token", "HF_TOKEN is not set")


def test_offline_and_out_of_reach(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on this port
    refused(Exit.NETWORK, "cannot be reached", "check the network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(Exit.NETWORK, "offline", "HF_HUB_OFFLINE")
