"""README against what is there: its commands are the first thing that a stranger types."""

from __future__ import annotations

import re
from pathlib import Path

from engine.cli import app

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    [line[4:] for line in block.strip("\n").splitlines()] for block in re.findall(r"(?m)((?:^    .+\n)+)", README)
]


def test_the_first_two_blocks_install_run_and_test() -> None:
    assert BLOCKS[0] == ["python3 -m venv .venv && . .venv/bin/activate", "pip install . && ftui demo"]
    assert BLOCKS[1] == ["pip install '.[test]' && pytest"]


def test_every_verb_is_named_and_every_named_verb_exists() -> None:
    named = set(re.findall(r"\bftui ([a-z]+)", README))
    assert named == set(app.VERBS)


def test_every_option_that_is_named_exists() -> None:
    for block in BLOCKS:
        for line in block:
            if not line.startswith("ftui "):
                continue
            verb, *words = line.partition("#")[0].split()[1:]
            module = __import__(f"engine.cli.{verb}", fromlist=["options"])
            parser = app.Parser(prog=verb, allow_abbrev=False)
            module.options(parser)
            known = {option for action in parser._actions for option in action.option_strings}
            assert {word for word in words if word.startswith("-")} <= known, line
