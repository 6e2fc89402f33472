"""Every kind of file is read row by row; every flaw in one is named by file, line, column and reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from engine.data import sources
from engine.errors import Exit, FtuiError

ROWS = [{"instruction": "Who are you?", "output": "I am Ada."}, {"instruction": "你是谁？", "output": "我是 Ada。"}]


def short(value: object) -> str:
    """A test's name from its parameters: file contents are too long for one."""
    return value if isinstance(value, str) and value.isprintable() and len(value) < 25 else "…"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def failure(path: Path) -> FtuiError:
    with pytest.raises(FtuiError) as caught:
        list(sources.read(path))
    return caught.value


def jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CSV = 'instruction,output\nWho are you?,I am Ada.\n"你是谁？",我是 Ada。\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("indented.json", json.dumps(ROWS, indent=2, ensure_ascii=False)),
        ("lines.json", jsonl(ROWS)),
        ("joined.json", json.dumps(ROWS[0], indent=1) + json.dumps(ROWS[1])),
        ("a.jsonl", jsonl(ROWS)),
        ("blank-lines.jsonl", "\n" + jsonl(ROWS).replace("\n", "\r\n\r\n")),
        ("array.jsonl", json.dumps(ROWS)),
        ("bom.jsonl", b"\xef\xbb\xbf" + jsonl(ROWS).encode()),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("no-suffix", jsonl(ROWS)),
        ("a.csv", CSV),
        ("bom.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("semicolon.csv", CSV.replace(",", ";")),
        ("a.tsv", CSV.replace(",", "\t")),
        ("inside.json", json.dumps({"data": ROWS}, indent=1)),
        ("inside-one-line.json", json.dumps({"version": "1", "size": [2, 3], "train": ROWS, "test": [{"q": 1}]})),
        ("inside.jsonl", json.dumps({"train": ROWS})),
        ("packed.jsonl.gz", gzip.compress(jsonl(ROWS).encode())),
        ("packed-twice.jsonl.gz", gzip.compress(jsonl(ROWS[:1]).encode()) + gzip.compress(jsonl(ROWS[1:]).encode())),
        ("packed.json.gz", gzip.compress(json.dumps(ROWS, indent=1).encode())),
        ("packed.csv.gz", gzip.compress(CSV.encode())),
        ("packed.tsv.zst", zstandard.compress(CSV.replace(",", "\t").encode())),
        ("packed.json.zst", zstandard.compress(json.dumps(ROWS).encode())),
        (
            "packed-twice.jsonl.zst",
            zstandard.compress(jsonl(ROWS[:1]).encode()) + zstandard.compress(jsonl(ROWS[1:]).encode()),
        ),
        ("packed-no-suffix", zstandard.compress(jsonl(ROWS).encode())),
    ],
    ids=short,
)
def test_the_same_rows_come_out_of_every_kind_of_text_file(tmp_path: Path, name: str, content: str | bytes) -> None:
    rows = list(sources.read(write(tmp_path, name, content)))
    assert [row.value for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2]


def test_a_row_with_a_list_of_objects_is_no_wrapper(tmp_path: Path) -> None:
    for rows in (
        [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}],
        [{"tools": [{"name": "look"}], "question": "q"}, {"tools": [{"name": "look"}], "question": "r"}],
        [{"talk": [{"from": "human", "value": "q"}]}],
    ):
        path = write(tmp_path, "a.json", "\n".join(json.dumps(row, indent=1) for row in rows))
        assert [row.value for row in sources.read(path)] == rows
        assert [row.value for row in sources.read(write(tmp_path, "a.jsonl", jsonl(rows)))] == rows


def test_one_of_several_arrays_is_read_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", json.dumps({"train": ROWS, "test": [{"a": "b"}], "dev": []}, indent=1))
    notes: list[str] = []
    assert [row.value for row in sources.read(path, array="test", notes=notes)] == [{"a": "b"}]
    assert "train" in notes[0] and "dev" in notes[0]
    with pytest.raises(FtuiError) as caught:
        list(sources.read(path, array="valid"))
    assert caught.value.code == Exit.DATA_SHAPE and "train" in caught.value.next_step


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow(tmp_path: Path, kind: str) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(ROWS * 3)
    for name in ("a.arrow", "no-suffix"):
        with pyarrow.OSFile(str(tmp_path / name), "wb") as sink:
            write = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
            with write(sink, table.schema) as out:
                out.write_table(table, max_chunksize=4)
        rows = list(sources.read(tmp_path / name))
        assert [row.value for row in rows] == ROWS * 3
        assert [(row.number, row.line) for row in rows] == [(number, None) for number in range(1, 7)]
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:200])
    assert failure(tmp_path / "cut.arrow").code == Exit.DATA_SYNTAX


