"""One row of a file is damaged: the file is read or refused in plain words, and that very row is named.

A few hundred by default; FTUI_MUTATIONS=10000 makes ten thousand.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.data import dataset
from engine.errors import FtuiError
from engine.recipe import Data

COUNT = int(os.environ.get("FTUI_MUTATIONS", "300"))
ROWS = 12

# What a row becomes, as its line of JSONL: each of these is no row that can be trained on.
DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "trailing comma": lambda chance, row: row[:-1] + b",}",
    "no end": lambda chance, row: row[: chance.randrange(2, len(row) - 1)],
    "no quote": lambda chance, row: row.replace(b'"', b"", 1),
    "single quotes": lambda chance, row: row.replace(b'"', b"'"),
    "no colon": lambda chance, row: row.replace(b": ", b" ", 1),
    "control character": lambda chance, row: inside(chance, row, bytes([chance.choice([0, 1, 8, 27])])),
    "no UTF-8": lambda chance, row: inside(chance, row, chance.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8"])),
    "half a character": lambda chance, row: inside(chance, row, b"\\ud800"),
    "bad escape": lambda chance, row: inside(chance, row, b"\\x"),
    "two values": lambda chance, row: row + b" " + row[: chance.randrange(1, 9)],
    "a list": lambda chance, row: b"[1, 2]",
    "a word": lambda chance, row: chance.choice([b'"text"', b"7", b"null", b"true"]),
    "no answer": lambda chance, row: json.dumps({"instruction": "why?"}).encode(),
    "empty answer": lambda chance, row: json.dumps(
        {"instruction": "why?", "output": chance.choice(["", None])}
    ).encode(),
    "answer of a wrong kind": lambda chance, row: json.dumps(
        {"instruction": "why?", "output": chance.choice([{"a": 1}, [1], [{"b": []}]])}
    ).encode(),
    "deep": lambda chance, row: b'{"instruction": "why?", "output": ' + b"[" * 500 + b"]" * 500 + b"}",
}
TABLE = {"empty answer": ("why?", ""), "too many cells": ("why?", "so", "and more"), "one cell": ("why?",)}


def inside(chance: random.Random, row: bytes, what: bytes) -> bytes:
    """`what` somewhere in the text of the answer."""
    at = row.rindex(b": ") + 3 + chance.randrange(4)
    return row[:at] + what + row[at:]


def row(number: int) -> dict[str, str]:
    return {"instruction": f"question {number}, why is it so?", "output": f"because of {number}, and that is all"}


def written(chance: random.Random, at: int) -> tuple[str, str, bytes]:
    """(kind of file, kind of damage, bytes) of a file whose row `at` (from 1) is damaged."""
    kind = chance.choice(["jsonl", "jsonl", "json", "csv"])
    if kind == "csv":
        damage = chance.choice(list(TABLE))
        out = io.StringIO()
        table = csv.writer(out)
        table.writerow(["instruction", "output"])
        table.writerows(TABLE[damage] if number == at else row(number).values() for number in range(1, ROWS + 1))
        return kind, damage, out.getvalue().encode()
    damage = chance.choice(list(DAMAGES))
    lines = [json.dumps(row(number)).encode() for number in range(1, ROWS + 1)]
    lines[at - 1] = DAMAGES[damage](chance, lines[at - 1])
    return kind, damage, b"\n".join(lines) + b"\n" if kind == "jsonl" else b"[\n" + b",\n".join(lines) + b"\n]"


def named(path: Path) -> set[int]:
    """The rows that are named when the file is read with bad rows left out; a first line is the row of an array's [."""
    try:
        data = dataset.load(Data(source=str(path), on_bad_row="skip"), strict=True)
    except FtuiError as error:
        assert 1 <= len(error.lines()) <= 3 and not any("\n" in line for line in error.lines())
        text = " ".join(error.lines())
        found = {int(number) for number in re.findall(r"\brow (\d+)", text)}
        shift = 0 if path.suffix == ".jsonl" else 1
        return found | {int(number) - shift for number in re.findall(r"\bline (\d+)", text)}
    # In an array the line is the sure name: two values in one line are counted as two rows.
    shift = 0 if path.suffix == ".jsonl" else 1
    flaws = [*data.skipped, *data.repaired]
    return {bad.row for bad in flaws} | {bad.line - shift for bad in flaws if bad.line is not None}


def test_the_damaged_row_is_named(tmp_path: Path) -> None:
    chance = random.Random(1)
    missed: Counter[str] = Counter()
    for number in range(COUNT):
        at = chance.randint(1, ROWS)
        kind, damage, raw = written(chance, at)
        path = tmp_path / f"rows.{kind}"
        path.write_bytes(raw)
        try:
            right = at in named(path)
        except Exception as error:
            raise AssertionError(
                f"number {number}, {kind}, {damage}: {type(error).__name__}: {error}\n{raw!r}"
            ) from error
        missed[f"{kind}, {damage}"] += not right
    share = 1 - sum(missed.values()) / COUNT
    print(f"\n{COUNT:,} damaged files, none with a traceback, the row named in {share:.2%}; not named: {dict(+missed)}")
    assert share >= 0.99, +missed
