"""`ftui export`: what the job is told, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.errors import Exit
from engine.runs import control
from engine.runs.directory import RunDir
from engine.runs.events import Exported, Failure, Progress, Pushed
from engine.runs.job import Job
from tests.tui.run_files import FakeRun


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs given to `control.start`, each done at once as a worker would."""
    fake = FakeRun("Ada L.")
    fake.whole()
    given: list[Job] = []

    def start(run: RunDir, job: Job) -> None:
        given.append(job)
        kind, where = job.options["kind"], job.options["to"] or "/data/x"
        pushing = job.options["push"]
        fake.event(Progress(what="export: load", done=0, total=4 if pushing else 3))
        fake.event(Exported(kind=kind, path=where, difference=0.25, form="q8_0", alike=5, asked=6, bytes=145_000_000))
        if pushing == "me/taken":
            fake.event(Failure(cause="exported, but not pushed: me/taken exists", code=int(Exit.EXPORT_FAILED)))
        elif pushing:
            public = job.options["public"]
            fake.event(Pushed(repository=pushing, url=f"https://hub/{pushing}", public=public, path=where))

    monkeypatch.setattr(control, "start", start)
    return given


def test_a_gguf_and_the_line_for_ollama(jobs: list[Job], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", "Ada", "--gguf", "q8_0", "--to", str(tmp_path / "g")]) == 0
    said = capsys.readouterr().out
    assert "1/3 load" in said and f"exported to {tmp_path / 'g'}: gguf q8_0, 145 MB" in said.replace("\n", "")
    assert "logits is 0.25, 5 of 6 greedy answers are the same" in said.replace("\n", " ")
    assert "ollama create ada-l -f Modelfile" in said
    wanted: dict[str, Any] = {"kind": "gguf", "format": "q8_0", "push": None, "to": str(tmp_path / "g")}
    assert wanted.items() <= jobs[0].options.items()


def test_push_is_private_unless_said_otherwise(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "Ada", "--merged", "--dtype", "bf16", "--push", "me/ada"]) == 0
    assert "pushed to https://hub/me/ada, which only you can see" in capsys.readouterr().out
    assert main(["export", "Ada", "--gguf", "--push", "me/ada", "--public", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pushed"] == "https://hub/me/ada"
    assert [(job.options["public"], job.options["dtype"], job.options["format"]) for job in jobs] == [
        (False, "bf16", "f16"),
        (True, None, "f16"),
    ]
    assert main(["export", "Ada", "--push", "me/taken"]) == Exit.EXPORT_FAILED
    told = capsys.readouterr()
    assert "exported to /data/x" in told.out and "not pushed" in told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--public"], "--public"), (["--push", "name"], "OWNER/NAME"), (["--merged", "--gguf"], "not allowed")],
)
def test_what_contradicts_itself(
    jobs: list[Job], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    try:
        code: object = main(["export", "Ada", *words])
    except SystemExit as error:
        code = error.code
    assert code == Exit.USAGE and said in capsys.readouterr().err
    assert jobs == []


@pytest.mark.parametrize(
    ("method", "kind", "words"),
    [
        ("prompt", "--merged", "prompt tuning learns virtual tokens, which cannot be merged into weights"),
        ("prefix", "--gguf", "prefix tuning learns virtual tokens, which cannot be merged into weights"),
        ("bottleneck", "--merged", "bottleneck tuning learns networks of their own behind the layers"),
        ("full", None, "full tuning leaves no adapter"),
    ],
)
def test_what_a_method_cannot_be_exported_as(
    jobs: list[Job], capsys: pytest.CaptureFixture[str], method: str, kind: str | None, words: str
) -> None:
    fake = FakeRun("Bea", method=method)  # type: ignore[arg-type]
    fake.whole()
    assert main(["export", "Bea", *([kind] if kind else [])]) == Exit.EXPORT_FAILED
    assert words in " ".join(capsys.readouterr().err.split()) and jobs == []


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_starts(
    jobs: list[Job], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (Path("/proc/x"), file / "x", Path("/proc/no/such/folder")):
        assert main(["export", "Ada", "--to", str(place)]) == Exit.PERMISSION
        said = capsys.readouterr().err
        assert "nothing can be written to" in said and "name another folder" in said and "GB" not in said
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["export", "Ada", "--to", str(tmp_path / "full")]) == Exit.EXPORT_FAILED
    assert "full is there and not empty" in capsys.readouterr().err
    assert jobs == []
    assert main(["export", "Ada", "--to", str(tmp_path / "new" / "deep")]) == 0
    assert not (tmp_path / "new").exists()  # it was only looked at
