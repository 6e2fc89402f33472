"""Rows of any shape made into one kind of example."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from engine.data import shapes
from engine.data.shapes import Shape

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    # LLaMA-Factory's sharegpt files: the model writes the call, the tool gives the observation.
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
}


class Message(Struct, omit_defaults=True):
    """One turn.

    tool_calls    of an answer: [{"name": …, "arguments": {…}}], with "id" where the row has one
    tool_call_id  which call a tool's turn replies to, where the row says it
    name          of the tool that replies, where the row says it
    trained       False for an answer that carries no loss: what a pair replies to, or what a row marks (weight 0)
    """

    role: Role
    content: str
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str = ""
    name: str = ""
    trained: bool = True


class Example(Struct, omit_defaults=True):
    """One row made ready. `row` counts from 1 through all sources of the data set, unusable rows included.

    messages  a conversation; for preferences what both answers reply to; None for plain text
    text      plain text, else None
    chosen    with `rejected`: the turns of the two answers of a preference pair
    label     True for a good answer, False for a bad one (KTO)
    tools     descriptions of the tools that a conversation may call
    """

    row: int
    messages: list[Message] | None
    text: str | None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    label: bool | None = None
    tools: list[dict[str, Any]] | None = None


class Unusable(Exception):
    """Why a row cannot be trained on, as the rest of a sentence that begins with the row's number."""


def converter(shape: Shape, system: str | None) -> Callable[[int, dict[str, Any]], Example]:
    """A function from row number and row to Example; it raises Unusable.

    system  put before each conversation that has no system message of its own
    """
    columns = shape.columns
    build = {
        "alpaca": _alpaca,
        "sharegpt": _conversation,
        "messages": _conversation,
        "prompt-completion": _pair,
        "template": _template,
    }.get(shape.name)

    def convert(number: int, value: dict[str, Any]) -> Example:
        if build is None:
            text = _text(value, columns["text"])
            if not text.strip():
                raise Unusable(f"has no text ({columns['text']})")
            return Example(number, None, text)
        messages = build(value, columns)
        _check(messages)
        if system and not any(message.role == "system" for message in messages):
            messages.insert(0, Message("system", system))
        return Example(number, messages, None)

    return convert


def _check(messages: list[Message]) -> None:
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not any(message.role in ("user", "tool") for message in messages):
        raise Unusable("has no question")
    if not answers:
        raise Unusable("has no answer")
    if not messages[answers[-1]].content.strip():
        raise Unusable("has an empty answer")
    if not any(message.role in ("user", "tool") for message in messages[: answers[-1]]):
        raise Unusable("has no question before its answer")


def _alpaca(value: dict[str, Any], columns: dict[str, str]) -> list[Message]:
    """Instruction and input joined by a line end, as LLaMA-Factory joins them."""
    messages = _system(value, columns)
    history = value.get(columns.get("history", "")) or []
    if not isinstance(history, list):
        raise Unusable("has a history that is not a list of [question, answer]")
    for turn in history:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise Unusable("has a history that is not a list of [question, answer]")
        messages.append(Message("user", _as_text(turn[0], "history")))
        messages.append(Message("assistant", _as_text(turn[1], "history")))
    parts = [_text(value, columns["instruction"]), _text(value, columns["input"]) if "input" in columns else ""]
    question = "\n".join(part for part in parts if part)
    return [*messages, *_exchange(question, columns["instruction"], value, columns["output"])]


def _pair(value: dict[str, Any], columns: dict[str, str]) -> list[Message]:
    messages = _system(value, columns)
    prompt: Any = value.get(columns["prompt"])
    completion: Any = value.get(columns["completion"])
    if shapes.is_conversation(prompt):
        answer = (
            _turns(completion)
            if shapes.is_conversation(completion)
            else [Message("assistant", _answer(value, columns["completion"]))]
        )
        return [*messages, *_turns(prompt), *answer]
    return [*messages, *_exchange(_text(value, columns["prompt"]), columns["prompt"], value, columns["completion"])]


def _exchange(question: str, asked: str, value: dict[str, Any], answer: str) -> list[Message]:
    if not question.strip():
        raise Unusable(f"has no question ({asked})")
    return [Message("user", question), Message("assistant", _answer(value, answer))]


def _answer(value: dict[str, Any], column: str) -> str:
    answer = _text(value, column)
    if not answer.strip():
        raise Unusable(f"has no answer ({column})")
    return answer


def _template(value: dict[str, Any], columns: dict[str, str]) -> list[Message]:
    def fill(role: str) -> str:
        template = columns[role]
        found = {name: _text(value, name.strip()) for name in shapes.COLUMN.findall(template)}
        if not any(text.strip() for text in found.values()):
            names = ", ".join(name.strip() for name in found)
            raise Unusable(f"has no {'answer' if role == 'completion' else 'question'} ({names})")
        return shapes.COLUMN.sub(lambda match: found[match[1]], template)

    return [Message("user", fill("prompt")), Message("assistant", fill("completion"))]


def _conversation(value: dict[str, Any], columns: dict[str, str]) -> list[Message]:
    turns = value.get(columns["conversation"])
    if not isinstance(turns, list) or not turns:
        raise Unusable(f"has no conversation ({columns['conversation']})")
    return [*_system(value, columns), *_turns(turns)]


def _turns(turns: list[Any]) -> list[Message]:
    messages = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Unusable(f"has a turn {number} that is no object with a role")
        name = turn.get("role", turn.get("from"))
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            shown = repr(name)[:40] if isinstance(name, str) else "none"
            raise Unusable(f"has a turn {number} whose role is not known: {shown}")
        content = turn.get("content", turn.get("value"))
        if content in (None, "", []) and turn.get("tool_calls"):
            raise Unusable(f"has a turn {number} that calls tools in a form that is not supported yet (tool_calls)")
        messages.append(Message(role, _content(content, number)))
    return messages


def _content(content: Any, number: int) -> str:
    """A turn's text: a string, or a list of parts of which all must be text."""
    if not isinstance(content, list):
        return _as_text(content, f"turn {number}")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = str(part.get("type"))[:20] if isinstance(part, dict) else "something else"
            raise Unusable(f"has a turn {number} with {kind} in it: only text can be trained on here")
        texts.append(_as_text(text, f"turn {number}"))
    return "".join(texts)


def _system(value: dict[str, Any], columns: dict[str, str]) -> list[Message]:
    text = _text(value, columns["system"]) if "system" in columns else ""
    return [Message("system", text)] if text.strip() else []


def _text(value: dict[str, Any], column: str) -> str:
    return _as_text(value.get(column), column)


def _as_text(value: Any, where: str) -> str:
    """A cell as text. Numbers are taken as they are written; null and NaN (pandas' null) as nothing."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Unusable(f"holds half a character in {where} (a lone surrogate, \\ud800 to \\udfff)") from None
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    kind = {list: "a list", dict: "an object", bool: "true or false"}.get(type(value), f"a {type(value).__name__}")
    raise Unusable(f"has {kind} in {where} where text is needed")
