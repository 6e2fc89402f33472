"""--help in terminals of any width: text flows, words stay whole, examples stand one a line."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from engine.cli import app
from tests.engine.cli.conftest import Said

Ftui = Callable[..., Said]


@pytest.mark.parametrize("verb", ["", *app.VERBS])
def test_help_fits_80_columns_with_whole_words(ftui: Ftui, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = ftui(*filter(None, [verb]), "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    if verb:
        text = importlib.import_module(f"engine.cli.{verb}").__doc__ or ""
        assert set(text.split()) <= set(shown.split())
        examples = [line for line in text.splitlines() if line.startswith("  ftui")]
        assert set(examples) <= set(shown.splitlines())


def test_a_wide_terminal_is_used_and_a_narrow_one_breaks_between_words(
    ftui: Ftui, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    wide = ftui("train", "--help").out
    assert max(map(len, wide[wide.index("Without --wait") :].splitlines())) > 130
    monkeypatch.setenv("COLUMNS", "72")
    lines = ftui("evaluate", "--help").out.splitlines()
    assert "greedily," in " ".join(lines).split()
    at = lines.index("  ftui evaluate congyu --answers                  what both said, side")
    assert lines[at + 1].strip() == "by side" and lines[at + 1].index("by") == lines[at].index("what")
