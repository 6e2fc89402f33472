"""Every glyph that is drawn has a form in ASCII, as wide as it is."""

from __future__ import annotations

import ast
from pathlib import Path

from rich.cells import cell_len

from engine import glyphs

ROOT = Path(__file__).parents[2]
# What rules look for in rows, or take out of them; none of it is drawn.
NOT_DRAWN = {"preview.py": "｜", "app.py": "␣", "field.py": "�", "typed.py": "␛"}


def drawn_by(path: Path) -> set[str]:
    """The characters beyond ASCII in the strings of a source file, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told)
    found = {char for text in texts if isinstance(text, str) for char in text if not char.isascii()}
    return found - set(NOT_DRAWN.get(path.name, ""))


def test_every_glyph_that_is_drawn_is_in_the_table() -> None:
    missing = {
        str(path.relative_to(ROOT)): unknown
        for room in ("tui", "engine/cli", "engine/advice", "engine/runs", "engine/models")
        for path in (ROOT / room).rglob("*.py")
        if (unknown := {char for char in drawn_by(path) if char not in glyphs.ASCII})
    }
    assert not missing


def test_a_glyph_is_as_wide_as_before() -> None:
    for char, form in glyphs.ASCII.items():
        assert form.isascii() and len(form) == cell_len(char) == 1, char
    assert glyphs.drawn("你") == "??" and glyphs.drawn("\u0301") == "" and glyphs.drawn("é") == "?"
    assert glyphs.foreign("你…😀␛") == "<4f60>…<1f600><1b>"
