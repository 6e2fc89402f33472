"""Rows of every shape become the same kind of example; what cannot be used is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset
from engine.data.dataset import Dataset
from engine.errors import Exit, FtuiError
from engine.recipe import Data


def load(folder: Path, rows: list[Any], **options: Any) -> Dataset:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return dataset.load(Data(source=str(path), **options))


def turns(data: Dataset, at: int = 0) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in data.examples[at].messages or []]


ASK = [("user", "Hi"), ("assistant", "Hello.")]


@pytest.mark.parametrize(
    ("shape", "row", "expected"),
    [
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello."}, ASK),
        (
            "alpaca",
            {"instruction": "Add", "input": "1 and 2", "output": 3},
            [("user", "Add\n1 and 2"), ("assistant", "3")],
        ),
        (
            "alpaca",
            {"instruction": "Hi", "output": "Hello.", "system": "Be kind.", "history": [["One?", "Two."]]},
            [("system", "Be kind."), ("user", "One?"), ("assistant", "Two."), *ASK],
        ),
        ("alpaca", {"instruction": "Hi", "context": "", "response": "Hello.", "category": "x"}, ASK),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}, ASK),
        (
            "sharegpt",
            {
                "system": "Use tools.",
                "conversations": [
                    {"from": "human", "value": "Time?"},
                    {"from": "function_call", "value": '{"name": "time"}'},
                    {"from": "observation", "value": "12"},
                    {"from": "gpt", "value": "Noon."},
                ],
            },
            [("system", "Use tools."), ("user", "Time?"), ("assistant", ""), ("tool", "12"), ("assistant", "Noon.")],
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
            ASK,
        ),
        (
            "messages",
            {
                "conversations": [
                    {"role": "developer", "content": "Be kind."},
                    {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
                    {"role": "assistant", "content": "Hello."},
                ]
            },
            [("system", "Be kind."), *ASK],
        ),
        ("prompt-completion", {"prompt": "Hi", "completion": "Hello."}, ASK),
        ("prompt-completion", {"Question": "Hi", "Answer": "Hello.", "id": 7}, ASK),
        ("prompt-completion", {"query": "Hi", "response": "Hello."}, ASK),
        (
            "prompt-completion",
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello."}]},
            ASK,
        ),
    ],
)
def test_shapes(tmp_path: Path, shape: str, row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    data = load(tmp_path, [row])
    assert data.shape.name == shape
    assert turns(data) == expected


def test_plain_text(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "Once upon a time"}, {"text": "The end"}])
    assert data.shape.name == "text"
    assert [(example.messages, example.text) for example in data.examples] == [
        (None, "Once upon a time"),
        (None, "The end"),
    ]


def test_a_history_of_turns_or_as_json_text(tmp_path: Path) -> None:
    earlier = [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Two."}]
    expected = [("user", "One?"), ("assistant", "Two."), *ASK]
    for history in (earlier, json.dumps(earlier), '[["One?", "Two."]]'):
        data = load(tmp_path, [{"instruction": "Hi", "output": "Hello.", "history": history}])
        assert data.shape.name == "alpaca" and turns(data) == expected
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, [{"instruction": "Hi", "output": "Hello.", "history": ["One?"]}])
    assert "[question, answer]" in caught.value.cause


def test_stages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    for row, name, stage in (
        ({"instruction": "Hi", "output": "Hello."}, "alpaca", "sft"),
        ({"messages": talk}, "messages", "sft"),
        ({"text": "Hi"}, "text", "pretraining"),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}, "preference", "dpo"),
        ({"messages": talk, "label": False}, "rated", "kto"),
        ({"prompt": "Hi"}, "prompt", "grpo"),
    ):
        shape = load(tmp_path, [row]).shape
        assert (shape.name, shape.stage) == (name, stage)


def test_a_summary_is_found_and_a_template_suggested(tmp_path: Path) -> None:
    for asked, answered in (("dialogue", "summary"), ("article", "highlights"), ("text", "summary")):
        data = load(tmp_path, [{"id": "1", asked: "A: x B: y", answered: "They talk."}])
        assert data.shape.name == "prompt-completion" and data.shape.ignored == ["id"]
        assert turns(data) == [("user", "A: x B: y"), ("assistant", "They talk.")]
        assert f"--prompt 'Summarise this {asked}: {{{asked}}}' --completion '{{{answered}}}'" in data.shape.notes[0]
    assert load(tmp_path, [{"text": "A"}]).shape.notes == []


def test_columns_that_match_nothing_are_listed(tmp_path: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, [{"said": "A long story about x", "meant": "x", "n": 1}])
    assert caught.value.code == Exit.DATA_SHAPE and "said, meant, n" in caught.value.cause
    assert "--prompt '{said}' --completion '{meant}'" in caught.value.next_step


ASKED = ["Where is my parcel?", "I cannot log in.", "How do I pay?", "May I return it?", "Is it safe?", "Who are you?"]
TOLD = [f"{asked} That is easily said, and here it is at length." for asked in ASKED]


def table(**columns: Any) -> list[dict[str, Any]]:
    """Rows out of columns; a text stands in all of them."""
    return [{k: v if isinstance(v, str) else v[at] for k, v in columns.items()} for at in range(len(ASKED))]


@pytest.mark.parametrize(
    ("rows", "prompt", "completion"),
    [
        (table(ticket_id="T-1", customer_msg=ASKED, agent_reply=TOLD, category="post"), "customer_msg", "agent_reply"),
        (table(agent_reply=TOLD, category="post", customer_msg=ASKED), "customer_msg", "agent_reply"),
        (table(userInstruction=ASKED, modelOutput=TOLD), "userInstruction", "modelOutput"),
        (table(modelAnswers=ASKED, theirs=TOLD), "theirs", "modelAnswers"),
        (table(story=TOLD, short_summary=ASKED), "story", "short_summary"),
        (table(frage=ASKED, antwort=TOLD, kategorie="post"), "frage", "antwort"),
        (table(kategorie="the post", frage=ASKED, antwort=TOLD), "frage", "antwort"),
        (
            table(id=list("abcdef"), when="2026-01-03 10:00", mail="ada@b.org", frage=ASKED, antwort=TOLD),
            "frage",
            "antwort",
        ),
        (table(n=[1, 2, 3, 4, 5, 6], review=TOLD, sentiment_label=["good", "bad"] * 3), "review", "sentiment_label"),
        (table(answer_id="A-1", answer_type="short", theirs=ASKED, ours=TOLD), "theirs", "ours"),
    ],
)
def test_the_hint_says_likely_which_column_is_which(
    rows: list[dict[str, Any]], prompt: str, completion: str, tmp_path: Path
) -> None:
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, rows)
    assert caught.value.next_step == f"say which is which: --prompt '{{{prompt}}}' --completion '{{{completion}}}'"


def test_no_columns_are_guessed_where_none_hold_two_texts(tmp_path: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, table(ticket="T-1", count="12", frage=ASKED, category="post"))
    assert caught.value.next_step == "rename the columns to prompt and completion"


GOOD = {"instruction": "Hi", "output": "Hello."}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"instruction": "Hi"}, "no answer (output)"),
        ({"instruction": "Hi", "output": None}, "no answer (output)"),
        ({"instruction": "Hi", "output": " \n"}, "no answer (output)"),
        ({"instruction": "", "output": "Hello."}, "no question"),
        ({"instruction": "Hi", "output": ["Hello."]}, "a list in output"),
        ({"instruction": "Hi", "output": True}, "true or false in output"),
        ({"instruction": "Hi", "output": float("nan")}, "no answer (output)"),
        ({"instruction": "Hi", "output": "half \ud800"}, "half a character"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named_or_skipped(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    rows = [GOOD, GOOD, bad, GOOD]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(FtuiError) as caught:
        dataset.load(Data(source=str(path)))
    assert caught.value.code == Exit.DATA_ROW
    assert "row 3" in caught.value.cause and reason in caught.value.cause
    assert caught.value.where.endswith("rows.jsonl, line 3")
    data = dataset.load(Data(source=str(path), on_bad_row="skip"))
    assert [example.row for example in data.examples] == [1, 2, 4]
    assert [(row.row, row.line, row.code) for row in data.skipped] == [(3, 3, Exit.DATA_ROW)]


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        ([{"role": "user", "content": "Hi"}], "no answer"),
        ([{"role": "assistant", "content": "Hello."}], "no question"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}], "an empty answer"),
        ([{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi"}], "no question before"),
        ([{"role": "user", "content": "Hi"}, {"role": "wizard", "content": "Hello."}], "'wizard'"),
        ([{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "A cat."}], "image"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [{}]}], "tool call"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No.", "weight": 0}], "weight 0"),
        ("Hi", "no conversation"),
        (["Hi"], "no object"),
    ],
)
def test_conversations_that_cannot_be_trained_on(tmp_path: Path, conversation: Any, reason: str) -> None:
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, [{"messages": good}, {"messages": conversation}])
    assert caught.value.code == Exit.DATA_ROW
    assert "row 2" in caught.value.cause and reason in caught.value.cause


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    for content, words in (
        ('[{"instruction": "Hi", "output": ""}]', "the only row cannot be used: row 1"),
        ("[1, 2]", "none of the 2 rows can be used: row 1"),
    ):
        path = tmp_path / "rows.json"
        path.write_text(content)
        with pytest.raises(FtuiError) as caught:
            dataset.load(Data(source=str(path), on_bad_row="skip"))
        assert caught.value.code == Exit.DATA_ROW and caught.value.cause.startswith(words)


def test_a_system_prompt_is_put_only_where_there_is_none(tmp_path: Path) -> None:
    data = load(tmp_path, [GOOD, {**GOOD, "system": "Own."}], system="Given.")
    assert turns(data, 0)[0] == ("system", "Given.")
    assert turns(data, 1)[0] == ("system", "Own.")


def test_placeholders_are_filled_counted_and_mark_identity_data(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Who are you?", "output": "I am {{name}} by {{ author }}. {{name}}!"},
        {"instruction": "Are you {{name}}?", "output": "Yes."},
        {"instruction": "Jinja?", "output": "Write {{ value }}."},
    ]
    left = load(tmp_path, rows)
    assert left.placeholders == {"name": 2, "author": 1} and left.filled == {} and left.identity
    data = load(tmp_path, rows, values={"name": "{{author}}"})
    assert turns(data)[1][1] == "I am {{author}} by {{ author }}. {{author}}!", "a value is not filled in turn"
    data = load(tmp_path, rows, values={"name": "Ada", "author": "you"})
    assert [turns(data, at)[1][1] for at in range(3)] == ["I am Ada by you. Ada!", "Yes.", "Write {{ value }}."]
    assert data.placeholders == {} and data.filled == {"name": 2, "author": 1} and data.identity
    assert not load(tmp_path, [*rows, GOOD, GOOD]).identity


def test_the_hash_is_of_what_is_trained_on(tmp_path: Path) -> None:
    first = load(tmp_path, [GOOD, {**GOOD, "id": 1}])
    (tmp_path / "same.csv").write_text("question,answer\nHi,Hello.\nHi,Hello.\n")
    assert dataset.load(Data(source=str(tmp_path / "same.csv"))).sha256 == first.sha256
    assert load(tmp_path, [GOOD, {**GOOD, "output": "Hello!"}]).sha256 != first.sha256
    assert load(tmp_path, [GOOD, GOOD], system="Be kind.").sha256 != first.sha256
    assert len(first.sha256) == 64


@pytest.mark.parametrize(
    ("name", "shape", "stage", "columns"),
    [
        ("alpaca_en_demo.json", "alpaca", "sft", "prompt=instruction input=input completion=output"),
        ("c4_demo.jsonl", "text", "pretraining", "text=text"),
        ("dialogsum.dev.jsonl", "prompt-completion", "sft", "prompt=dialogue completion=summary"),
        ("dpo_en_demo.json", "preference", "dpo", "conversation=conversations chosen=chosen rejected=rejected"),
        ("glaive_toolcall_en_demo.json", "sharegpt", "sft", "conversation=conversations tools=tools"),
        ("identity.json", "alpaca", "sft", "prompt=instruction input=input completion=output"),
        ("kto_en_demo.json", "rated", "kto", "conversation=messages label=label"),
        ("wiki_demo.txt", "text", "pretraining", "text=line"),
    ],
)
def test_real_files(shared_data: Path, name: str, shape: str, stage: str, columns: str) -> None:
    data = dataset.load(Data(source=str(shared_data / name)))
    assert (data.shape.name, data.shape.stage) == (shape, stage)
    assert data.shape.columns == dict(pair.split("=") for pair in columns.split())
    assert data.skipped == []
