"""Preference pairs, rated answers and prompts without answers: what the answers reply to is context, and not trained."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data import shapes
from engine.data.convert import Example, Message, Unusable, converter
from engine.errors import Exit, FtuiError

Q, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Yes"), ("assistant", "No"))
)
EARLIER = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]


def read(row: dict[str, Any], columns: dict[str, str] | None = None, system: str | None = None) -> Example:
    return converter(shapes.detect([row], columns), system)(1, row)


def said(messages: list[Message] | None) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages or []]


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, {"prompt"}),
        ({"question": "Hi", "chosen": "Yes", "rejected": "No", "score": 3}, {"prompt"}),
        ({"instruction": "Hi", "input": "", "chosen": "Yes", "rejected": "No"}, {"prompt", "input"}),
        ({"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]}, {"prompt"}),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Yes"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            {"conversation"},
        ),
        ({"messages": [Q], "chosen": "Yes", "rejected": "No"}, {"conversation"}),
        ({"chosen": [Q, GOOD], "rejected": [Q, BAD]}, set()),
        ({"chosen": json.dumps([Q, GOOD]), "rejected": json.dumps([Q, BAD])}, set()),
        ({"prompt": "Hi", "chosen": [Q, GOOD], "rejected": [Q, BAD], "messages": [Q, GOOD]}, set()),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}, set()),
    ],
)
def test_pairs_in_every_spelling(row: dict[str, Any], roles: set[str]) -> None:
    shape = shapes.detect([row])
    assert (shape.name, shape.stage) == ("preference", "dpo")
    assert shape.columns.keys() == roles | {"chosen", "rejected"}
    example = read(row, system="Be kind.")
    assert said(example.messages) == [("system", "Be kind."), ("user", "Hi")]
    assert (said(example.chosen), said(example.rejected)) == ([("assistant", "Yes")], [("assistant", "No")])


def test_implicit_prompts_end_with_the_last_common_turn() -> None:
    example = read({"chosen": [*EARLIER, Q, GOOD], "rejected": [*EARLIER, Q, BAD]})
    assert said(example.messages) == [("user", "One?"), ("assistant", "Two."), ("user", "Hi")]
    assert [message.trained for message in example.messages or [] if message.role == "assistant"] == [False]
    assert said(example.chosen) == [("assistant", "Yes")]
    # They part at a question, so the answer before it is where two answers begin.
    example = read({"chosen": [*EARLIER, Q, GOOD], "rejected": [*EARLIER, {**Q, "content": "Ho"}, BAD]})
    assert said(example.messages) == [("user", "One?")]
    assert said(example.rejected) == [("assistant", "Two."), ("user", "Ho"), ("assistant", "No")]
    # Equal ones keep their last answer, for the findings to tell.
    example = read({"chosen": [Q, GOOD], "rejected": [Q, GOOD]})
    assert said(example.chosen) == said(example.rejected) == [("assistant", "Yes")]


def test_a_prompt_that_the_answers_repeat_is_taken_once() -> None:
    example = read({"prompt": "Hi", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, {"prompt": "prompt"})
    assert said(example.messages) == [("user", "Hi")] and said(example.chosen) == [("assistant", "Yes")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": [{**Q, "content": "Ho"}, GOOD], "rejected": [Q, BAD]}, "different questions"),
        ({"chosen": [Q], "rejected": [Q, BAD]}, "different questions"),
        ({"chosen": "", "rejected": [Q, BAD]}, "different questions"),
        ({"chosen": [Q, {**GOOD, "content": " "}], "rejected": [Q, BAD]}, r"no answer \(chosen\)"),
        ({"chosen": [Q, GOOD], "rejected": [Q, BAD, {"role": "x"}]}, "turn 3"),
        ({"chosen": [Q, GOOD], "rejected": {}}, "different questions|no answer|role"),
    ],
)
def test_pairs_that_cannot_be_used_are_named(row: dict[str, Any], reason: str) -> None:
    shape = shapes.detect([{"chosen": [Q, GOOD], "rejected": [Q, BAD]}])
    with pytest.raises(Unusable, match=reason):
        converter(shape, None)(1, row)


@pytest.mark.parametrize("chosen", ["", " ", None, [], {}])
def test_a_pair_without_one_of_its_answers_is_named(chosen: Any) -> None:
    shape = shapes.detect([{"prompt": "Hi", "chosen": "Yes", "rejected": "No"}])
    with pytest.raises(Unusable, match=r"chosen|object"):
        converter(shape, None)(1, {"prompt": "Hi", "chosen": chosen, "rejected": "No"})


def test_pairs_without_a_prompt_are_refused() -> None:
    with pytest.raises(FtuiError) as caught:
        shapes.detect([{"chosen": "Yes", "rejected": "No"}])
    assert caught.value.code == Exit.DATA_SHAPE and "what they answer" in caught.value.cause


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"messages": [*EARLIER, Q, GOOD], "label": True}, True),
        ({"conversations": [*EARLIER, Q, GOOD], "kto_tag": 0}, False),
        ({"prompt": [*EARLIER, Q], "completion": "Yes", "label": "False"}, False),
        ({"instruction": "Hi", "history": [["One?", "Two."]], "output": "Yes", "desirable": 1.0}, True),
    ],
)
def test_rated_answers(row: dict[str, Any], label: bool) -> None:
    shape = shapes.detect([row])
    assert (shape.name, shape.stage) == ("rated", "kto")
    example = read(row)
    assert example.label is label
    assert said(example.messages) == [*said_of(EARLIER), ("user", "Hi"), ("assistant", "Yes")]
    trained = [message.trained for message in example.messages or [] if message.role == "assistant"]
    assert trained == [False, True], "the label is about the answer to the last question"


def said_of(turns: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns]


def test_ratings_that_are_none() -> None:
    convert = converter(shapes.detect([{"prompt": "Hi", "completion": "Yes", "label": True}]), None)
    for label in (None, "perhaps", 2, [True], float("nan")):
        with pytest.raises(Unusable, match="rating"):
            convert(1, {"prompt": "Hi", "completion": "Yes", "label": label})


def test_a_column_of_classes_is_no_rating() -> None:
    assert shapes.detect([{"prompt": "Hi", "completion": "Yes", "label": 1}]).name == "prompt-completion"
    assert shapes.detect([{"text": "Hi", "label": True}]).name == "text"


@pytest.mark.parametrize(
    "row", [{"prompt": "Hi"}, {"question": "Hi", "level": 3}, {"instruction": "Hi"}, {"messages": [Q]}, {"prompt": [Q]}]
)
def test_prompts_without_answers(row: dict[str, Any]) -> None:
    shape = shapes.detect([row])
    assert (shape.name, shape.stage) == ("prompt", "grpo")
    assert said(read(row).messages) == [("user", "Hi")]


def test_conversations_that_end_with_a_question_are_prompts() -> None:
    row = {"messages": [*EARLIER, Q]}
    shape = shapes.detect([row])
    assert shape.name == "prompt" and "say that messages is the conversation" in shape.notes[0]
    assert not any(m.trained for m in read(row).messages or [] if m.role == "assistant")
    with pytest.raises(Unusable, match="no question at its end"):
        converter(shape, None)(1, {"messages": EARLIER})
    assert shapes.detect([row], {"conversation": "messages"}).stage == "sft"
    assert shapes.detect([row, {"messages": EARLIER}]).stage == "sft", "some are answered"
