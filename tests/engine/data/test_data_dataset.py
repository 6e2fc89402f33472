"""A data set of one or several sources: numbers, weights, where each row comes from, a first look, one hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Source


def rows(count: int, word: str = "Ask") -> list[dict[str, Any]]:
    return [{"prompt": f"{word} {n}?", "completion": f"Answer {n}."} for n in range(count)]


def write(path: Path, values: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(path)


def test_row_numbers_run_on_through_all_sources(tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", rows(3))
    folder = tmp_path / "folder"
    write(folder / "a.jsonl", [*rows(2), {"prompt": "no answer", "completion": ""}])
    Path(folder / "b.jsonl").write_text("\n" + json.dumps(rows(1)[0]) + "\n{broken\n" + json.dumps(rows(1)[0]))
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    last = write(tmp_path / "last.jsonl", [talk])
    data = dataset.load(
        Data(source=first, more=[Source(source=str(folder)), Source(source=last)], on_bad_row="skip"),
    )
    assert [example.row for example in data.examples] == [1, 2, 3, 4, 5, 7, 9, 10]
    assert [shape.name for shape in data.shapes] == ["prompt-completion", "prompt-completion", "messages"]
    assert data.shape is data.shapes[0] and data.source == first and data.begins == [0, 3, 7]
    assert data.origin(3) == (first, 3, 3)
    assert data.origin(5) == (str(folder / "a.jsonl"), 2, 2)
    assert data.origin(9) == (str(folder / "b.jsonl"), 3, 4)
    assert data.origin(10) == (last, 1, 1)
    assert [(bad.row, bad.line, bad.source) for bad in data.skipped] == [
        (6, 3, str(folder / "a.jsonl")),
        (8, 3, str(folder / "b.jsonl")),
    ]
    assert data.skipped[0].reason.startswith("row 6 ")
    with pytest.raises(IndexError):
        data.origin(11)


def test_an_epoch_sees_rows_as_often_as_they_weigh(tmp_path: Path) -> None:
    plain, twice, half = (write(tmp_path / f"{name}.jsonl", rows(20, name)) for name in ("a", "b", "c"))
    alone = dataset.load(Data(source=plain))
    assert list(alone.repeats(1)) == list(range(20))
    data = dataset.load(
        Data(source=plain, more=[Source(source=twice, weight=2.25), Source(source=half, weight=0.5)]),
    )
    seen = list(data.repeats(7))
    assert len(data.examples) == 60 and seen[:20] == list(range(20))
    assert seen[20:60] == [*range(20, 40), *range(20, 40)]
    assert len(seen) == 20 + 45 + 10 == 75
    drawn = seen[65:]
    assert drawn == sorted(set(drawn)) and all(40 <= index < 60 for index in drawn)
    assert list(data.repeats(7)) == seen and list(data.repeats(8)) != seen


def test_a_first_look_reads_some_rows_of_each_source(tmp_path: Path) -> None:
    many, few = write(tmp_path / "many.jsonl", rows(1000)), write(tmp_path / "few.jsonl", rows(5))
    data = Data(source=many, more=[Source(source=few)])
    look = dataset.load(data, strict=False, limit=10)
    assert [example.row for example in look.examples] == list(range(1, 16))
    assert look.partial and look.begins == [0, 10]
    whole = dataset.load(data, strict=False, limit=1000)
    assert not whole.partial and len(whole.examples) == 1005
    assert dataset.load(Data(source=few), limit=5).partial is False
    # Rows that cannot be read count, too: a look at a broken file ends as well.
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows(1)[0]) + "\n" + "{broken\n" * 1000)
    broken = dataset.load(Data(source=str(tmp_path / "broken.jsonl")), strict=False, limit=10)
    assert broken.partial and len(broken.skipped) == 9


def test_progress_is_told_in_bytes_of_all_files(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", rows(2000)), write(tmp_path / "b.jsonl", rows(500))
    told: list[tuple[int, int]] = []
    dataset.load(Data(source=first, more=[Source(source=second)]), progress=lambda *moved: told.append(moved))
    size = Path(first).stat().st_size + Path(second).stat().st_size
    assert told == sorted(told) and {total for _, total in told} == {size}
    assert told[-1] == (size, size) and len(told) > 5


def test_progress_through_tables(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist(rows(5000))
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    for new, name in ((pyarrow.ipc.new_file, "file.arrow"), (pyarrow.ipc.new_stream, "stream.arrow")):
        with pyarrow.OSFile(str(tmp_path / name), "wb") as sink, new(sink, table.schema) as out:
            out.write_table(table, max_chunksize=1000)
    for name in ("a.parquet", "file.arrow", "stream.arrow"):
        told: list[tuple[int, int]] = []
        dataset.load(Data(source=str(tmp_path / name)), progress=lambda *moved, told=told: told.append(moved))
        size = (tmp_path / name).stat().st_size
        assert told == sorted(told) and told[-1] == (size, size)
        assert any(0 < done < size for done, _ in told)


def test_sources_that_teach_different_things_are_not_mixed(tmp_path: Path) -> None:
    answers = write(tmp_path / "answers.jsonl", rows(3))
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}] * 3)
    plain = write(tmp_path / "plain.jsonl", [{"text": "some text"}] * 3)
    with pytest.raises(FtuiError) as caught:
        dataset.load(Data(source=answers, more=[Source(source=pairs)]))
    assert caught.value.code == Exit.DATA_SHAPE and "pairs is for dpo" in caught.value.cause
    mixed = dataset.load(Data(source=plain, more=[Source(source=answers)]))
    assert mixed.stage == "sft" and dataset.load(Data(source=plain)).stage == "pretraining"


def test_bad_rows_do_what_was_chosen(tmp_path: Path) -> None:
    good, bad = rows(2), {"prompt": "q", "completion": None}
    path = write(tmp_path / "a.jsonl", [good[0], bad, good[1]])
    with pytest.raises(FtuiError) as caught:
        dataset.load(Data(source=path))
    assert caught.value.code == Exit.DATA_ROW and caught.value.where == f"{path}, line 2"
    for looked in (
        dataset.load(Data(source=path), strict=False),
        dataset.load(Data(source=path, on_bad_row="skip")),
        dataset.load(Data(source=path, on_bad_row="repair")),  # what an answer would be is not plain
    ):
        assert [example.row for example in looked.examples] == [1, 3]
        assert [(one.row, one.line, one.code) for one in looked.skipped] == [(2, 2, Exit.DATA_ROW)]
    only = write(tmp_path / "b.jsonl", [bad, bad])
    with pytest.raises(FtuiError) as caught:
        dataset.load(Data(source=only), strict=False)
    assert caught.value.code == Exit.DATA_ROW and "none of the 2 rows" in caught.value.cause


def test_a_file_of_nothing_but_bad_rows_is_not_listed_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MOST_BAD", 50)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(rows(1)[0]) + "\n" + "broken\n" * 200)
    looked = dataset.load(Data(source=str(path)), strict=False)
    assert len(looked.skipped) == 50 and looked.partial and "50 rows cannot be used" in looked.notes[0]
    with pytest.raises(FtuiError):
        dataset.load(Data(source=str(path), on_bad_row="skip"))
    empty = write(tmp_path / "b.jsonl", [*rows(1), *[{"prompt": "q", "completion": ""}] * 200, *rows(1)])
    more = Source(source=write(tmp_path / "c.jsonl", rows(3)))
    looked = dataset.load(Data(source=empty, more=[more]), strict=False)
    assert len(looked.skipped) == 50 and looked.partial and len(looked.notes) == 1
    assert looked.examples[0].row == 1 and len(looked.examples) == 4


def test_the_hash_is_that_of_what_is_taught(tmp_path: Path) -> None:
    def sha(*values: dict[str, Any], **options: Any) -> str:
        return dataset.load(Data(source=write(tmp_path / "a.jsonl", list(values)), **options)).sha256

    # As it has always been: a recipe that was kept finds its rows unchanged.
    assert sha({"prompt": "Who?", "completion": "Ada."}) == (
        "1495c70dfe0e0fed25192d909bd35b64323c8dfc744ff86b27c1b8dae8c0e1c9"
    )
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    rated = {"prompt": "q", "completion": "a", "label": True}
    call = {"function": {"name": "f", "arguments": "{}"}, "type": "function"}
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    called = [talk[0], {"role": "assistant", "content": "", "tool_calls": [call]}, talk[1]]
    tools = [{"name": "f", "parameters": {}}]
    hashes = [
        sha({"prompt": "q", "completion": "a"}),
        sha(pair),
        sha({**pair, "chosen": "b", "rejected": "a"}),
        sha(rated),
        sha({**rated, "label": False}),
        sha({"messages": called}),
        sha({"messages": talk, "tools": tools}),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hashes[1] == sha(pair)
    assert hashes[0] == sha({"messages": talk})


def test_placeholders_are_filled_in_both_answers(tmp_path: Path) -> None:
    pair = {"prompt": "Who are you, {{name}}?", "chosen": "I am {{name}}.", "rejected": "{{author}} knows."}
    data = dataset.load(Data(source=write(tmp_path / "a.jsonl", [pair]), values={"name": "Ada"}))
    [example] = data.examples
    assert (example.messages or [])[-1].content == "Who are you, Ada?"
    assert (example.chosen or [])[-1].content == "I am Ada."
    assert data.filled == {"name": 1} and data.placeholders == {"author": 1}
