"""Rows that say again what others said: word for word, nearly, or on the other side of the evaluation split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import findings, near, split
from engine.data.convert import Example, Message
from engine.data.findings import Finding
from tests.engine.data.finding_rows import WORDS, kinds, load, look, pair, prefer, prose, rate, talk


def near_duplicates(rows: list[tuple[str, str]]) -> dict[int, int]:
    """Index of a near duplicate -> index of the row it repeats; indices from 0."""
    examples = [Example(at, [Message("user", q), Message("assistant", a)], None) for at, (q, a) in enumerate(rows)]
    return near.find(examples, np.arange(len(rows))).of


# word for word ------------------------------------------------------------------------------------------------------


def test_duplicates_word_for_word(tmp_path: Path) -> None:
    rows = [pair("a", "b"), pair("a", "c"), pair("a", "b"), pair("a", "b")]
    found = look(tmp_path, rows)
    assert found["duplicates"].level == "note" and list(found["duplicates"].rows) == [3, 4]
    assert found["duplicates"].example == "row 3 is row 1: b"
    assert list(found["same-prompt"].rows) == [1, 2]


def test_what_is_no_duplicate(tmp_path: Path) -> None:
    rows = [talk("u: a", "a: b"), talk("s: x", "u: a", "a: b"), talk("u: a", "a: b", "u: c", "a: d")]
    assert "duplicates" not in look(tmp_path, rows)
    assert "duplicates" not in look(tmp_path, [prefer("a", "b", "c"), prefer("a", "c", "b")])
    assert "duplicates" not in look(tmp_path, [rate("a", "b", True), rate("a", "b", False)])


def test_calls_and_tools_tell_rows_apart(tmp_path: Path) -> None:
    def row(tool: str, argument: str) -> dict[str, object]:
        call = {"type": "function", "function": {"name": tool, "arguments": {"x": argument}}}
        turns = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "It is done."},
        ]
        return {"messages": turns, "tools": [{"type": "function", "function": {"name": tool}}]}

    found = look(tmp_path, [row("f", "1"), row("f", "2"), row("g", "1"), row("f", "1")])
    assert list(found["duplicates"].rows) == [4]


def test_many_duplicates_are_a_warning(tmp_path: Path) -> None:
    rows = [pair(f"{at}", f"answer {at}") for at in range(60)]
    assert look(tmp_path, rows + rows[:19])["duplicates"].level == "note"
    assert look(tmp_path, rows + rows[:20])["duplicates"].level == "warning"


# one prompt, one answer ---------------------------------------------------------------------------------------------


def test_one_prompt_with_several_answers(tmp_path: Path) -> None:
    rows = [pair("Name a river", "Rhine"), pair("Name a lake", "Como"), pair("Name a river", "Nile")]
    finding = look(tmp_path, rows)["same-prompt"]
    assert list(finding.rows) == [1, 3] and finding.example == "row 1 as row 3: Name a river"
    # For preferences and ratings this is how it should be.
    assert "same-prompt" not in look(tmp_path, [prefer("a", "b", "c"), prefer("a", "d", "e")])


def test_one_answer_to_many_prompts(tmp_path: Path) -> None:
    rows = [pair(prose(at), "I cannot help with that." if at % 3 == 0 else prose(at + 900)) for at in range(60)]
    finding = look(tmp_path, rows)["answer-balance"]
    assert finding.message == "33 % of the answers are one and the same" and finding.count == 20
    assert finding.example == "row 1: I cannot help with that."


def test_of_conversations_only_the_last_answers_are_told_to_be_the_same(tmp_path: Path) -> None:
    rows = [talk(f"u: {prose(at)}", f"a: {prose(at + 900)}", "u: Sure?", "a: Yes, quite sure.") for at in range(60)]
    finding = look(tmp_path, rows)["answer-balance"]
    assert finding.message == "100 % of the last answers are one and the same"
    assert finding.example == "row 1: Yes, quite sure."
    for at in range(0, 60, 2):
        rows[at]["messages"][-1]["content"] = "No."
    assert look(tmp_path, rows)["answer-balance"].message.startswith("the last answers are 2 labels: ")


def test_the_balance_of_labels(tmp_path: Path) -> None:
    rows = [pair(prose(at), "good" if at % 10 else "bad") for at in range(100)]
    finding = look(tmp_path, rows)["answer-balance"]
    assert finding.message == "the answers are 2 labels: good 90 %, bad 10 %" and finding.level == "warning"
    assert finding.count == 90


# nearly -------------------------------------------------------------------------------------------------------------


def test_a_near_duplicate_repeats_question_and_answer(tmp_path: Path) -> None:
    question, answer = prose(1, 30), prose(2)
    changed = answer.replace(answer.split()[20], "something")
    rows = [
        (question, answer),
        (prose(3, 30), prose(4)),
        (question.upper() + " ", changed),  # nearly the first
        (prose(5, 30), answer),  # another question
        (question, prose(6)),  # another answer
    ]
    assert near_duplicates(rows) == {2: 0}
    finding = look(tmp_path, [pair(*row) for row in rows])["near-duplicates"]
    assert list(finding.rows) == [3] and finding.example == "row 3 is nearly row 1" and finding.level == "note"


def test_short_rows_that_differ_in_a_word_are_not_near() -> None:
    rows = [(f"What is the capital of {land}?", f"It is {town}.") for land, town in pairwise(WORDS)]
    assert near_duplicates([*rows, ("2+3=", "5"), ("2+4=", "6")]) == {}


def test_the_words_of_a_template_do_not_make_rows_near() -> None:
    task = "Read the review below and say with one word whether it is good or bad. " * 5
    rows = [(task + " ".join(prose(at, 9).split()[:9]), "good" if at % 2 else "bad") for at in range(60)]
    assert near_duplicates(rows) == {}


def test_plain_text_and_chinese() -> None:
    text = prose(1, 200)
    examples = [Example(1, None, text), Example(2, None, prose(2, 200)), Example(3, None, text + " And more.")]
    assert near.find(examples, np.arange(3)).of == {2: 0}
    chinese = "河水很长，山也很高，城里的人都喜欢在桥上看月亮，听风的声音，说很久以前的故事，唱年轻时学会的歌，等远方的朋友回来。"
    rows = [("写一句话", chinese), ("写一句话", "今天的天气非常好，我们一起去公园里散步吧，然后再去吃饭。")]
    assert near_duplicates([*rows, ("写一句话", chinese.replace("很久以前", "从前"))]) == {2: 0}


def test_ratings_that_differ_are_not_near() -> None:
    turns = [Message("user", prose(1)), Message("assistant", prose(2))]
    examples = [Example(at, turns, None, label=label) for at, label in ((1, True), (2, False), (3, True))]
    assert near.find(examples, np.arange(3)).of == {2: 0}


def test_all_of_a_cluster_but_the_first_are_found() -> None:
    question, answer = prose(1, 40), prose(2, 80).split()
    copies = [(question, " ".join([*answer[:at], "else", *answer[at + 1 :]])) for at in range(0, 80, 4)]
    others = [(prose(at, 40), prose(at + 1, 80)) for at in range(100, 300, 2)]
    found = near_duplicates(others[:50] + copies + others[50:])
    assert found == dict.fromkeys(range(51, 70), 50)


@settings(max_examples=60, deadline=None, derandomize=True)  # a hash may miss a pair, so the same pairs each time
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_what_is_found_is_alike_and_what_is_alike_is_found(seed: int, edits: int) -> None:
    """Against the plain definition: shared runs of eight bytes over all runs of both, on whole rows."""
    question, answer = prose(seed, 30), prose(seed + 1, 80)
    words = answer.split()
    for edit in range(edits):
        words[(seed + edit * 13) % len(words)] = WORDS[(seed + edit) % len(WORDS)]
    other = " ".join(words)

    def runs(text: str) -> set[str]:
        return {text.lower()[at : at + 8] for at in range(len(text) - 7)}

    mine, theirs = runs(answer), runs(other)
    both, either = len(mine & theirs), len(mine | theirs)
    asked = len(runs(question))
    alike = both >= 0.7 * either and both + asked >= 0.8 * (either + asked)
    assert near_duplicates([(question, answer), (question, other)]) == ({1: 0} if alike else {})


def test_many_rows_are_looked_at_in_blocks_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "LIMIT", 400)
    rows = [pair(prose(at, 20), prose(at + 5000, 20)) for at in range(900)]
    rows[1] = pair(rows[0]["prompt"], rows[0]["completion"] + " Indeed.")
    finding = look(tmp_path, rows)["near-duplicates"]
    assert list(finding.rows) == [2] and finding.sampled == "among 400 of 900 rows"


# the other side of the split ----------------------------------------------------------------------------------------


def overlap(folder: Path, rows: list[dict[str, str]], held_out: list[int]) -> dict[str, Finding]:
    return kinds(findings.find(load(folder, rows), held_out=held_out))


def test_evaluation_rows_that_stand_in_training_word_for_word(tmp_path: Path) -> None:
    rows = [pair("a", "b"), pair("c", "d"), pair("a", "b"), pair("e", "f"), pair("e", "f")]
    finding = overlap(tmp_path, rows, [3, 4, 5])["overlap"]
    assert list(finding.rows) == [3] and finding.action == "drop-duplicates"
    assert finding.message == "1 of 3 evaluation rows stand in the training rows, word for word"
    assert "overlap" not in overlap(tmp_path, rows, [4, 5]) and "overlap" not in overlap(tmp_path, rows, [])


def test_evaluation_rows_that_stand_in_training_nearly(tmp_path: Path) -> None:
    question, answer = prose(1, 40), prose(2, 80)
    rows = [pair(question, answer), pair("a", "b"), pair(question, answer + " Indeed."), pair(question, answer)]
    for held_out, expected in (([3], [3]), ([1, 4], [1, 4]), ([1, 3, 4], None), ([2], None)):
        found = overlap(tmp_path, rows, held_out)
        assert (list(found["overlap"].rows) if "overlap" in found else None) == expected
    assert overlap(tmp_path, rows, [3])["overlap"].action == "drop-near-duplicates"


def test_the_split_is_drawn_by_the_seed_alone() -> None:
    assert split.held_out(10, 0.2, seed=1) == [6, 8]
    assert split.held_out(10, 0.0, seed=1) == []


@given(st.integers(0, 500), st.floats(0, 0.5), st.integers(0, 2**31))
def test_the_split_holds_out_its_fraction_each_row_once(rows: int, fraction: float, seed: int) -> None:
    held = split.held_out(rows, fraction, seed)
    assert len(held) == round(rows * fraction) and held == sorted(set(held)) and set(held) <= set(range(rows))
