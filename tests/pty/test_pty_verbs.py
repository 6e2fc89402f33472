"""What every verb writes on a real terminal when everything it is given is hostile.

pytest tests/pty                                some hundred strings through every verb and screen
FTUI_HOSTILE=10000 pytest -n0 -s tests/pty      ten thousand through each of the two; prints the counts
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pty import stream
from tests.pty.conftest import COUNT, World
from tests.pty.texts import Texts
from tests.terminal.pty import ROOT, Pty


def test_what_verbs_write(world: World, tmp_path: Path) -> None:
    """All verbs, each with all of its options that show foreign text, on a terminal of 80 columns."""
    began = time.monotonic()
    with world.worker():
        raw = on_terminal(verbs(world), tmp_path, world)
    parts = split(raw)
    print(world.told("verbs", raw, began))
    found = [
        f"{verb!a:.60}: {what}"
        for verb, part in zip(verbs(world), parts, strict=True)
        for what in stream.findings(part)
    ]
    assert not found, "\n".join(found[:20])
    lines = [
        f"{verb!a:.60}: {what}"
        for verb, part in zip(verbs(world), parts, strict=True)
        if verb[0] not in ("logs", "chat")  # the lines of a log and of an answer are theirs
        for what in stream.broken_lines(part)
    ]
    assert not lines, "\n".join(lines[:20])
    crashed = [
        f"{verb[:1]} {stream.text_of(part)[-400:]}"
        for verb, part in zip(verbs(world), parts, strict=True)
        if b"unexpected:" in part
    ]
    assert not crashed, "\n".join(crashed)
    silent = [
        f"{verb[:1]} {stream.text_of(part)[-400:]}"
        for verb, part in zip(verbs(world), parts, strict=True)
        if not stream.tokens(part)
    ]
    assert not silent, "\n".join(silent)  # a verb that showed nothing of theirs was not tested


def test_without_colours_and_as_json_in_a_pipe(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves no colour on a terminal; what a program reads is JSON and nothing else."""
    monkeypatch.setenv("NO_COLOR", "1")
    raw = on_terminal([["data", str(world.rows), "--rows", "4"], ["runs"], ["presets"]], tmp_path, world)
    assert stream.tokens(raw)
    assert not re.search(rb"\x1b\[[\d;]*[34]\d", raw)
    program = [sys.executable, "-m", "tui", "runs", "--json"]
    printed = subprocess.run(program, capture_output=True, check=True, cwd=ROOT).stdout
    assert stream.tokens(printed)
    assert not stream.findings(printed)
    assert b"\x1b" not in printed
    assert json.loads(printed)


