"""Running verbs as a person does: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.cli import main


class Said(Struct):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def ftui(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """ftui("data", file, "--json") -> what it said."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve good alpaca rows."""
    path = tmp_path / "rows.jsonl"
    lines = [{"instruction": f"What is {n} plus one?", "input": "", "output": f"It is {n + 1}."} for n in range(12)]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def named_rows(tmp_path: Path) -> Path:
    """Rows that say who the model is, with placeholders."""
    path = tmp_path / "names.json"
    lines = [
        {"instruction": f"{n}. Who are you?", "input": "", "output": "I am {{name}}, made by {{author}}."}
        for n in range(8)
    ]
    path.write_text(json.dumps(lines), encoding="utf-8")
    return path
