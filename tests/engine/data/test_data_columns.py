"""What a person says about columns and templates wins over what is found; what they mistype is told."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data import shapes
from engine.data.convert import Unusable, converter
from engine.errors import Exit, FtuiError
from engine.recipe import Source

TRUTH = {"question": "Why?", "best_answer": "So.", "answer": "No idea.", "source": "web", "system": "Be brief."}


def said(row: dict[str, Any], shape: shapes.Shape) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in converter(shape, None)(1, row).messages or []]


def test_corrections_win() -> None:
    shape = shapes.detect([TRUTH], {"prompt": "question", "completion": "best_answer"})
    assert shape.columns == {"prompt": "question", "completion": "best_answer", "system": "system"}
    assert shape.ignored == ["answer", "source"]
    assert said(TRUTH, shape) == [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]


def test_one_correction_leaves_the_rest_to_be_found() -> None:
    assert shapes.detect([TRUTH], {"completion": "Best_Answer"}).columns["prompt"] == "question"
    assert shapes.detect([TRUTH], {"prompt": "source"}).columns["completion"] == "answer"
    assert shapes.detect([TRUTH], {"input": "source"}).columns == {
        "prompt": "question",
        "input": "source",
        "completion": "answer",
        "system": "system",
    }


def test_an_empty_name_switches_a_role_off() -> None:
    assert "system" not in shapes.detect([TRUTH], {"system": ""}).columns
    pair = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}
    assert shapes.detect([pair], {"rejected": "", "completion": "chosen"}).name == "prompt-completion"
    assert shapes.detect([pair], {"completion": "chosen"}).columns == {"prompt": "prompt", "completion": "chosen"}
    rated = {"prompt": "Hi", "completion": "Yes", "label": True}
    assert shapes.detect([rated], {"label": ""}).stage == "sft"
    assert shapes.detect([TRUTH], {"completion": ""}).name == "prompt"


def test_other_kinds_by_correction() -> None:
    row = {
        "a": "Hi",
        "b": "Yes",
        "c": "No",
        "d": 1,
        "e": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}],
    }
    for columns, name in (
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"prompt": "a", "completion": "b", "label": "d"}, "rated"),
        ({"prompt": "a", "completion": "b"}, "prompt-completion"),
        ({"instruction": "a", "query": "c", "response": "b"}, "alpaca"),
        ({"conversation": "e"}, "sharegpt"),
        ({"messages": "e", "kto_tag": "d"}, "rated"),
        ({"prompt": "a"}, "prompt"),
        ({"text": "a"}, "text"),
    ):
        assert shapes.detect([row], columns).name == name
        assert converter(shapes.detect([row], columns), None)(1, row)


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"promt": "question"}, "did you mean prompt"),
        ({"prompt": "Questoin"}, "did you mean question"),
        ({"prompt": "nothing like it"}, "no column nothing like it"),
        ({"chosen": "answer"}, "chosen and rejected"),
        ({"wizard": "question"}, "wizard is no role"),
        ({"conversation": ""}, ""),
    ],
)
def test_wrong_names_are_told_with_the_closest(columns: dict[str, str], named: str) -> None:
    if not named:
        assert shapes.detect([TRUTH], columns).name == "prompt-completion"
        return
    with pytest.raises(FtuiError) as caught:
        shapes.detect([TRUTH], columns)
    assert caught.value.code == Exit.DATA_SHAPE and named in caught.value.cause
    assert caught.value.next_step


@pytest.mark.parametrize(
    "columns", [{"prompt": "a", "conversation": "e"}, {"text": "a", "prompt": "b"}, {"conversation": "e", "input": "a"}]
)
def test_corrections_that_contradict_each_other_are_told(columns: dict[str, str]) -> None:
    row = {"a": "Hi", "b": "Yes", "e": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}
    with pytest.raises(FtuiError) as caught:
        shapes.detect([row], columns)
    assert caught.value.code == Exit.DATA_SHAPE and "has no place beside" in caught.value.cause


def test_every_role_can_be_given() -> None:
    row = {"a": "Hi", "b": "Yes", "c": "No", "d": True, "e": [["One?", "Two."]], "f": [{"name": "time"}]}
    row["g"] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]
    used = set[str]()
    for columns in (
        {"prompt": "a", "input": "c", "completion": "b", "system": "c", "history": "e", "tools": "f", "label": "d"},
        {"conversation": "g"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"text": "a"},
    ):
        assert shapes.detect([row], columns).columns == columns
        used |= columns.keys()
    assert used == shapes.ROLES.keys() and all(shapes.ROLES.values())


def template(rows: list[dict[str, Any]], columns: dict[str, str] | None = None, **templates: str) -> shapes.Shape:
    return shapes.from_templates(rows, Source(source="x", columns=columns or {}, **templates))


def test_templates_over_columns() -> None:
    row = {"dialogue": "A: {x} B: y", "summary": "They talk.", "topic": "t"}
    shape = template([row], prompt="Sum up for {{name}}, on { topic }:\n{dialogue}", completion="{summary}")
    assert (shape.name, shape.stage, shape.ignored) == ("template", "sft", [])
    assert said(row, shape) == [("user", "Sum up for {{name}}, on t:\nA: {x} B: y"), ("assistant", "They talk.")]
    with pytest.raises(Unusable, match=r"no answer \(summary\)"):
        said({"dialogue": "A", "topic": ""}, shape)
    with pytest.raises(Unusable, match=r"no question \(topic, dialogue\)"):
        said({"dialogue": " ", "summary": "A"}, shape)


def test_what_a_template_leaves_open_is_found() -> None:
    row = {"dialogue": "A", "summary": "They talk.", "topic": "t"}
    assert template([row], prompt="Sum up: {dialogue}").columns == {
        "prompt": "Sum up: {dialogue}",
        "completion": "{summary}",
    }
    shape = template([TRUTH], completion="{best_answer}!")
    assert said(TRUTH, shape) == [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.!")]
    shape = template([TRUTH], {"completion": "best_answer", "system": ""}, prompt="{question} ({source})")
    assert said(TRUTH, shape) == [("user", "Why? (web)"), ("assistant", "So.")]


def test_templates_for_pairs_ratings_and_prompts() -> None:
    row = {"topic": "war", "chosen": "Yes", "rejected": "No", "answer": "Perhaps", "ok": True}
    shape = template([row], prompt="About {topic}")
    assert (shape.name, shape.stage) == ("template", "dpo")
    example = converter(shape, None)(1, row)
    assert said(row, shape) == [("user", "About war")]
    assert example.chosen is not None and example.chosen[0].content == "Yes"
    shape = template([row], {"label": "ok"}, prompt="About {topic}", completion="{answer}")
    assert shape.stage == "kto" and converter(shape, None)(1, row).label is True
    shape = template([{"topic": "war"}], {"completion": ""}, prompt="About {topic}")
    assert shape.stage == "grpo"


@pytest.mark.parametrize(
    ("templates", "named"),
    [
        ({"prompt": "{dialog}", "completion": "{summary}"}, "did you mean dialogue"),
        ({"prompt": "Hi", "completion": "{summary}"}, "prompt template names no column"),
        ({"prompt": "{dialogue}", "completion": "{{name}}"}, "completion template names no column"),
        ({"prompt": "{summary}"}, "completion"),
        ({"completion": "{dialogue}"}, "prompt"),
    ],
)
def test_templates_that_do_not_fit(templates: dict[str, str], named: str) -> None:
    with pytest.raises(FtuiError) as caught:
        template([{"dialogue": "A", "summary": "They talk."}], **templates)
    assert caught.value.code == Exit.DATA_SHAPE and named in caught.value.cause
