"""Turns in every spelling: tool calls, results, parts, tags; what a row says that cannot be read is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data import shapes
from engine.data.convert import Example, Message, Unusable, converter

TIME = {"name": "time", "description": "The time", "parameters": {"type": "object", "properties": {}}}
CALL = {"name": "time", "arguments": {"zone": "Köln"}}
ASK = {"role": "user", "content": "Time?"}


def read(row: dict[str, Any], **options: Any) -> Example:
    shape = shapes.detect([row], **options)
    return converter(shape, None)(1, row)


def messages(row: dict[str, Any], **options: Any) -> list[Message]:
    return read(row, **options).messages or []


@pytest.mark.parametrize(
    "turn",
    [
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "function_call", "value": json.dumps([CALL])},
        {"from": "function_call", "value": CALL},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "time", "arguments": '{"zone": "Köln"}'}}],
            "content": "",
        },
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "function_call": CALL | {"arguments": json.dumps(CALL["arguments"])}},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "time", "parameters": {"zone": "Köln"}}]},
    ],
)
def test_tool_calls_in_every_spelling(turn: dict[str, Any]) -> None:
    ask = ASK if "role" in turn else {"from": "human", "value": "Time?"}
    found = messages({"conversations": [ask, turn]})
    assert found == [Message("user", "Time?"), Message("assistant", "", [CALL])]


def test_calls_and_results_keep_what_joins_them() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": ""}}
    found = messages(
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
                {"role": "tool", "content": "12", "tool_call_id": "call_1", "name": "time"},
                {"role": "assistant", "content": "Noon.", "tool_calls": None},
            ]
        }
    )
    assert found[1:] == [
        Message("assistant", "Let me look.", [{"name": "time", "arguments": {}, "id": "call_1"}]),
        Message("tool", "12", None, "call_1", "time"),
        Message("assistant", "Noon."),
    ]


@pytest.mark.parametrize("tools", [[TIME], json.dumps([TIME]), TIME, [{"type": "function", "function": TIME}]])
def test_tools_in_every_spelling(tools: Any) -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": "Noon."}], "tools": tools}
    assert shapes.detect([row]).columns == {"conversation": "messages", "tools": "tools"}
    assert read(row).tools == [{"type": "function", "function": TIME}]
    alpaca = {"instruction": "Time?", "output": "Noon.", "tools": tools}
    assert read(alpaca).tools == [{"type": "function", "function": TIME}]


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_no_tools(tools: Any) -> None:
    convert = converter(shapes.Shape("messages", {"conversation": "messages", "tools": "tools"}), None)
    row = {"messages": [ASK, {"role": "assistant", "content": "Noon."}], "tools": tools}
    assert convert(1, row).tools is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tools": "not JSON"}, "tools"),
        ({"tools": [{"parameters": {}}]}, "objects with a name"),
        ({"tools": [{"name": "\ud800"}]}, "half a character"),
        ({"tools": [{"name": "f", "most": 10**30}]}, "JSON cannot hold"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]}, "arguments"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}]}, "arguments"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"arguments": {}}]}]}, "turn 2 with a tool call"),
        ({"messages": [ASK, {"role": "function_call", "content": "time()"}]}, "turn 2 with a tool call"),
        ({"messages": [ASK, {"role": "function_call", "content": "[]"}]}, "calls no tool"),
        ({"messages": [ASK, {"role": "assistant", "content": {"a": 1}}]}, "an object in turn 2"),
    ],
)
def test_calls_and_tools_that_cannot_be_read_are_named(row: dict[str, Any], reason: str) -> None:
    convert = converter(shapes.Shape("messages", {"conversation": "messages", "tools": "tools"}), None)
    with pytest.raises(Unusable, match=reason):
        convert(1, {"messages": [ASK, {"role": "assistant", "content": "Noon."}]} | row)


def test_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "T"}, {"type": "text", "text": "ime?"}]
    found = messages(
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": ["No", "on."]}]}
    )
    assert [message.content for message in found] == ["Time?", "Noon."]


def test_an_answer_of_weight_0_is_context() -> None:
    wrong, right = ({"role": "assistant", "content": c, "weight": w} for c, w in (("One.", 0), ("Noon.", 1)))
    found = messages({"messages": [ASK, wrong, ASK, right]})
    assert [message.trained for message in found] == [True, False, True, True]


def test_keys_and_speakers_by_tags() -> None:
    tags = {
        "role_tag": "who",
        "content_tag": "said",
        "user_tag": "Kunde",
        "assistant_tag": "Berater",
        "function_tag": "Abruf",
        "observation_tag": "Antwort",
        "system_tag": "Regel",
    }
    said = [
        ("Regel", "Kind."),
        ("Kunde", "Time?"),
        ("Abruf", json.dumps(CALL)),
        ("Antwort", "12"),
        ("Berater", "Noon."),
    ]
    row = {"talk": [{"who": who, "said": text} for who, text in said]}
    shape = shapes.detect([row], {"messages": "talk"}, tags)
    assert shape.columns == {"conversation": "talk"} and shape.tags == tags
    assert converter(shape, None)(1, row).messages == [
        Message("system", "Kind."),
        Message("user", "Time?"),
        Message("assistant", "", [CALL]),
        Message("tool", "12"),
        Message("assistant", "Noon."),
    ]


def test_a_conversation_written_as_json_text() -> None:
    talk = [ASK, {"role": "assistant", "content": "Noon."}]
    assert messages({"messages": json.dumps(talk)}) == messages({"messages": talk})


def test_keys_that_other_rows_have_do_not_disturb() -> None:
    """Arrow gives every turn all keys, with null where it has none."""
    empty = {"from": None, "value": None, "tool_calls": None, "name": None, "tool_call_id": None, "weight": None}
    found = messages({"messages": [empty | ASK, empty | {"role": "assistant", "content": "Noon."}]})
    assert found == [Message("user", "Time?"), Message("assistant", "Noon.")]
