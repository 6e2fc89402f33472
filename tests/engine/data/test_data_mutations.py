"""However a good file is damaged, it loads or says what is wrong: never another exception."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import dataset, findings
from engine.errors import FtuiError
from engine.recipe import Data

ROWS = [{"instruction": f"Ask {n} 你好", "input": "", "output": f"I am {{{{name}}}}, {n}."} for n in range(5)]
TALKS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hé"}]} for _ in range(3)]
FILES = {
    "a.json": json.dumps(ROWS, indent=1, ensure_ascii=False),
    "b.json": json.dumps(TALKS),
    "a.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "a.csv": "instruction,output\n" + "".join(f'"{row["instruction"]}",{row["output"]}\n' for row in ROWS),
    "a.txt": "\n".join(row["output"] for row in ROWS),
}
PIECES = [
    b"\0",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\r",
    b"\\",
    b"\xff\xfe",
    b"\xc3",
    b"null",
    b"NaN",
    b"\\ud800",
]
PIECES += [b"[" * 3000, b"9" * 5000, b'{"a":' * 70, b"\xef\xbb\xbf", b"1e999", b"{{author}}", b'"role"']

damage = st.tuples(
    st.floats(0, 1), st.integers(0, 30), st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), st.booleans()
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(damage, min_size=1, max_size=4),
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "gb18030"]),
)
def test_damaged_files_load_or_are_refused(
    name: str, damages: list[tuple[float, int, bytes, bool]], encoding: str
) -> None:
    raw = FILES[name].encode(encoding)
    for place, removed, inserted, cut in damages:
        at = int(place * len(raw))
        raw = raw[:at] + inserted + (b"" if cut else raw[at + removed :])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(raw)
        for mode in ("abort", "skip"):
            try:
                data = dataset.load(Data(source=str(path), on_bad_row=mode))  # type: ignore[arg-type]
            except FtuiError as error:
                assert 10 <= error.code <= 14
                assert 1 <= len(error.lines()) <= 3 and not any("\n" in line for line in error.lines())
            else:
                assert data.examples
                findings.find(data)