def test_a_table_that_is_packed_once_more_says_so(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    packed = write(tmp_path, "a.parquet.gz", gzip.compress((tmp_path / "a.parquet").read_bytes()))
    error = failure(packed)
    assert error.code == Exit.DATA_SYNTAX and "packed Parquet" in error.cause


def test_rows_are_numbered_on_and_progress_is_in_bytes_of_the_file(tmp_path: Path) -> None:
    content = gzip.compress(jsonl([{"text": str(n) * 50} for n in range(3000)]).encode())
    path = write(tmp_path, "a.jsonl.gz", content)
    seen: list[int] = []
    rows = list(sources.read(path, before=100, moved=seen.append))
    assert [rows[0].number, rows[-1].number, rows[0].line] == [101, 3100, 1]
    assert seen == sorted(seen) and seen[0] > 0 and seen[-1] <= len(content)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert [row.value for row in sources.read(tmp_path / "a.parquet")] == ROWS
    broken = write(tmp_path, "cut.parquet", (tmp_path / "a.parquet").read_bytes()[:-20])
    assert failure(broken).code == Exit.DATA_SYNTAX


def test_rows_know_the_line_they_begin_on(tmp_path: Path) -> None:
    indented = write(tmp_path, "a.json", json.dumps(ROWS, indent=1))
    assert [row.line for row in sources.read(indented)] == [2, 6]
    quoted = write(tmp_path, "a.csv", 'q,a\n"two\nlines",x\nnext,y\n')
    assert [(row.line, row.value["q"]) for row in sources.read(quoted)] == [(2, "two\nlines"), (4, "next")]


def test_rows_larger_than_a_read_and_characters_across_reads(tmp_path: Path) -> None:
    rows = [{"text": "é" * 700_000}, {"text": "x" * 2_500_001}, {"text": "end"}]
    path = write(tmp_path, "large.json", json.dumps(rows, ensure_ascii=False, indent=0))
    assert [(row.line, row.value["text"]) for row in sources.read(path)] == [
        (line, row["text"]) for line, row in zip((2, 5, 8), rows, strict=True)
    ]


def test_plain_text_is_cut_at_lines_or_where_it_is_wrapped_at_blank_lines(tmp_path: Path) -> None:
    lines = write(tmp_path, "lines.txt", "one thought\n\nanother\r\nand a third")
    assert [row.value for row in sources.read(lines)] == [
        {"line": "one thought"},
        {"line": "another"},
        {"line": "and a third"},
    ]
    wrapped = write(tmp_path, "wrapped.txt", "a thought that\ngoes on\n\n\nanother one\nof two lines\nor three\n")
    assert [(row.line, row.value["paragraph"]) for row in sources.read(wrapped)] == [
        (1, "a thought that\ngoes on"),
        (5, "another one\nof two lines\nor three"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "where", "cause"),
    [
        ("cut.jsonl", jsonl(ROWS)[:-9], "line 2, column 37", "cut off"),
        ("cut.json", json.dumps(ROWS, indent=1)[:-20], "line 8", "cut off"),
        ("open.json", json.dumps(ROWS, indent=1)[:-2], "line 9, column 3", "before the ]"),
        ("comma.json", '[\n{"a": "b"},\n]', "line 3, column 1", "comma too many"),
        ("missing.json", '[{"a": "b"}\n{"a": "c"}]', "line 2, column 1", "comma is missing"),
        ("after.json", '[{"a": "b"}]\n x', "line 2, column 2", "something follows"),
        ("single.json", "[{'a': 'b'}]", "line 1, column 3", "not JSON"),
        ("broken.jsonl", '{"a": "b"}\n  {"a": b}\n{"a": "b"}\n', "line 2, column 9", "not JSON"),
        ("deep.jsonl", '{"a": ' + "[" * 100_000 + "\n", "line 1", "deep"),
        ("deep.json", '[{"a": ' + "[" * 100 + "]" * 100 + "}]", "line 1", "deep"),
        ("digits.jsonl", '{"a": ' + "9" * 5000 + "}\n", "line 1", "digits"),
        ("cells.csv", "q,a\nx,y\nx,y,z\n", "line 3", "3 cells, the header names 2"),
        ("quote.csv", 'q,a\nx,y\n"x,y\nx,y\n', "line 3", "inside a quoted cell"),
        ("twice.csv", "q,q\nx,y\n", "line 1", "two columns are named q"),
        ("packed.jsonl", b"\x1f\x8b\x08\x00rest", "packed.jsonl", "gzip"),
        ("cut.jsonl.zst", zstandard.compress(jsonl(ROWS).encode())[:-9], "cut.jsonl.zst", "zstd"),
        ("sheet.csv", b"PK\x03\x04rest", "sheet.csv", "zip"),
        ("tail.txt", "good\nnaïve 你".encode()[:-1], "line 2", "cut off"),
    ],
    ids=short,
)
def test_what_breaks_the_format_is_data_syntax_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, where: str, cause: str
) -> None:
    error = failure(write(tmp_path, name, content))
    assert error.code == Exit.DATA_SYNTAX
    assert name in error.where and where in error.where
    assert cause in error.cause
    assert error.next_step


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("latin-1", "WINDOWS-1252"),
        ("gb18030", "GB18030"),
    ],
)
def test_other_encodings_are_named_with_the_command_that_converts(
    tmp_path: Path, name: str, encoding: str, named: str
) -> None:
    answer = "我是一个助手，很高兴认识你" if encoding == "gb18030" else "le café est prêt, voilà, très bientôt"
    content = {
        "a.json": json.dumps([{"instruction": "?", "output": answer}], ensure_ascii=False),
        "a.jsonl": json.dumps({"instruction": "?", "output": answer}, ensure_ascii=False) + "\n",
        "a.csv": f"instruction,output\n?,{answer}\n",
        "a.txt": f"one line\n{answer}\n",
    }[name]
    error = failure(write(tmp_path, name, content.encode(encoding)))
    assert error.code == Exit.DATA_ENCODING
    assert f"iconv -f {named} -t UTF-8" in error.next_step


