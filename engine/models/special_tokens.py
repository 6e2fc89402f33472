"""What a model's tokenizer has special tokens for, read from its files without loading it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.models.files import JSON_LIMIT, json_object
from engine.models.shape import Shape

_MASK = re.compile(rb'"(?:\[MASK\]|<mask>)"')
_SENTINEL = re.compile(rb'"(?:\xe2\x96\x81|\\u2581)?<extra_id_(\d+)>"')


class _AddedToken(Struct):
    id: int
    content: str


class _TokenizerFile(Struct):
    """The one part of tokenizer.json that is needed here; the rest is skipped while parsing."""

    added_tokens: list[_AddedToken] = field(default_factory=list)


def ends(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None, bool]:
    """(end token, pad token, has a chat template), each from wherever this model keeps it."""
    settings = json_object(folder / "tokenizer_config.json") or {}
    special = json_object(folder / "special_tokens_map.json") or {}
    template = bool(settings.get("chat_template")) or any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")
    )
    added: dict[int, str] | None = None
    found: list[str | None] = []
    for key in ("eos_token", "pad_token"):
        token = settings.get(key) or special.get(key)
        if isinstance(token, Mapping):  # an AddedToken written out
            token = token.get("content")
        number = config.get(f"{key}_id")
        if isinstance(number, list):  # several ways to end; the first is the one that training teaches
            number = number[0] if number else None
        if not isinstance(token, str) and isinstance(number, int):
            if added is None:
                added = _added_tokens(folder / "tokenizer.json")
            token = added.get(number)
        found.append(token if isinstance(token, str) else None)
    return found[0], found[1], template


def gaps(folder: Path, shape: Shape) -> int:
    """How many tokens of the tokenizer can stand for a gap: its mask token, or its sentinels (of mT5 they are no added
    tokens but ordinary pieces, so that all of the file is looked through)."""
    if shape == "causal":
        return 0
    try:
        with (folder / "tokenizer.json").open("rb") as file:
            raw = file.read(JSON_LIMIT)
    except OSError:
        return 0
    return len(set(_SENTINEL.findall(raw))) if shape == "seq2seq" else int(_MASK.search(raw) is not None)


def _added_tokens(path: Path) -> dict[int, str]:
    try:
        with path.open("rb") as file:
            parsed = msgspec.json.decode(file.read(JSON_LIMIT), type=_TokenizerFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # the tokenizer itself will say what is wrong with its file, when it is loaded
    return {token.id: token.content for token in parsed.added_tokens}
