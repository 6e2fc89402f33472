"""Broken JSON that still has one plain meaning, read as what it means. Nothing beyond that is guessed."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

# Strings in either quote, words, brackets and marks, white space; then any other character by itself.
_TOKEN = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*"'
    r"|'[^'\\]*(?:\\.[^'\\]*)*'"
    r"|[^\W\d]\w*|[-+.\d][-+.\w]*|[][{}:,]|\s+|.",
    re.DOTALL,
)
_WORDS = {"None": "null", "True": "true", "False": "false"}
_PAIRS = {"}": "{", "]": "["}
_CLOSING = {"{": "}", "[": "]"}
_CONTROL = re.compile(r"[\x00-\x1f]")
_NO_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[^\\'\"abfnrtv0-7xuUN\n]")  # a backslash that escapes nothing in Python
_MARKS = re.compile("[\ufeff\0]")
_LONGEST = 4 * 1024 * 1024  # characters; a piece of Python takes many times its size to read


def value(text: str, *, close: bool = False) -> tuple[Any, str] | None:
    """(what `text` means, what was done to it) or None where it has no one plain meaning.

    Taken out: commas too many, byte order marks, NUL. Read as meant: control characters inside strings, and Python's
    quotes and None, True and False.
    close  brackets may be missing at its end, behind a whole string or bracket
    """
    if len(text) > _LONGEST:
        return None
    done: list[str] = []
    tokens = _TOKEN.findall(text.strip())
    if any(_MARKS.search(token) for token in tokens):
        tokens = _TOKEN.findall(_MARKS.sub("", text).strip())
        done.append("took out marks that are no text")
    if any((token[0] == "'" and len(token) > 1) or token in _WORDS for token in tokens):
        tokens = [_from_python(token) for token in tokens]
        done.append("read as Python")
    kept = _without_stray_commas(tokens)
    if len(kept) < len(tokens):
        done.append("took out a comma too many")
    if any(_CONTROL.search(token) for token in kept if token[0] == '"'):
        kept = [_CONTROL.sub(_escaped, token) if token[0] == '"' else token for token in kept]
        done.append("escaped control characters in a string")
    missing = _missing(kept)
    if missing and close and next(token for token in reversed(kept) if not token.isspace())[-1] in '"}]':
        kept.append(missing)
        done.append(f"added {missing} at its end")
    try:
        return (json.loads("".join(kept)), "; ".join(done)) if done else None
    except (ValueError, RecursionError):
        return None


def end(text: str, at: int = 0) -> int | None:
    """Where the value that begins at `at` ends, told by its brackets; None if they do not close, or a quote does not."""
    depth = 0
    for token in _TOKEN.finditer(text, at):
        mark = token[0]
        if mark in _CLOSING:
            depth += 1
        elif mark in _PAIRS:
            depth -= 1
            if depth <= 0:
                return token.end() if depth == 0 else None
        elif mark in ("'", '"'):
            return None
    return None


def _from_python(token: str) -> str:
    if token in _WORDS:
        return _WORDS[token]
    if len(token) > 1 and (token[0] == "'" or (token[0] == '"' and not _is_json(token))):
        if _NO_ESCAPE.search(token):
            return token  # Python would only warn; JSON will not have it
        try:
            return json.dumps(ast.literal_eval(token), ensure_ascii=False)
        except (ValueError, SyntaxError, MemoryError):
            return token
    return token


def _is_json(token: str) -> bool:
    try:
        json.loads(token, strict=False)
    except ValueError:
        return False
    return True


def _without_stray_commas(tokens: list[str]) -> list[str]:
    """The tokens without a comma before a closing bracket or at the very end of a whole value."""
    kept: list[str] = []
    comma: int | None = None  # where the last one stands in `kept`, if only white space follows it
    depth = 0
    for token in tokens:
        if token in _PAIRS and comma is not None:
            del kept[comma]
        if not token.isspace():
            comma = len(kept) if token == "," else None
        depth += (token in _CLOSING) - (token in _PAIRS)
        kept.append(token)
    if comma is not None and depth == 0:
        del kept[comma:]
    return kept


def _missing(tokens: list[str]) -> str:
    """The brackets that would close what is open at the end; "" if none is open, or they do not match."""
    opened: list[str] = []
    for token in tokens:
        if token in _CLOSING:
            opened.append(token)
        elif token in _PAIRS and (not opened or opened.pop() != _PAIRS[token]):
            return ""
    return "".join(_CLOSING[token] for token in reversed(opened))


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
