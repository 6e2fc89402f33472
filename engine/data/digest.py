"""One number for what a data set teaches, whatever file it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.data.convert import Example, Message

_ENOUGH = 1 << 16  # bytes hashed at once
_encoder = msgspec.json.Encoder(order="sorted")


class Digest:
    """SHA-256 over examples as they will be trained on: roles, texts and their order.

    Each text is written with its length before it, so that no two data sets write the same bytes.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pending = bytearray()

    def add(self, example: Example) -> None:
        if example.messages is None:
            parts = [("text", example.text or "")]
        else:
            parts = _turns(example.messages)
        if example.chosen is not None:
            parts += _turns(example.chosen, "chosen ")
        if example.rejected is not None:
            parts += _turns(example.rejected, "rejected ")
        if example.label is not None:
            parts.append(("label", "good" if example.label else "bad"))
        if example.tools is not None:
            parts.append(("tools", _json(example.tools)))
        self._pending += b"%d\n" % len(parts)
        for role, text in parts:
            raw = text.encode("utf-8", "surrogatepass")
            self._pending += b"%s %d\n" % (role.encode(), len(raw))
            self._pending += raw
        if len(self._pending) > _ENOUGH:
            self._hash.update(self._pending)
            self._pending.clear()

    def hexdigest(self) -> str:
        whole = self._hash.copy()
        whole.update(self._pending)
        return whole.hexdigest()


def _turns(messages: Sequence[Message], kind: str = "") -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    for message in messages:
        parts.append((kind + message.role, message.content))
        if not message.trained:
            parts.append(("untrained", ""))
        if message.tool_calls:
            parts.append(("tool_calls", _json(message.tool_calls)))
        if message.tool_call_id or message.name:
            parts.append(("replies", _json([message.tool_call_id, message.name])))
    return parts


def _json(value: Any) -> str:
    """The same text for the same value, in whatever order its names come."""
    return _encoder.encode(value).decode()
