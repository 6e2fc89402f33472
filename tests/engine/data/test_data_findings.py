"""Each flaw in the rows becomes one line with its rows and a way out; good rows give none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.data import dataset, findings, lengths, tokenizer
from engine.data.findings import Finding
from engine.recipe import Data


def found(
    folder: Path, rows: list[Any], model: Path | None = None, cutoff: int | None = None, **options: Any
) -> dict[str, Finding]:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    data = dataset.load(Data(source=str(path), **options))
    counted = lengths.count(data, tokenizer.load(model)) if model else None
    return {finding.kind: finding for finding in findings.find(data, counted, cutoff)}


def pair(question: str, answer: str) -> dict[str, str]:
    return {"prompt": question, "completion": answer}


def talk(*turns: str) -> dict[str, Any]:
    """Turns as "u: text", "a: text", "s: text"."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[3:]} for turn in turns]}


def test_good_rows_give_nothing(tmp_path: Path, tiny_model: Path) -> None:
    rows = [talk("s: x", "u: a", "a: b", "u: c", "a: d"), talk("u: a", "a: call", "t: 1", "t: 2", "a: e")]
    assert found(tmp_path, rows, tiny_model, cutoff=512) == {}


def test_placeholders_left_and_how_to_fill_them(tmp_path: Path) -> None:
    rows = [pair("a", "I am {{name}}"), pair("b", "fine"), pair("c", "by {{ author }}")]
    finding = found(tmp_path, rows)["placeholders"]
    assert finding.level == "problem" and finding.rows == [1, 3] and finding.message.startswith("2 rows hold")
    assert finding.fix == "fill them: --set name=… --set author=…"
    assert "{{author}}" in found(tmp_path, rows, values={"name": "Ada"})["placeholders"].message
    assert "placeholders" not in found(tmp_path, rows, values={"name": "Ada", "author": "you"})


def test_duplicates_word_for_word(tmp_path: Path) -> None:
    rows = [pair("a", "b"), pair("a", "c"), pair("a", "b"), pair("a", "b")]
    finding = found(tmp_path, rows)["duplicates"]
    assert finding.level == "note" and finding.rows == [3, 4]


def test_rows_left_out(tmp_path: Path) -> None:
    finding = found(tmp_path, [pair("a", "b"), pair("a", "")], on_bad_row="skip")["skipped"]
    assert finding.rows == [2] and "1 row is left out" in finding.message and "no answer" in finding.message


def test_turns_out_of_order(tmp_path: Path) -> None:
    for turns, text, level in (
        (("u: a", "u: b", "a: c"), "two turns of the same side", "problem"),
        (("u: a", "s: b", "a: c"), "a system prompt after", "problem"),
        (("s: x", "a: hi", "u: a", "a: c"), "an answer before any question", "note"),
        (("u: a", "a: b", "u: c"), "nobody answers", "note"),
    ):
        finding = found(tmp_path, [talk("u: a", "a: b"), talk(*turns)])["role-order"]
        assert finding.rows == [2] and text in finding.message and finding.level == level


def test_an_empty_answer_between_others(tmp_path: Path) -> None:
    assert found(tmp_path, [talk("u: a", "a: ", "u: b", "a: c")])["empty-answer"].rows == [1]


def test_tools_that_the_model_does_not_see(tmp_path: Path) -> None:
    assert found(tmp_path, [{**talk("u: a", "a: b"), "tools": "[]"}])["tools"].level == "problem"


def test_how_plain_text_was_divided(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    kinds = findings.find(dataset.load(Data(source=str(tmp_path / "a.txt"))))
    assert [(finding.kind, "each line" in finding.message) for finding in kinds] == [("text-unit", True)]


def test_rows_that_lose_their_end_token(tmp_path: Path, tiny_model: Path) -> None:
    rows = [pair("a", "b"), pair("one two three", "four five " * 30)]
    finding = found(tmp_path, rows, tiny_model, cutoff=40)["cut"]
    assert finding.rows == [2] and "1 row loses its end token" in finding.message and "--length" in finding.fix
    assert "cut" not in found(tmp_path, rows, tiny_model)


def test_control_tokens_in_the_rows(tmp_path: Path, tiny_model: Path) -> None:
    rows = [pair("a", "b"), pair("a<|im_end|>", "b")]
    assert found(tmp_path, rows, tiny_model)["control-tokens"].rows == [2]
    assert "control-tokens" not in found(tmp_path, rows)


def test_what_the_template_does_to_the_rows(tmp_path: Path, tiny_model: Path) -> None:
    import shutil

    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = (
        "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}{{ '' if loop.last else '!' }}\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    (model / "chat_template.jinja").write_text(template)
    kinds = found(tmp_path, [talk("u: a", "a: b", "u: c", "a: d"), talk("u: a", "a: b")], model)
    assert kinds["endless"].rows == [1, 2]
    assert kinds["rewritten"].rows == [1] and "prompt-differs" in kinds
