"""Damaged files: every flaw is named with its place, the rows around it are read, and what has one meaning is mended."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset, repair
from engine.errors import Exit, FtuiError
from engine.recipe import Data

ROWS = [{"instruction": f"Ask {n}?", "output": f"Answer {n}."} for n in range(1, 6)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COMPACT = json.dumps(ROWS)
INDENTED = json.dumps(ROWS, indent=2)
BY_LINE = "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n"
CSV = "instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in ROWS)


def short(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 25 else "…"


def load(folder: Path, name: str, content: str | bytes, mode: str = "abort", strict: bool = False) -> dataset.Dataset:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return dataset.load(Data(source=str(path), on_bad_row=mode), strict=strict)  # type: ignore[arg-type]


def numbers(data: dataset.Dataset) -> list[int]:
    return [example.row for example in data.examples]


Flaw = tuple[int, int | None, int | None, str]  # row, line, column, words of the reason

TEN: list[tuple[str, str | bytes, Exit, list[int], Flaw]] = [
    ("cut.jsonl", LINES[:-12], Exit.DATA_SYNTAX, [1, 2, 3, 4], (5, 5, 38, "cut off")),
    (
        "cut.json",
        INDENTED[:-40],
        Exit.DATA_SYNTAX,
        [1, 2, 3, 4],
        (5, 19, 21, "the file ends in the middle of a row"),
    ),
    (
        "quote.json",
        COMPACT.replace("Answer 2.", 'An "odd quote'),
        Exit.DATA_SYNTAX,
        [1, 3, 4, 5],
        (2, 1, 93, "expecting ',' delimiter"),
    ),
    (
        "brace.json",
        INDENTED.replace('"Answer 3."\n  },', '"Answer 3."\n  ,'),
        Exit.DATA_SYNTAX,
        [1, 2, 4, 5],
        (3, 14, 3, "expecting property name"),
    ),
    (
        "latin.jsonl",
        LINES.replace("Answer 4.", "Très café.").encode("cp1252"),
        Exit.DATA_ENCODING,
        [1, 2, 3, 5],
        (4, 4, 40, "byte 0xe8 is not UTF-8; the file looks like Windows-1252"),
    ),
    (
        "character.json",
        INDENTED.replace("Answer 4.", "我是一个助手").encode().replace("个".encode(), b"\xe4\xb8"),
        Exit.DATA_ENCODING,
        [1, 2, 3, 5],
        (4, 16, 19, "byte 0xe4 is not UTF-8, in text that is UTF-8 otherwise"),
    ),
    ("nul.jsonl", LINES.replace("Answer 2.", "Ans\0wer"), Exit.DATA_ENCODING, [1, 3, 4, 5], (2, 2, 41, "NUL byte")),
    (
        "answer.jsonl",
        LINES.replace("Answer 3.", "  "),
        Exit.DATA_ROW,
        [1, 2, 4, 5],
        (3, 3, None, "row 3 has no answer (output)"),
    ),
    (
        "quote.csv",
        CSV.replace("Ask 2?", '"Ask 2?').replace("Ask 5?", '"Ask 5?"'),
        Exit.DATA_SYNTAX,
        [1, 3, 4, 5],
        (2, 3, None, "this is not CSV"),
    ),
    (
        "utf16.json",
        INDENTED.encode("utf-16"),
        Exit.DATA_ENCODING,
        [1, 2, 3, 4, 5],
        (0, None, None, "the file is UTF-16"),
    ),
]


@pytest.mark.parametrize(("name", "content", "code", "kept", "flaw"), TEN, ids=short)
def test_ten_damaged_files(
    tmp_path: Path, name: str, content: str | bytes, code: Exit, kept: list[int], flaw: Flaw
) -> None:
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, name, content, strict=True)
    assert caught.value.code == code and str(tmp_path / name) in caught.value.where
    seen = load(tmp_path, name, content)
    assert numbers(seen) == kept
    [bad] = seen.skipped or seen.repaired
    assert (bad.row, bad.line, bad.column) == flaw[:3]
    assert flaw[3] in bad.reason and bad.code == code and bad.source == str(tmp_path / name)
    assert bad.reason == caught.value.cause
    assert bad.line is None or f"line {bad.line}" in caught.value.where


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        # Rows that stand in lines of their own: the next line that begins the same way is the next row.
        ("indented.json", INDENTED.replace("Answer 2.", 'An "odd quote'), [1, 3, 4, 5]),
        ("last.json", INDENTED.replace("Answer 5.", 'An "odd quote'), [1, 2, 3, 4]),
        ("open.json", INDENTED.replace('"Answer 5."\n  }', '"Answer 5."\n'), [1, 2, 3, 4]),
        ("by-line.json", BY_LINE.replace("Answer 2.", 'An "odd quote'), [1, 3, 4, 5]),
        ("one-after-another.json", "\n".join(json.dumps(row, indent=1) for row in ROWS).replace('2."', "2."), [1, 3, 4, 5]),
        # Rows in one line: their brackets close, or a row like those before follows.
        ("first.json", COMPACT.replace("Answer 1.", 'An "odd" quote'), [2, 3, 4, 5]),
        ("two.json", COMPACT.replace("Answer 2.", '"Answer').replace("Answer 4.", '"Answer'), [1, 3, 5]),
        ("inside.json", json.dumps({"version": 1, "data": ROWS}).replace("Answer 2.", '"Answer'), [1, 3, 4, 5]),
        # A turn inside a broken row is no row.
        (
            "turns.json",
            json.dumps([{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(4)]).replace("a1", 'a"1'),
            [1, 3, 4],
        ),
        # A quote that is never closed takes in the lines that follow it.
        ("end.csv", CSV.replace("Ask 3?", '"Ask 3?'), [1, 2, 4, 5]),
        ("lines.csv", CSV.replace("Answer 2.", '"two\nlines" and more'), [1, 3, 4, 5]),
    ],
    ids=short,
)  # fmt: skip
def test_reading_goes_on_at_the_next_row(tmp_path: Path, name: str, content: str, kept: list[int]) -> None:
    seen = load(tmp_path, name, content)
    assert numbers(seen) == kept
    missing = sorted({1, 2, 3, 4, 5} - set(kept)) if "turns" not in name else [2]
    assert [bad.row for bad in seen.skipped] == missing and not seen.repaired


def test_where_the_next_row_begins_is_not_guessed(tmp_path: Path) -> None:
    """A quote too many turns strings inside out, and no row before it says what a row looks like."""
    broken = '[{"a": "an "odd quote"}, {"a": "in one line"}]'
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, "a.json", broken)
    assert caught.value.code == Exit.DATA_SYNTAX
    rows = json.dumps(ROWS[:2])[:-1] + ", " + broken[1:]
    seen = load(tmp_path, "b.json", rows)
    assert numbers(seen) == [1, 2]
    assert [bad.row for bad in seen.skipped] == [0, 3]
    assert "nothing behind row 3 was read" in seen.skipped[0].reason
    seen = load(tmp_path, "c.json", COMPACT.replace("Answer 5.", 'An "odd quote'))
    assert numbers(seen) == [1, 2, 3, 4] and [bad.row for bad in seen.skipped] == [0, 5]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.json", BY_LINE.replace('3."},', '3."}'), "a comma is missing between two rows"),
        ("comma.json", BY_LINE.replace('5."}', '5."},'), "a comma too many stands before the ]"),
        ("utf32.jsonl", LINES.encode("utf-32"), "UTF-32"),
    ],
    ids=short,
)
def test_flaws_that_cost_no_row(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    seen = load(tmp_path, name, content)
    assert numbers(seen) == [1, 2, 3, 4, 5] and not seen.skipped
    [bad] = seen.repaired
    assert bad.row == 0 and reason in bad.reason and bad.repaired
    with pytest.raises(FtuiError):
        load(tmp_path, name, content, strict=True)


def test_what_follows_or_lies_between_the_rows_is_named(tmp_path: Path) -> None:
    seen = load(tmp_path, "a.json", COMPACT[:-1] + ', 3, ["x"], null] tail')
    assert numbers(seen) == [1, 2, 3, 4, 5]
    assert [(bad.row, bad.reason.partition(" is ")[2][:8]) for bad in seen.skipped[1:]] == [
        (6, "a number"),
        (7, "a list, "),
        (8, "null, no"),
    ]
    assert "something follows the ]" in seen.skipped[0].reason and seen.skipped[0].column == len(COMPACT) + 18


def test_a_packed_file_that_was_cut_keeps_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress("".join(json.dumps({"text": f"{n} " * 20}) + "\n" for n in range(5000)).encode())
    seen = load(tmp_path, "a.jsonl.gz", packed[: len(packed) * 2 // 3])
    read = len(seen.examples)
    assert 1000 < read < 5000
    [bad] = seen.skipped
    assert bad.row == 0 and bad.reason == f"the gzip file ends too early: it was cut off, after row {read}"
    with pytest.raises(FtuiError) as caught:
        load(tmp_path, "a.jsonl.gz", packed[: len(packed) * 2 // 3], strict=True)
    assert caught.value.code == Exit.DATA_SYNTAX


def test_a_damaged_row_of_an_arrow_file_costs_itself(tmp_path: Path) -> None:
    import pyarrow

    table = pyarrow.table({"text": [f"the row with number {n}" for n in range(10)]})
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    raw = (tmp_path / "a.arrow").read_bytes().replace(b"number 3", b"num\xff\xff\xff 3")
    seen = load(tmp_path, "b.arrow", raw)
    assert numbers(seen) == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [(bad.row, bad.code) for bad in seen.skipped] == [(4, Exit.DATA_SYNTAX)]


@pytest.mark.parametrize(
    ("name", "content", "done"),
    [
        ("commas.jsonl", LINES.replace('3."}', '3.",},'), "took out a comma too many"),
        ("commas.json", INDENTED.replace('3."\n', '3.",\n'), "took out a comma too many"),
        ("mark.jsonl", LINES.replace('{"instruction": "Ask 3', '\ufeff{"instruction": "Ask 3'), "took out marks"),
        ("nul.jsonl", LINES.replace("Answer 3.", "Answer\0 3."), "took out NUL bytes (1)"),
        ("nul.csv", CSV.replace("Answer 3.", "Answer\0 3."), "took out NUL bytes (1)"),
        ("python.jsonl", LINES.replace(json.dumps(ROWS[2]), str(ROWS[2])), "read as Python"),
        ("python.json", COMPACT.replace(json.dumps(ROWS[2]), str({**ROWS[2], "x": [None, True]})), "read as Python"),
        ("brace.jsonl", LINES.replace('3."}', '3."'), "added } at its end"),
        ("brace.json", INDENTED.replace('"Answer 3."\n  },', '"Answer 3."\n  ,'), "added } at its end"),
        ("tab.jsonl", LINES.replace("Answer 3.", "Answer\t3."), "escaped control characters"),
        ("line.jsonl", LINES.replace("Answer 3.", "Answer\n\n3."), "joined 3 lines; escaped control characters"),
        ("spread.jsonl", LINES.replace('3?", "', '3?",\n "'), "joined 2 lines"),
        ("line.json", BY_LINE.replace("Answer 3.", "Answer\n3."), "escaped control characters"),
        ("latin.jsonl", LINES.replace("Answer 3.", "Très café.").encode("cp1252"), "read as Windows-1252"),
        ("latin.json", COMPACT.replace("Answer 3.", "Très café.").encode("cp1252"), "read as Windows-1252"),
        ("latin.csv", CSV.replace("Answer 3.", "Très café.").encode("cp1252"), "read as Windows-1252"),
        ("chinese.json", INDENTED.replace("Answer 3.", "我是一个助手").encode("gb18030"), "read as GB18030"),
    ],
    ids=short,
)
def test_what_has_one_plain_meaning_is_mended(tmp_path: Path, name: str, content: str | bytes, done: str) -> None:
    looked = load(tmp_path, name, content)
    assert 3 in [bad.row for bad in looked.skipped] and not looked.repaired
    mended = load(tmp_path, name, content, "repair", strict=True)
    assert numbers(mended) == [1, 2, 3, 4, 5] and not mended.skipped
    [bad] = mended.repaired
    assert bad.row == 3 and done in bad.repaired and bad.reason == looked.skipped[0].reason


def test_mended_rows_say_what_they_meant(tmp_path: Path) -> None:
    def answer(name: str, content: str | bytes) -> str:
        messages = load(tmp_path, name, content, "repair").examples[2].messages
        assert messages is not None
        return messages[-1].content

    assert answer("a.jsonl", LINES.replace("Answer 3.", "Answer\n\n3.")) == "Answer\n\n3."
    assert answer("b.jsonl", LINES.replace("Answer 3.", "Très café.").encode("cp1252")) == "Très café."
    assert answer("c.json", INDENTED.replace("Answer 3.", "我是一个助手").encode("gb18030")) == "我是一个助手"
    odd = {**ROWS[2], "output": 'It\'s "so", \\ 3.\n'}
    assert answer("d.jsonl", LINES.replace(json.dumps(ROWS[2]), str(odd))) == odd["output"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_files_in_utf_16_are_read_for_repair(tmp_path: Path, name: str, codec: str) -> None:
    content = {"a.json": INDENTED, "a.jsonl": LINES, "a.csv": CSV}[name]
    mended = load(tmp_path, name, content.encode(codec), "repair", strict=True)
    assert numbers(mended) == [1, 2, 3, 4, 5]
    assert mended.sha256 == load(tmp_path, name, content).sha256
    assert [(bad.row, "UTF-16" in bad.repaired) for bad in mended.repaired] == [(0, True)]


def test_an_array_without_its_end_is_closed(tmp_path: Path) -> None:
    cut = INDENTED[:-2]
    looked = load(tmp_path, "a.json", cut)
    assert numbers(looked) == [1, 2, 3, 4, 5] and "before the ]" in looked.skipped[0].reason
    mended = load(tmp_path, "a.json", cut, "repair", strict=True)
    assert not mended.skipped and mended.repaired[0].repaired == "closed the array"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "cut in a str',  # what follows is not known
        '{"a": "x",',
        '{"a": 12',  # it may have been 123
        '{"a": "x" "y"}',  # two strings: quotes that were not escaped, or Python's one string
        '{"a": "he said "no" to it"}',
        '{"a": }',
        '{"a": ("x")}',
        "{'a': b'x'}",
        "{'a': '\\q'}",
        '{"a": "x"}}',
        '{"a": "x"]',
        '[1,,2]',
        "",
        "'",
    ],
)  # fmt: skip
def test_nothing_is_guessed(text: str) -> None:
    assert repair.value(text, close=True) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ("{'a': None, \"b\": \"it's\", 'c': 'it\\'s \"so\"', 'd': [True, False]}", {"a": None, "b": "it's", "c": 'it\'s "so"', "d": [True, False]}),
        ('{"a": "x\\/y", "b": None}', {"a": "x/y", "b": None}),
        ('{"a": "None, \'True\',}"}  ,', {"a": "None, 'True',}"}),
        ('{"a": {"b": ["x"', {"a": {"b": ["x"]}}),
        ('\ufeff{"a": "x\ty"}', {"a": "x\ty"}),
    ],
)  # fmt: skip
def test_what_is_plain(text: str, meant: Any) -> None:
    found = repair.value(text, close=True)
    assert found is not None and found[0] == meant and found[1]


def test_a_character_that_was_cut_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    for damaged in ("Réponse 3.".encode().replace(b"\xa9", b""), "你好吗".encode()[:-1]):
        content = LINES.encode().replace(b"Answer 3.", damaged)
        assert 3 not in numbers(load(tmp_path, "a.jsonl", content, "repair"))


def test_one_file_that_cannot_be_read_does_not_end_the_look_at_others(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.csv").write_text(CSV)
    (folder / "b.csv").write_text("q,q\n1,2\n")
    (folder / "c.csv").write_text(CSV.replace("Ask", "Say"))
    seen = dataset.load(Data(source=str(folder)), strict=False)
    assert len(seen.examples) == 10
    assert [(bad.row, bad.source[-5:]) for bad in seen.skipped] == [(0, "b.csv")]
    with pytest.raises(FtuiError):
        dataset.load(Data(source=str(folder), on_bad_row="skip"))
