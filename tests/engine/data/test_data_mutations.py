"""However good rows and files are damaged, they load or it is said what is wrong: never another exception.

FTUI_FUZZ_SECONDS=60 makes it go on for a minute.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.data import dataset, findings, lengths, tokenizer
from engine.errors import FtuiError
from engine.recipe import Data

ASKED = [{"instruction": f"Ask {n} 你好", "input": "", "output": f"I am {{{{name}}}}, {n}."} for n in range(5)]
TALKS = [
    {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hé"}]} for n in range(4)
]
TURNS = [
    {
        "conversations": [
            {"from": "human", "value": f"How warm is it? {n}"},
            {"from": "function_call", "value": '{"name": "warm", "arguments": {"in": "Rome"}}'},
            {"from": "observation", "value": '{"degrees": 21}'},
            {"from": "gpt", "value": "21 degrees."},
        ],
        "tools": '[{"name": "warm", "parameters": {"in": "city"}}]',
        "system": "Be brief.",
    }
    for n in range(3)
]
PAIRS = [{"prompt": f"Say {n}", "chosen": "Yes, I do.", "rejected": "no"} for n in range(4)]
RATED = [
    {"prompt": f"Say {n}", "completion": "Done, as you wish.", "label": n % 2 == 0, "history": [["a", "b"]]}
    for n in range(4)
]
TEXTS = [{"text": f"A line of plain text, {n}."} for n in range(4)]

PIECES = [
    *(b"\0", b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\\", b"'", b"\xff\xfe", b"\xc3", b"\xe9", b"\xb0\xa1"),
    *(b"null", b"NaN", b"None", b"\\ud800", b"[" * 3000, b"9" * 5000, b'{"a":' * 70, b"\xef\xbb\xbf", b"1e999"),
    *(b"{{author}}", b'"role"', b"},{", b"]}", b"\n\n", b'""', b"<|im_end|>", b"\x1f\x8b", b"\t"),
]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", " ", "{{name}}", "\ud800", "user", "gpt", "a@b.org", "<|im_start|>", "你好。" * 20]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "tool_calls", ""]), inner)
    ),
    max_leaves=6,
)
place = st.lists(st.integers(0, 5), min_size=1, max_size=4)
damage = st.tuples(
    st.floats(0, 1), st.integers(0, 30), st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), st.booleans()
)
KINDS = ["json", "pretty.json", "lines.json", "jsonl", "wrapped.json", "csv", "tsv", "txt", "parquet", "arrow"]


def replaced(value: Any, path: list[int], by: Any) -> Any:
    """A copy of `value` in which what lies at `path`, as far as it goes, is replaced; or left out, for a KeyError."""
    if not path or not isinstance(value, list | dict) or not value:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = list(value)[path[0] % len(value)] if isinstance(value, dict) else path[0] % len(value)
    if by is KeyError and len(path) == 1:
        del copy[key]
    else:
        copy[key] = replaced(value[key], path[1:], None if by is KeyError else by)  # type: ignore[index]
    return copy


def written(rows: list[Any], kind: str) -> bytes:
    """The rows as a file of that kind; JSON where the kind cannot hold them."""
    if kind in ("csv", "tsv"):
        out = io.StringIO()
        names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)) or ["text"]
        table = csv.writer(out, delimiter="\t" if kind == "tsv" else ",")
        table.writerow(names)
        table.writerows([[row.get(name) for name in names] for row in rows if isinstance(row, dict)])
        return out.getvalue().encode(errors="surrogatepass")
    if kind == "txt":
        return "\n".join(str(row) for row in rows).encode(errors="surrogatepass")
    if kind in ("parquet", "arrow"):
        import pyarrow
        from pyarrow import parquet

        try:
            table = pyarrow.Table.from_pylist(rows)
            sink = pyarrow.BufferOutputStream()
            if kind == "parquet":
                parquet.write_table(table, sink)
            else:
                with pyarrow.ipc.new_file(sink, table.schema) as file:
                    file.write_table(table, max_chunksize=2)
            return sink.getvalue().to_pybytes()
        except (pyarrow.ArrowException, AttributeError, TypeError, ValueError, OverflowError, UnicodeError):
            pass
    plain = {"ensure_ascii": False}
    if "lines" in kind or kind == "jsonl":
        text = "".join(json.dumps(row, **plain) + "\n" for row in rows)  # type: ignore[arg-type]
    elif kind == "wrapped.json":
        text = json.dumps({"version": 1, "data": rows, "other": [rows[:1]]}, **plain)  # type: ignore[arg-type]
    else:
        text = json.dumps(rows, indent=1 if "pretty" in kind else None, **plain)  # type: ignore[arg-type]
    return text.encode(errors="surrogatepass")


def loaded(path: Path, mode: str, strict: bool) -> dataset.Dataset | FtuiError:
    """What comes of reading; every error is one a person can read."""
    try:
        data = dataset.load(Data(source=str(path), on_bad_row=mode), strict=strict)  # type: ignore[arg-type]
    except FtuiError as error:
        assert 10 <= error.code <= 14
        assert 1 <= len(error.lines()) <= 3 and not any("\n" in line for line in error.lines())
        return error
    numbers = [example.row for example in data.examples]
    assert numbers and all(a < b for a, b in pairwise(numbers))
    for bad in (*data.skipped, *data.repaired):
        assert bad.reason and bad.source == str(path) and bad.row >= 0
        assert bad.line is None or bad.line >= 1
        assert bad.column is None or (bad.column >= 1 and bad.line is not None)
    assert not any(bad.repaired for bad in data.skipped) and all(bad.repaired for bad in data.repaired)
    assert not set(numbers) & {bad.row for bad in data.skipped}
    assert [data.origin(row)[:2] for row in numbers] == [(str(path), row) for row in numbers]
    return data


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.sampled_from([ASKED, TALKS, TURNS, PAIRS, RATED, TEXTS]),
    st.lists(st.tuples(place, st.one_of(anything, st.just(KeyError))), max_size=3),
    st.sampled_from(KINDS),
    st.lists(damage, max_size=4),
    st.sampled_from(["", "", "", "", "utf-16", "gb18030", "cp1252", "gz", "cut gz"]),
)
def check(
    rows: list[dict[str, Any]],
    changes: list[tuple[list[int], Any]],
    kind: str,
    damages: list[tuple[float, int, bytes, bool]],
    dress: str,
) -> None:
    values: Any = rows
    for path, by in changes:
        changed = replaced(values, path, by)
        values = changed if isinstance(changed, list) else [changed]
    raw = written(values, kind)
    if dress in ("utf-16", "gb18030", "cp1252"):
        raw = raw.decode(errors="replace").encode(dress, errors="replace")
    for at, removed, inserted, cut in damages:
        begin = int(at * len(raw))
        raw = raw[:begin] + inserted + (b"" if cut else raw[begin + removed :])
    name = "rows." + kind.rpartition(".")[2]
    if "gz" in dress:
        raw, name = gzip.compress(raw), name + ".gz"
        raw = raw[: len(raw) * 2 // 3] if dress == "cut gz" else raw
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(raw)
        strict = loaded(path, "abort", strict=True)
        loaded(path, "skip", strict=True)
        for mode in ("abort", "repair"):
            seen = loaded(path, mode, strict=False)
            if isinstance(strict, dataset.Dataset):
                assert isinstance(seen, dataset.Dataset) and seen.sha256 == strict.sha256
                assert not seen.skipped and not seen.repaired
            elif isinstance(seen, dataset.Dataset):
                assert seen.skipped or seen.repaired  # what stops a training is named to who looks
            if isinstance(seen, dataset.Dataset):
                findings.find(seen, lengths.count(seen, tokenizer.estimate()), 16)


def test_damaged_rows_and_files_load_or_are_refused() -> None:
    end = time.monotonic() + float(os.environ.get("FTUI_FUZZ_SECONDS", "0"))
    check()
    while time.monotonic() < end:
        check()
