"""Each flaw in the rows becomes one line with its rows and a way out; good rows give none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.data import clean, dataset, findings, lengths, tokenizer
from engine.recipe import Data
from tests.engine.data.finding_rows import kinds, load, look, pair, prefer, prose, rate, talk


def test_good_rows_give_nothing(tmp_path: Path, tiny_model: Path) -> None:
    rows = [talk("s: x", "u: a", "a: b", "u: c", "a: d"), talk("s: x", "u: a", "a: call", "t: 1", "t: 2", "a: e")]
    assert look(tmp_path, rows, tiny_model, cutoff=512) == {}


def test_a_finding_has_all_its_rows_a_count_an_example_and_an_action_that_exists(tmp_path: Path) -> None:
    rows = [pair(f"Who are you, {at}?", "I am {{name}}") for at in range(1200)]
    finding = look(tmp_path, rows)["placeholders"]
    assert list(finding.rows) == list(range(1, 1201)) and finding.count == 1200
    assert finding.message == "1,200 rows hold {{name}}" and finding.example == "row 1: {{name}}"
    assert finding.action in clean.ACTIONS and finding.sampled == ""


def test_problems_come_before_warnings_and_notes(tmp_path: Path) -> None:
    rows = [
        pair("a", "b"),
        pair("a", "b"),
        pair("Write to", "jane.doe@fastmail.net"),
        pair("c", "{{name}}"),
    ]
    levels = [finding.level for finding in look(tmp_path, rows).values()]
    assert levels == ["problem", "warning", "note"]


def test_progress_ends_when_all_rows_are_done(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    data = load(tmp_path, [pair(prose(at), prose(-at)) for at in range(1100)])
    findings.find(data, progress=lambda done, rows: seen.append((done, rows)))
    assert len(seen) > 3 and seen == sorted(seen) and seen[-1][0] == seen[-1][1]


# placeholders, fields, control tokens --------------------------------------------------------------------------------


def test_placeholders_left_and_how_to_fill_them(tmp_path: Path) -> None:
    rows = [pair("a", "I am {{name}}"), pair("b", "fine"), pair("c", "by {{ author }}")]
    finding = look(tmp_path, rows)["placeholders"]
    assert finding.level == "problem" and list(finding.rows) == [1, 3] and finding.message.startswith("2 rows hold")
    assert finding.fix == "fill them: --set name=… --set author=…"
    assert "{{author}}" in look(tmp_path, rows, values={"name": "Ada"})["placeholders"].message
    assert "placeholders" not in look(tmp_path, rows, values={"name": "Ada", "author": "you"})


def test_placeholders_of_other_names_are_a_note_and_code_has_none(tmp_path: Path) -> None:
    rows = [
        pair("a", "Dear {{customer}}, hello."),
        pair("b", "In Vue: ```html\n<p>{{ item }}</p>\n```"),
        pair("c", r"It is \frac{{a}}{{b}}, so x^{{2}}."),
        pair("d", "{% for x in y %}{{ x }}{% endfor %}"),
        pair("e", "Mark it with '{{ ... }}' here."),
    ]
    found = look(tmp_path, rows)
    assert found["other-placeholders"].level == "note" and list(found["other-placeholders"].rows) == [1]
    assert "placeholders" not in found


def test_fields_that_an_answer_leaves_open(tmp_path: Path) -> None:
    rows = [
        pair("Write a letter", "Dear [Recipient's Name],\nthank you.\n[Your Name]"),
        pair("Send to [Your Name]", "Done."),
        pair("Code", "values[index] and list[int] and [INST] is no field, nor [1] or [Smith 2020]"),
        pair("Link", "See [Your Name](https://example.org) for it."),
        pair("Connect", "ssh <your server name>"),
    ]
    finding = look(tmp_path, rows)["open-fields"]
    assert finding.level == "note" and list(finding.rows) == [1, 5] and "[Recipient's Name]" in finding.example


def test_control_tokens_of_any_template(tmp_path: Path) -> None:
    texts = ["x<|im_end|>", "[INST] hi [/INST]", "<start_of_turn>model", "<｜User｜>", "<<SYS>> be kind", "fine <b>"]
    finding = look(tmp_path, [pair(str(at), text) for at, text in enumerate(texts)])["control-tokens"]
    assert list(finding.rows) == [1, 2, 3, 4, 5] and "<|im_end|>" in finding.example


def test_control_tokens_of_the_model_itself(tmp_path: Path, tiny_model: Path) -> None:
    rows = [pair("a", "b"), pair("a<|im_end|>", "b")]
    found = look(tmp_path, rows, tiny_model)
    assert list(found["control-tokens"].rows) == [2] and "model-tokens" not in found


# turns --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "text", "level"),
    [
        (("u: a", "u: b", "a: c"), "two turns of the same side", "problem"),
        (("u: a", "s: b", "a: c"), "a system prompt after", "problem"),
        (("a: hi", "u: a", "a: c"), "an answer before any question", "note"),
        (("u: a", "a: b", "u: c"), "nobody answers", "note"),
    ],
)
def test_turns_out_of_order(tmp_path: Path, turns: tuple[str, ...], text: str, level: str) -> None:
    finding = look(tmp_path, [talk("u: a", "a: b"), talk(*turns)])["role-order"]
    assert list(finding.rows) == [2] and text in finding.message and finding.level == level


def test_prompts_without_answers_are_not_out_of_order(tmp_path: Path) -> None:
    assert look(tmp_path, [{"prompt": "Name a river."}, {"prompt": "Name a lake."}]) == {}
    assert look(tmp_path, [talk("u: Name a river.", "a: Rhine.", "u: And a lake?")]) == {}


def test_an_empty_answer_between_others(tmp_path: Path) -> None:
    assert list(look(tmp_path, [talk("u: a", "a:  ", "u: b", "a: c")])["empty-answer"].rows) == [1]


def test_a_call_of_a_tool_needs_no_words(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    row = talk("u: a", "t: 1", "a: c")
    row["messages"].insert(1, call)
    assert "empty-answer" not in look(tmp_path, [row])


def test_system_prompts_that_differ(tmp_path: Path) -> None:
    rows = [talk("s: Be short.", f"u: {at}", "a: x") for at in range(3)] + [talk("s: Be long.", "u: 4", "a: y")]
    finding = look(tmp_path, [*rows, talk("u: 5", "a: z")])["system-prompts"]
    assert finding.message == "2 different system prompts in 4 rows; 1 row has none" and finding.count == 2
    assert finding.example == "75 %: Be short."
    assert "system-prompts" not in look(tmp_path, rows[:3])


# rows that cannot be used -------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    found = look(tmp_path, [pair("a", "b"), pair("a", "")], on_bad_row="skip")
    assert list(found["malformed"].rows) == [2] and found["malformed"].message == "1 row cannot be used"
    assert "no answer" in found["malformed"].example


def test_rows_that_were_mended_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d",}\nnot a row\n')
    data = dataset.load(Data(source=str(path), on_bad_row="repair"), strict=False)
    found = kinds(findings.find(data))
    assert list(found["malformed"].rows) == [3] and "line 3" in found["malformed"].example
    assert list(found["repaired"].rows) == [2] and found["repaired"].level == "note"


def test_a_file_among_others_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "b.jsonl").write_bytes('{"prompt": "a", "completion": "b"}\n'.encode("utf-16-le"))
    finding = kinds(findings.find(dataset.load(Data(source=str(tmp_path)), strict=False)))["unread"]
    assert finding.level == "problem" and "UTF-16" in finding.message and finding.example == "b.jsonl"
    assert list(finding.rows) == []
    # With a byte order mark it is plain what the file is: it is read.
    (tmp_path / "b.jsonl").write_bytes('{"prompt": "a", "completion": "b"}\n'.encode("utf-16"))
    finding = kinds(findings.find(dataset.load(Data(source=str(tmp_path)), strict=False)))["unread"]
    assert finding.level == "note" and "read as UTF-16" in finding.message


def test_how_plain_text_was_divided(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    found = findings.find(dataset.load(Data(source=str(tmp_path / "a.txt"))))
    assert [(finding.kind, "each line" in finding.message) for finding in found] == [("text-unit", True)]


# tokens -------------------------------------------------------------------------------------------------------------


def test_rows_that_lose_their_end_token(tmp_path: Path, tiny_model: Path) -> None:
    rows = [pair("a", "b"), pair("one two three", "four five " * 30)]
    finding = look(tmp_path, rows, tiny_model, cutoff=40)["cut"]
    assert list(finding.rows) == [2] and "1 row loses its end token" in finding.message and "--length" in finding.fix
    assert "cut" not in look(tmp_path, rows, tiny_model)


def test_rows_beyond_what_the_model_reads(tmp_path: Path, tiny_model: Path) -> None:
    data = load(tmp_path, [pair("a", "b"), pair("one two three", "four five " * 30)])
    counted = lengths.count(data, tokenizer.load(tiny_model))
    finding = kinds(findings.find(data, counted, context=40))["beyond-context"]
    assert list(finding.rows) == [2] and "40 tokens" in finding.message and finding.level == "warning"
    assert not findings.find(data, counted, context=100_000)


def test_what_is_found_in_counted_rows_says_how_many_were_counted(tmp_path: Path, tiny_model: Path) -> None:
    data = load(tmp_path, [pair(f"one {at}", "four five " * 30) for at in range(40)])
    counted = lengths.count(data, tokenizer.load(tiny_model), limit=10)
    finding = next(one for one in findings.find(data, counted, 40, near=False) if one.kind == "cut")
    assert finding.count == 10 and finding.sampled == "among 10 of 40 rows"


def test_what_the_template_does_to_the_rows(tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = (
        "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}{{ '' if loop.last else '!' }}\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    (model / "chat_template.jinja").write_text(template)
    found = look(tmp_path, [talk("u: a", "a: b", "u: c", "a: d"), talk("u: a", "a: b")], model)
    assert list(found["endless"].rows) == [1, 2]
    assert list(found["rewritten"].rows) == [1] and "prompt-differs" in found


def test_tools_that_the_model_does_not_see(tmp_path: Path, tiny_model: Path) -> None:
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    finding = look(tmp_path, [talk("u: a", "a: b", tools=tools), talk("u: c", "a: d")], tiny_model)["tools"]
    assert finding.level == "problem" and list(finding.rows) == [1]


# ratings and preferences --------------------------------------------------------------------------------------------


def test_pairs_that_prefer_nothing(tmp_path: Path) -> None:
    rows = [prefer("a", "yes", "no"), prefer("b", "same", " same"), prefer("c", "x", "y")]
    finding = look(tmp_path, rows)["one-sided"]
    assert list(finding.rows) == [2] and finding.level == "problem" and "1 row has the same answer" in finding.message


def test_length_bias_with_its_numbers(tmp_path: Path) -> None:
    rows = [prefer(prose(at, 8), prose(-at - 1, 40), prose(at + 100, 10)) for at in range(30)]
    finding = look(tmp_path, rows)["length-bias"]
    assert finding.level == "warning" and "longer answer is chosen in 100 % of the pairs" in finding.message
    assert finding.count == 30
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[::2]]
    assert "length-bias" not in look(tmp_path, rows[1::2] + swapped)


def test_label_balance(tmp_path: Path) -> None:
    rows = [rate(prose(at, 8), prose(at + 50, 12), at % 5 == 0) for at in range(40)]
    finding = look(tmp_path, rows)["label-balance"]
    assert finding.message == "8 answers are rated good and 32 bad" and finding.level == "warning"
    assert list(finding.rows) == [at + 1 for at in range(0, 40, 5)]
    even = [row | {"label": at % 2 == 0} for at, row in enumerate(rows)]
    assert "label-balance" not in look(tmp_path, even)
    assert look(tmp_path, [row | {"label": True} for row in rows])["label-balance"].level == "problem"


def test_one_answer_rated_both_ways(tmp_path: Path) -> None:
    rows = [rate("a", "b", True), rate("c", "d", False), rate("a", "b", False)]
    found = look(tmp_path, rows)
    assert list(found["contradictions"].rows) == [1, 3] and found["contradictions"].level == "problem"
    assert "duplicates" not in found and "same-prompt" not in found


# languages ----------------------------------------------------------------------------------------------------------


def test_a_mix_of_languages_with_shares(tmp_path: Path) -> None:
    english = [pair(f"q{at}", "This is what you have to know about the weather and the sea.") for at in range(2)]
    chinese = [pair(f"p{at}", "这是关于天气和大海的回答，请您参考。AI 很好。") for at in range(8)]
    finding = look(tmp_path, english + chinese)["languages"]
    assert finding.message == "answers in several languages: 80 % Chinese, 20 % English" and finding.level == "note"
    assert list(finding.rows) == [1, 2]
    assert "languages" not in look(tmp_path, english) and "languages" not in look(tmp_path, chinese)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das ist eine gute Frage und wir werden sie mit dem Wetter auf dem Meer beantworten.", "German"),
        ("C'est une bonne question, et les réponses sont dans la mer avec nous pour vous.", "French"),
        ("Esta es una buena pregunta y las respuestas están con los peces del mar.", "Spanish"),
        ("これは天気と海についての答えです。", "Japanese"),
        ("이것은 날씨와 바다에 대한 대답입니다.", "Korean"),
        ("Это ответ о погоде и о море, который вам нужен.", "Cyrillic script"),
    ],
)
def test_languages_that_are_told_apart(tmp_path: Path, text: str, language: str) -> None:
    english = [pair(f"q{at}", "This is what you have to know about the weather and the sea.") for at in range(3)]
    message = look(tmp_path, [*english, pair("x", text), pair("y", text + " ")])["languages"].message
    assert message == f"answers in several languages: 60 % English, 40 % {language}"


def test_short_answers_in_latin_letters_are_not_another_language(tmp_path: Path) -> None:
    english = [pair(f"q{at}", "This is what you have to know about the weather and the sea.") for at in range(5)]
    assert "languages" not in look(tmp_path, [*english, *(pair(f"p{at}", f"Answer {at}") for at in range(5))])


# real data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("identity.json", {"placeholders": 85, "same-prompt": 4, "languages": 16}),
        ("alpaca_en_demo.json", {"cut-answers": 6, "duplicates": 14, "open-fields": 8}),
        ("dialogsum.dev.jsonl", {"personal-data": 2, "near-duplicates": 1}),
        (
            "dpo_en_demo.json",
            {"encoding": 1, "cut-answers": 2, "duplicates": 5, "system-prompts": 14, "open-fields": 3},
        ),
        (
            "kto_en_demo.json",
            {"encoding": 2, "control-tokens": 1, "cut-answers": 2, "open-fields": 2, "languages": 5},
        ),
        ("glaive_toolcall_en_demo.json", {"cut-answers": 1, "duplicates": 35, "same-prompt": 2, "near-duplicates": 8}),
        ("c4_demo.jsonl", {"lost-characters": 4, "personal-data": 10}),
        ("wiki_demo.txt", {"text-unit": 0}),
    ],
)
def test_what_is_in_real_data_and_nothing_else(shared_data: Path, file: str, expected: dict[str, int]) -> None:
    """Each was looked at by eye: none is a false alarm."""
    found = findings.find(dataset.load(Data(source=str(shared_data / file)), strict=False))
    assert {finding.kind: finding.count for finding in found} == expected


def test_texts_are_divided_and_not_cut(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"text": "Hello, how can I help? " * times} for times in (1, 40, 60)]
    found = look(tmp_path, rows, tiny_model, cutoff=64)
    assert {"cut", "beyond-context"}.isdisjoint(found)
    assert found["divided"].message == "2 rows are divided into parts of 64 tokens: nothing of them is lost"
    assert list(found["divided"].rows) == [2, 3] and found["divided"].level == "note"