def verbs(world: World) -> list[list[str]]:
    t = Texts(80_000)
    data = [[f"{file}"] for file in (world.rows, *world.files.values(), world.folder / "dataset_info.json")]
    many = str(COUNT)
    folder, rows = str(world.folder), str(world.rows)
    first, ready = world.runs[0].name, next(run.name for run in world.runs if run.result)
    found = [
        ["data", rows, "--rows", many, "--tokens"],
        ["data", rows, "--rows", "3", "--system", t(), "--cutoff", "64"],
        ["data", rows, "--fix", "all", "--out", f"{folder}/out-{t.name()}.jsonl"],
        *(["data", *file, "--rows", "4", "--bad-rows", "skip"] for file in data),
        ["data", rows, str(world.files["keys"]), "--rows", "2"],
        ["data", rows, "--columns", f"{t()}={t()}"],
        ["data", rows, "--columns", f"prompt={t()}"],
        ["data", rows, "--prompt", t() + "{instruction}", "--completion", "{output}" + t(), "--rows", "2"],
        ["data", rows, "--set", f"{t()}={t()}", "--set", t()],
        ["data", str(world.files["holders"]), "--rows", "2"],
        *(["data", rows, option, t()] for option in ("--of", "--sample", "--model", "--bad-rows")),
        ["data", rows, "--fix", t(), "--out", f"{folder}/{t.name()}"],
        ["data", rows, "--fix", "all", "--out", rows],
        *(["data", word] for word in (t(), f"hub:{t()}", f"preset:{t()}", f"{folder}/dataset_info.json:{t()}")),
        ["data", folder],
        ["plan", "--data", rows, "--name", t(), "--system", t()],
        ["plan", "--data", rows, "--what-if", "rank=8,epochs=2", "--what-if", f"rank=4 ,{t()}=1"],
        ["plan", "--data", rows, "--what-if", "rank=8", "--against", str(world.recipes["recipe"])],
        ["plan", "--data", rows, "--against", first],
        ["plan", "--data", rows, "--against", t()],
        ["plan", "--data", rows, "--explain", t()],
        ["plan", "--data", rows, "--explain", "rank", "--preset", world.presets[1]],
        ["plan", "--data", rows, "--fits", "--save", t()],
        ["plan", "--data", rows, "--edit", f"{t()}={t()}"],
        ["plan", "--data", rows, "--edit", f"rank={t()}"],
        *(["plan", "--data", rows, "--preset", preset] for preset in world.presets[:4]),
        *(["plan", "--data", rows, "--model", model] for model in world.models),
        *(["plan", str(world.recipes[name])] for name in ("recipe", "neither")),
        ["plan", str(world.recipes["factory"]), "--data", rows],
        *(
            ["plan", "--data", rows, option, t()]
            for option in ("--goal", "--deadline", "--method", "--from", "--preset")
        ),
        *(["train", *file] for file in (["--data", str(world.files[name])] for name in ("wrong", "broken", "roles"))),
        ["train", "--model", t(), "--data", rows],
        ["train", "--model", f"./{t()}", "--data", rows, "--gpu", t()],
        ["train", t()],
        ["probe", "--model", t()],
        ["demo", "--model", f"/{t()}"],
        ["runs"],
        *(["attach", run.name] for run in world.runs if run.result or run == world.runs[1]),
        ["attach", world.long.name],
        ["attach", world.long.name, "--json"],
        ["attach", t()],
        ["logs", world.logged.name],
        ["logs", t()],
        ["chat", ready, "-p", t()],
        ["chat", ready, "-p", "error"],
        ["chat", ready, "-p", "say", "--json"],
        ["chat", t(), "-p", "hello"],
        ["chat", ready, "-p", "x", "--top-p", t()],
        *([verb, *more] for verb in ("resume", "stop", "export") for more in ([t()], [first, t()])),
        *(["extend", *more] for more in ([first, "--epochs", t()], [t(), "--epochs", "1"], [first, "--epochs", "1"])),
        ["stop", world.runs[3].name],
        ["resume", world.runs[1].name, "--wait"],
        ["train", "--data", str(world.files["keys"]), "--name", t(), "--wait", "--force"],
        ["export", world.runs[6].name],
        ["export", world.runs[6].name, "--merged", "--to", f"{folder}/{t.name()}"],
        ["export", first, "--shard-size", t()],
        ["export", world.runs[2].name],
        ["presets"],
        *(["presets", name] for name in (*world.presets[:4], t())),
        ["models"],
        ["models", t()],
        ["doctor"],
        ["where"],
        ["where", first],
        ["where", t()],
        [t()],
        ["runs", f"--{t()}"],
    ]
    with_json = [verb for verb in found if verb[0] in ("data", "plan", "runs", "presets", "models", "doctor", "where")]
    return [*found, *([*verb, "--json"] for verb in with_json if "--fix" not in verb and "--save" not in verb)]


def on_terminal(verbs: list[list[str]], tmp_path: Path, world: World) -> bytes:
    """Every byte that the verbs write on a terminal, one after another in one process."""
    file = tmp_path / "verbs.json"
    file.write_text(json.dumps(verbs))
    with Pty(["-m", "tests.pty.batch", str(file)], cwd=ROOT, env={"PYTHONWARNINGS": "ignore"}) as terminal:
        terminal.screen.feed = lambda data: None  # type: ignore[method-assign]  # bytes are what counts
        terminal.wait(seconds=600)
        return bytes(terminal.raw)


def split(raw: bytes) -> list[bytes]:
    """The bytes of each verb."""
    return [part.partition("»\r\n".encode())[2] for part in raw.split("«".encode())[1:]]
