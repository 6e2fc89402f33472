"""A model's own chat template, rendered as transformers renders it but without transformers.

Templates come with models from strangers: they run in a sandbox that ends (`sandbox`), see plain data only, and every
way in which they fail is one FtuiError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from engine.data.turns import Message
from engine.errors import Exit, FtuiError

_MOST = 2**20  # characters of a template; the longest in use have some 20,000
_PROBE = "probe_that_no_row_names"
_MISTRAL_ID = re.compile(r"[A-Za-z0-9]{9}")


class _Calls(NamedTuple):
    """How a template takes the turn of a call: OpenAI writes arguments as text, most templates want an object."""

    content: str | None
    text_arguments: bool
    short_ids: bool  # each call and its result need an id of nine letters and digits, as Mistral's


class ChatTemplate:
    """A compiled template.

    source  the template's text
    tokens  special tokens by name ("bos_token": "<s>"), which templates write out
    Raises FtuiError(MODEL_UNSUPPORTED) if the template does not compile.
    """

    def __init__(self, source: str, tokens: dict[str, str], where: str = "") -> None:
        from engine.data.sandbox import Environment

        self.source = source
        self._where = where
        self._tokens = tokens
        self._environment = Environment()
        self._environment.start()
        try:
            if len(source) > _MOST:
                raise ValueError(f"it has {len(source):,} characters")
            self._template = self._environment.from_string(source)
        except Exception as error:  # a stranger's code: whatever it raises is one kind of failure here
            raise self._error("the model's chat template does not compile", error) from None

    def render(
        self, messages: Sequence[Message], *, tools: list[dict[str, Any]] | None = None, generate: bool = False
    ) -> str:
        """The conversation as text; with `generate`, up to where the model's answer begins.

        Raises FtuiError(MODEL_UNSUPPORTED) when the template refuses the conversation, fails or does not end.
        """
        if any(message.tool_calls or message.role == "tool" for message in messages):
            return self._render(_with_calls(messages, self._calls or _Calls("", False, False)), tools, generate)
        return self._render([{"role": one.role, "content": one.content} for one in messages], tools, generate)

    @cached_property
    def shows_tools(self) -> bool:
        """True if the model is told what its tools are. Found by trying."""
        tools = [{"type": "function", "function": {"name": _PROBE, "description": "-", "parameters": {}}}]
        try:
            return _PROBE in self._render([{"role": "user", "content": "-"}], tools, True)
        except FtuiError:
            return False

    @property
    def writes_calls(self) -> bool:
        """True if the template has words of its own for the tool calls of an answer. Found by trying."""
        return self._calls is not None

    @cached_property
    def _calls(self) -> _Calls | None:
        call = {"name": _PROBE, "arguments": {_PROBE + "_too": 1}, "id": "call_as_openai_writes_them"}
        messages = [
            Message("user", "-"),
            Message("assistant", "", [call]),
            Message("tool", "-", None, "call_as_openai_writes_them", _PROBE),
            Message("assistant", "-"),
        ]
        for form in map(_Calls._make, product(("", None), (False, True), (False, True))):
            try:
                text = self._render(_with_calls(messages, form), None, False)
            except FtuiError:
                continue
            if f"{_PROBE}_too" in text and _PROBE in text.replace(f"{_PROBE}_too", ""):
                return form
        return None

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, generate: bool) -> str:
        self._environment.start()
        try:
            return self._template.render(
                messages=messages, tools=tools, documents=None, add_generation_prompt=generate, **self._tokens
            )
        except Exception as error:  # as above
            raise self._error("the model's chat template refuses a conversation", error) from None

    def _error(self, cause: str, error: BaseException) -> FtuiError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return FtuiError(
            Exit.MODEL_UNSUPPORTED, f"{cause}: {reason}", self._where, "mend the rows it names, or choose another model"
        )


def find(folder: Path, config: dict[str, Any]) -> str | None:
    """The text of the template that transformers would use: chat_template.jinja, else the tokenizer's configuration.

    A list of named templates gives the one named "default". None if the model has no template.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FtuiError(Exit.MODEL_UNSUPPORTED, "the chat template cannot be read", f"{file}: {error}") from None
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template if isinstance(t, dict) and {"name", "template"} <= t.keys()}
        template = named.get("default")
    return template if isinstance(template, str) else None


def looked_for(source: str) -> set[str]:
    """What a template searches texts for, as "</think>": constants that it compares with or hands to a call or filter.

    Plain words are left out, which are roles and keys, unless they are compared with a content. A template that does
    not compile looks for nothing.
    """
    from jinja2 import TemplateSyntaxError, nodes

    from engine.data.sandbox import Environment

    try:
        tree = Environment().parse(source)
    except TemplateSyntaxError:
        return set()
    found: set[str] = set()
    for node in tree.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Test)):
        inside = [one.value for one in node.find_all(nodes.Const) if isinstance(one.value, str) and one.value.strip()]
        about_content = any(one.attr == "content" for one in node.find_all(nodes.Getattr)) or "content" in inside
        about_content = about_content or any("content" in one.name for one in node.find_all(nodes.Name))
        found |= {word for word in inside if (about_content and word != "content") or not word.isidentifier()}
    return found


def _with_calls(messages: Sequence[Message], form: _Calls) -> list[dict[str, Any]]:
    """The turns as OpenAI and transformers have them."""
    found: list[dict[str, Any]] = []
    given: dict[str, str] = {}  # id in the row -> id in the template
    waiting: list[str] = []  # ids of calls without a result so far
    count = 0
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["content"] = message.content or form.content
            turn["tool_calls"] = calls = []
            waiting = []
            for call in message.tool_calls:
                arguments = call["arguments"]
                arguments = json.dumps(arguments, ensure_ascii=False) if form.text_arguments else arguments
                function = {"name": call["name"], "arguments": arguments}
                name = own = call.get("id", "")
                if form.short_ids and not _MISTRAL_ID.fullmatch(own):
                    count += 1
                    name = f"call{count:05}"
                if own:
                    given[own] = name
                waiting.append(name)
                calls.append({"type": "function", "function": function} | ({"id": name} if name else {}))
        elif message.role == "tool":
            name = given.get(message.tool_call_id, message.tool_call_id)
            if form.short_ids and not name and waiting:
                name = waiting[0]
            if name in waiting:
                waiting.remove(name)
            turn |= {"name": message.name} if message.name else {}
            turn |= {"tool_call_id": name} if name else {}
        found.append(turn)
    return found