def test_a_wrong_byte_far_into_a_file_is_placed(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl"):
        rows = [{"text": "é" * 40} for _ in range(15_000)]
        text = json.dumps(rows, ensure_ascii=False, indent=0) if name == "a.json" else jsonl(rows)
        raw = bytearray(text.encode())
        at = text.encode().index(b"\n", len(raw) - 5000) + 12
        raw[at : at + 2] = b"\xff\xff"
        error = failure(write(tmp_path, name, bytes(raw)))
        line = raw.count(b"\n", 0, at) + 1
        assert error.code == Exit.DATA_ENCODING and f"line {line}, " in error.where


def test_nul_bytes_are_an_encoding_problem(tmp_path: Path) -> None:
    error = failure(write(tmp_path, "a.jsonl", b'{"a": "b"}\n{"a": "b\0c"}\n'))
    assert error.code == Exit.DATA_ENCODING and "NUL" in error.cause and "line 2" in error.where
    # A file that is no text at all is refused also by who would leave bad rows out.
    with pytest.raises(FtuiError) as caught:
        list(sources.read(write(tmp_path, "sound.bin", b"RIFF\0\0\0\1\n" * 9), lambda *_: None))
    assert caught.value.code == Exit.DATA_ENCODING


@pytest.mark.parametrize("content", ["", " \n\n", "[]", "\ufeff", "a,b\n"])
def test_files_without_rows_are_missing_data(tmp_path: Path, content: str) -> None:
    name = "a.csv" if "," in content else "a.json"
    assert failure(write(tmp_path, name, content)).code == Exit.DATA_MISSING


def test_a_wrong_name_is_missing_data_with_the_likely_one(tmp_path: Path) -> None:
    write(tmp_path, "identity.json", "[]")
    error = failure(tmp_path / "identiy.json")
    assert error.code == Exit.DATA_MISSING and "identity.json" in error.next_step
    assert failure(tmp_path).code == Exit.DATA_MISSING


def test_rows_that_are_no_objects_are_row_errors(tmp_path: Path) -> None:
    error = failure(write(tmp_path, "a.json", '[{"a": "b"},\n "text"]'))
    assert error.code == Exit.DATA_ROW and "row 2 is a string" in error.cause and "line 2" in error.where


def test_broken_lines_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"a": "1"}\n{"a": \n{"a": "3"}\n')
    bad: list[tuple[int, int | None]] = []
    rows = list(sources.read(path, lambda row, line, *_: bad.append((row, line))))
    assert [row.value["a"] for row in rows] == ["1", "3"]
    assert [row.number for row in rows] == [1, 3]
    assert bad == [(2, 2)]


def test_a_row_without_an_end_is_not_read_to_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '[{"text": "' + "x" * (40 * 1024 * 1024))
    error = failure(path)
    assert error.code == Exit.DATA_SYNTAX and "longer than 32 MB" in error.cause and "line 1" in error.where


def test_a_home_that_is_not_there_is_missing_data() -> None:
    assert failure(Path("~no-such-person/rows.json")).code == Exit.DATA_MISSING
