"""The turns of a conversation: who speaks, what is said, which tools are called; every spelling in use made one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]

# Who speaks, by all the names in use -> a role, or "call": in sharegpt files as LLaMA-Factory has them the model writes
# a call as a turn of its own, which the tool answers with an observation.
_SPEAKERS: dict[str, Role | Literal["call"]] = {
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
    "function_call": "call",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
}
_TAGS: dict[str, Role | Literal["call"]] = {
    "system_tag": "system",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "function_tag": "call",
    "observation_tag": "tool",
}
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")  # how hh-rlhf writes a conversation into one text


class Message(Struct, omit_defaults=True, gc=False):
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


class Unusable(Exception):
    """Why a row cannot be trained on, as the rest of a sentence that begins with the row's number."""


class Turns:
    """Reads the turns of one data set.

    tags  LLaMA-Factory's names for keys and speakers: role_tag, content_tag, user_tag, assistant_tag, observation_tag,
          function_tag, system_tag
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._who, self._what = tags.get("role_tag", "role"), tags.get("content_tag", "content")
        self._speakers = _SPEAKERS | {tags[tag]: role for tag, role in _TAGS.items() if tag in tags}

    def are(self, value: Any) -> bool:
        """True for a list of turns."""
        return isinstance(value, list) and bool(value) and all(self.one(turn) for turn in value)

    def one(self, turn: Any) -> bool:
        """True for an object with a speaker."""
        return isinstance(turn, dict) and (self._who in turn or "role" in turn or "from" in turn)

    def speaker(self, turn: dict[str, Any]) -> str | None:
        """Who speaks: a role, "call", or None for a name that is not known."""
        name = turn.get(self._who) or turn.get("role") or turn.get("from")
        return (self._speakers.get(name) or self._speakers.get(name.lower())) if isinstance(name, str) else None

    def read(self, turns: list[Any]) -> list[Message]:
        """The turns as messages. Raises Unusable."""
        messages = []
        who, what, speakers = self._who, self._what, self._speakers
        if turns and type(turns[0]) is dict and who not in turns[0]:
            who, what = "from", "value"
        for number, turn in enumerate(turns, 1):
            if type(turn) is dict and len(turn) == 2:  # a speaker and a text, as nearly all turns are
                name, text = turn.get(who), turn.get(what)
                role = speakers.get(name) if type(name) is str else None
                if role is not None and role != "call" and type(text) is str and (text.isascii() or _whole(text)):
                    messages.append(Message(role, text))
                    continue
            messages.append(self._message(turn, number))
        return messages

    def _message(self, turn: Any, number: int) -> Message:
        if not isinstance(turn, dict):
            raise Unusable(f"has a turn {number} that is no object with a role")
        role = self.speaker(turn)
        if role is None:
            name = turn.get(self._who) or turn.get("role") or turn.get("from")
            shown = repr(name)[:40] if isinstance(name, str) else "none"
            raise Unusable(f"has a turn {number} whose role is not known: {shown}")
        content = next((turn[key] for key in (self._what, "content", "value") if key in turn), None)
        if role == "call":
            return Message("assistant", "", _calls(loaded(content), number))
        text = _content(content, number)
        if role == "assistant":
            given = turn.get("tool_calls") or turn.get("function_call")
            trained = turn.get("weight") in (None, True)
            return Message("assistant", text, _calls(given, number) if given else None, trained=trained)
        if role == "tool":
            call, name = turn.get("tool_call_id"), turn.get("name")
            return Message("tool", text, None, as_text(call, "tool_call_id"), as_text(name, "name"))
        return Message("user" if role == "user" else "system", text)


def spoken(message: Message) -> Message:
    """A turn whose tool calls are part of its text, as sharegpt files write them: for templates without such calls."""
    if not message.tool_calls:
        return message
    calls = [{"name": call["name"], "arguments": call["arguments"]} for call in message.tool_calls]
    written = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    text = f"{message.content}\n{written}" if message.content.strip() else written
    return Message(message.role, text, trained=message.trained)


def transcript(text: str) -> list[Message] | None:
    """The turns of a text that marks them as hh-rlhf does ("\\n\\nHuman: …\\n\\nAssistant: …"), else None."""
    parts = _TRANSCRIPT.split(text)
    if len(parts) < 3 or parts[0].strip():
        return None
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [Message("user" if who == "Human" else "assistant", said.strip()) for who, said in pairs]


def tools(value: Any) -> list[dict[str, Any]] | None:
    """Descriptions of tools, from a list or from JSON text, as templates take them. Raises Unusable."""
    value = loaded(value)
    if value in (None, "", [], {}) or value != value:
        return None
    found = []
    for tool in map(loaded, value if isinstance(value, list) else [value]):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable("has tools that are no JSON list of objects with a name")
        found.append(tool if "function" in tool else {"type": "function", "function": tool})
    _plain(found, "the tools")
    return found


def loaded(value: Any) -> Any:
    """A cell whose list or object was written as JSON text, as CSV files have it; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_text(value: Any, where: str) -> str:
    """A cell as text. Numbers are taken as they are written; null and NaN (pandas' null) as nothing. Raises Unusable."""
    if type(value) is str:
        if not value.isascii() and not _whole(value):
            raise Unusable(f"holds half a character in {where} (a lone surrogate, \\ud800 to \\udfff)")
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    kind = {list: "a list", dict: "an object", bool: "true or false"}.get(type(value), f"a {type(value).__name__}")
    raise Unusable(f"has {kind} in {where} where text is needed")


def _whole(text: str) -> bool:
    """False for text with half a character, which JSON can say and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(content: Any, number: int) -> str:
    """A turn's text: a string, or a list of parts of which all must be text."""
    if not isinstance(content, list):
        return as_text(content, f"turn {number}")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = str(part.get("type"))[:20] if isinstance(part, dict) else "something else"
            raise Unusable(f"has a turn {number} with {kind} in it: only text can be trained on here")
        texts.append(as_text(text, f"turn {number}"))
    return "".join(texts)


def _calls(given: Any, number: int) -> list[dict[str, Any]]:
    """Tool calls as `Message` has them: of OpenAI's objects, of plain name and arguments, one or several."""
    found = []
    for call in given if isinstance(given, list) else [given]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable(f"has a turn {number} with a tool call that is no object with a name and arguments")
        arguments = function.get("arguments", function.get("parameters"))
        arguments = loaded(arguments) if arguments not in (None, "") else {}
        if not isinstance(arguments, dict):
            raise Unusable(f"has a turn {number} with a tool call whose arguments are no JSON object")
        one = {"name": function["name"], "arguments": arguments}
        if isinstance(name := call.get("id"), str) and name:
            one["id"] = name
        found.append(one)
    if not found:
        raise Unusable(f"has a turn {number} that calls no tool")
    _plain(found, f"turn {number}")
    return found


def _plain(value: Any, where: str) -> None:
    """Raises Unusable unless `value` can be written as JSON and kept: whole characters, numbers of up to 64 bits."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
        msgspec.msgpack.encode(value)
    except UnicodeEncodeError:
        raise Unusable(f"holds half a character in {where} (a lone surrogate, \\ud800 to \\udfff)") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unusable(f"has something in {where} that JSON cannot hold: {str(error)[:80]}") from None
