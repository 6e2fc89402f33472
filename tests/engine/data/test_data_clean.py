"""Each fix writes a copy that reads back as the same kind and no longer has the finding; the original stays as it is."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import clean, dataset, findings, lengths, tokenizer
from engine.data.clean import Cleaned
from engine.data.dataset import Dataset
from engine.errors import Exit, FtuiError
from engine.recipe import Data
from tests.engine.data.finding_rows import kinds, load, pair, prefer, prose, rate, talk

KEY = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
GOOD = [pair(prose(at, 20), prose(at + 500, 60)) for at in range(12)]
CUT = prose(3, 60) + " Then the river went down to the"
# For each fix rows with the flaw among good ones, the kind of finding, and the numbers of the rows that must be left.
CASES: dict[str, tuple[list[Any], str, list[int]]] = {
    "mend-encoding": ([pair("a", "cafÃ©"), *GOOD], "encoding", [*range(1, 14)]),
    "fill-placeholders": ([pair("a", "I am {{name}}."), *GOOD], "placeholders", [*range(1, 14)]),
    "strip-control-tokens": ([pair("a", "b<|im_end|>"), *GOOD], "control-tokens", [*range(1, 14)]),
    "mask-secrets": ([pair("a", f"key {KEY}"), *GOOD], "secrets", [*range(1, 14)]),
    "drop-secrets": ([pair("a", f"key {KEY}"), *GOOD], "secrets", [*range(2, 14)]),
    "mask-personal-data": ([pair("a", "ann@fastmail.net"), *GOOD], "personal-data", [*range(1, 14)]),
    "drop-personal-data": ([pair("a", "ann@fastmail.net"), *GOOD], "personal-data", [*range(2, 14)]),
    "merge-turns": ([talk("u: a", "u: b", "a: c", "a: d")], "role-order", [1]),
    "cut-open-end": ([talk("u: a", "a: b", "u: c"), talk("u: a", "a: d")], "role-order", [1, 2]),
    "drop-late-system": ([talk("u: a", "s: b", "a: c"), talk("u: a", "a: b")], "role-order", [2]),
    "drop-lost": ([pair("a", "my mother\ufffds"), *GOOD], "lost-characters", [*range(2, 14)]),
    "drop-empty": ([talk("u: a", "a: ", "u: b", "a: c"), talk("u: a", "a: b")], "empty-answer", [2]),
    "drop-one-sided": ([prefer("a", "b", "b"), prefer("c", "d", "e")], "one-sided", [2]),
    "drop-contradictions": (
        [rate("a", "b", True), rate("c", "d", True), rate("a", "b", False), rate("e", "f", False)],
        "contradictions",
        [2, 4],
    ),
    "drop-cut-answers": ([pair("a", CUT), *GOOD], "cut-answers", [*range(2, 14)]),
    "drop-duplicates": ([pair("a", "b"), pair("c", "d"), pair("a", "b")], "duplicates", [1, 2]),
    "drop-near-duplicates": (
        [*GOOD, GOOD[0] | {"completion": GOOD[0]["completion"] + " Indeed."}],
        "near-duplicates",
        [*range(1, 13)],
    ),
    "drop-malformed": ([pair("a", "b"), pair("c", "")], "malformed", [1]),
}


def apply(folder: Path, data: Dataset, *actions: str, **options: Any) -> tuple[Cleaned, Dataset]:
    """What was written, and the copy read back, strictly."""
    target = folder / "rows.cleaned.jsonl"
    done = clean.clean(data, actions, target, {"name": "Ada", "author": "you"}, **options)
    return done, dataset.load(Data(source=str(target)))


@pytest.mark.parametrize("action", CASES)
def test_a_second_look_no_longer_has_the_finding(tmp_path: Path, action: str) -> None:
    rows, kind, left = CASES[action]
    data = load(tmp_path, rows)
    before = (tmp_path / "rows.json").read_bytes()
    finding = kinds(findings.find(data))[kind]
    assert finding.action == action or action.startswith("drop-")
    done, copy = apply(tmp_path, data, action)
    assert kind not in {finding.kind for finding in findings.find(copy)}
    assert copy.stage == data.stage and len(copy.examples) == done.rows == len(left)
    assert done.actions == {action: finding.count} and done.left_out == len(rows) - len(left)
    assert done.changed == (finding.count if not action.startswith("drop-") else 0)
    assert (tmp_path / "rows.json").read_bytes() == before
    # What is not concerned is as it was.
    kept = {example.row: example for example in data.examples}
    for row, example in zip(left, copy.examples, strict=True):
        if row not in finding.rows:
            assert example.messages == kept[row].messages and example.chosen == kept[row].chosen


def test_every_action_that_a_finding_may_name_is_tested(tmp_path: Path) -> None:
    assert set(clean.ACTIONS) - set(CASES) == {"drop-too-long", "keep-mended"}


def test_what_the_mends_make_of_the_text(tmp_path: Path) -> None:
    rows = [
        talk(
            "u: cafÃ© {{ name }}", "u: and more", "a: <|im_start|>assistant\nI am Ada.<|im_end|>", f"a: {KEY}", "u: bye"
        ),
        talk("u: a", "a: b"),
    ]
    actions = [
        "cut-open-end",
        "merge-turns",
        "strip-control-tokens",
        "mask-secrets",
        "mend-encoding",
        "fill-placeholders",
    ]
    done, copy = apply(tmp_path, load(tmp_path, rows), *actions)
    turns = [(turn.role, turn.content) for turn in copy.examples[0].messages or ()]
    assert turns == [("user", "café Ada\n\nand more"), ("assistant", "I am Ada.\n\n[key removed]")]
    assert done.actions == dict.fromkeys(actions, 1) and (done.rows, done.changed, done.left_out) == (2, 1, 0)


def test_rows_that_become_the_same_or_empty_by_a_mend_are_left_out(tmp_path: Path) -> None:
    rows = [pair("a", "café"), pair("a", "cafÃ©"), pair("b", "<|im_end|>"), pair("c", "d")]
    done, copy = apply(tmp_path, load(tmp_path, rows), "mend-encoding", "strip-control-tokens", "drop-duplicates")
    assert [example.messages[1].content for example in copy.examples if example.messages] == ["café", "d"]
    assert done.left_out == 2 and done.changed == 0


def test_rows_that_are_cut_need_the_findings_of_counted_tokens(tmp_path: Path, tiny_model: Path) -> None:
    data = load(tmp_path, [pair("a", "b"), pair("one", "four five " * 30)])
    tokens = tokenizer.load(tiny_model)
    found = findings.find(data, lengths.count(data, tokens), 40)
    done, copy = apply(tmp_path, data, "drop-too-long", found=found)
    assert done.left_out == 1 and lengths.count(copy, tokens).at(40).lose_end == 0


def test_near_duplicates_go_until_none_is_left(tmp_path: Path) -> None:
    question, answer = prose(1, 40), prose(2, 80).split()
    copies = [pair(question, " ".join([*answer[:at], "else", *answer[at + 1 :]])) for at in range(0, 80, 4)]
    others = [pair(prose(at, 40), prose(at + 1, 80)) for at in range(100, 300, 2)]
    done, copy = apply(tmp_path, load(tmp_path, [*others, *copies]), "drop-near-duplicates")
    assert "near-duplicates" not in {finding.kind for finding in findings.find(copy)}
    assert done.left_out == done.actions["drop-near-duplicates"] == 19


PIECES = [
    *(
        "",
        " ",
        "\n",
        "a",
        "The river is long. ",
        "cafÃ©",
        "Ã",
        "©",
        "â€",
        "™",
        "\ufffd",
        "\x1e",
        "\0",
        "你好，世界。",
        "ä½",
        "\xa0",
    ),
    *(
        "{{name}}",
        "{{",
        "}}",
        "<|im_",
        "<|im_end|>",
        "end|>",
        "[INST]",
        "[",
        "INST]",
        KEY,
        "hf_",
        "ann@fastmail.net",
        "@",
        "ann",
    ),
    *("312-867-5309", "312-", "867-5309", "4539578763621486", "```", "\n```\n", CUT, prose(8, 40), "[Your Name]"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
turns = st.lists(st.tuples(st.sampled_from("usat"), texts), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(turns, min_size=1, max_size=6))
def test_whatever_is_in_the_rows_a_copy_with_all_fixes_has_nothing_left_to_fix(
    talks: list[list[tuple[str, str]]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            data = load(folder, [talk("u: a", "a: b"), *(talk(*(f"{who}: {text}" for who, text in t)) for t in talks)])
            done, copy = apply(folder, data, *(action for action in clean.ACTIONS if action != "drop-too-long"))
        except FtuiError as error:
            assert error.cause.startswith(("none of the", "no row"))
            return
        assert done.rows == len(copy.examples) and done.rows + done.left_out == len(talks) + 1
        assert [finding for finding in findings.find(copy) if finding.action] == []


# the copy -----------------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "Tokyo", "深": [1, 2.5]}}}


@pytest.mark.parametrize(
    "rows",
    [
        [{"instruction": "a", "input": "b", "output": "c", "system": "s", "history": [["d", "e"]]}],
        [talk("s: s", "u: a", "a: b\n\u2028 \u0000é你\U0001f600", "u: c", "a: d")],
        [
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "", "tool_calls": [CALL]},
                    {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "clock"},
                    {"role": "assistant", "content": "b", "weight": 0},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "d"},
                ],
                "tools": TOOLS,
            }
        ],
        [prefer("a", "b", "c")],
        [
            {
                "prompt": [{"role": "user", "content": "a"}],
                "chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}],
                "rejected": [{"role": "assistant", "content": "no"}],
                "tools": TOOLS,
            }
        ],
        [rate("a", "b", True), rate("c", "d", False)],
        [talk("u: a", "a: b", "u: c", "a: d", label=False), talk("u: a", "a: b", label=True)],
        [{"prompt": "a"}, {"prompt": "b"}],
        [{"text": "a\n\nb"}, {"text": " c"}],
    ],
)
def test_a_copy_without_fixes_reads_back_the_same(tmp_path: Path, rows: list[Any]) -> None:
    data = load(tmp_path, rows)
    done, copy = apply(tmp_path, data)
    assert list(copy.examples) == list(data.examples) and copy.sha256 == data.sha256 and copy.stage == data.stage
    assert (done.rows, done.changed, done.left_out, done.actions) == (len(rows), 0, 0, {})


def test_rows_mended_while_reading_stay_mended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d",}\n')
    data = dataset.load(Data(source=str(path), on_bad_row="repair"), strict=False)
    done, copy = apply(tmp_path, data, "keep-mended")
    assert done.actions == {"keep-mended": 1} and len(copy.examples) == 2 and not copy.repaired


def test_the_copy_is_private_and_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    done, _ = apply(tmp_path, load(tmp_path, [pair("a", "b")]))
    assert done.path.stat().st_mode & 0o777 == 0o600
    assert json.loads(done.path.read_text()) == talk("u: a", "a: b")
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["rows.cleaned.jsonl", "rows.json"]


def refused(data: Dataset, target: Path, *actions: str) -> FtuiError:
    with pytest.raises(FtuiError) as error:
        clean.clean(data, actions, target)
    return error.value


def test_nothing_is_written_over(tmp_path: Path) -> None:
    data = load(tmp_path, [pair("a", "b")])
    there = tmp_path / "there.jsonl"
    there.write_text("mine")
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "nowhere")
    for target in (there, link):
        assert refused(data, target).code == Exit.USAGE
    assert there.read_text() == "mine" and link.is_symlink() and not (tmp_path / "nowhere").exists()
    assert refused(data, tmp_path / "rows.json").code == Exit.USAGE
    assert refused(data, tmp_path / "no" / "such.jsonl").code == Exit.USAGE


def test_what_comes_there_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = load(tmp_path, [pair("a", "b")]), tmp_path / "copy.jsonl"
    sync = os.fsync

    def somebody_else(descriptor: int) -> None:
        sync(descriptor)
        target.write_text("mine")

    monkeypatch.setattr(os, "fsync", somebody_else)
    assert refused(data, target).code == Exit.USAGE and target.read_text() == "mine"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(tmp_path, [pair("a", "b")])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = refused(data, tmp_path / "copy.jsonl")
    assert error.code == Exit.DISK_FULL and not list(tmp_path.glob("*copy*")) and not list(tmp_path.glob(".*"))


def test_what_cannot_be_done(tmp_path: Path) -> None:
    data = load(tmp_path, [prefer("a", "b", "b")])
    assert "fixes: " in refused(data, tmp_path / "copy.jsonl", "polish").next_step
    assert "no row would be left" in refused(data, tmp_path / "copy.jsonl", "drop-one-sided").cause
    (tmp_path / "rows.json").write_text(json.dumps([pair("a", "b")] * 3))
    first = dataset.load(Data(source=str(tmp_path / "rows.json")), limit=2)
    assert "only the first rows" in refused(first, tmp_path / "copy.jsonl").cause
    assert not (tmp_path / "copy.jsonl").exists()
