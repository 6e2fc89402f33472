"""`data`: what is in rows, said as text and as JSON, whatever is wrong with them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Exit
from tests.engine.cli.conftest import Said

Ftui = Callable[..., Said]


def jsonl(path: Path, rows: list[Any]) -> Path:
    """Rows as JSONL; a string is a line as it stands."""
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two good rows, and one each that is no JSON, has no answer, and was cut off."""
    return jsonl(
        tmp_path / "damaged.jsonl",
        [
            {"instruction": "What is one?", "output": "A number."},
            '{"instruction": "What is two?", "output": }',
            {"instruction": "What is three?", "output": ""},
            {"instruction": "What is {{thing}}? Ask {{name}}.", "output": "A number, too."},
            '{"instruction": "What is five?", "output": "A number."',
        ],
    )


def test_data_in_text(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    said = ftui("data", rows, "--model", tiny_model, "--cutoff", "10", "--rows", "2")
    assert said.code == 0
    assert "12 rows, alpaca, for sft" in said.out
    assert "prompt ← instruction, input ← input, completion ← output" in said.out
    assert "exact" in said.out
    assert "12 rows cut, 12 lose their end token" in said.out
    assert "12 rows with nothing left to train" in said.out
    assert "▏" in said.out
    # Trained text is marked by signs and not by colour alone, and it is the answer with its end token.
    assert "⟦It is 1.<|im_end|>" in said.out
    assert "row 2" in said.out
    assert "row 3" not in said.out


def test_json_agrees_with_the_rows(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    got = ftui("data", rows, "--model", tiny_model, "--json").json
    assert (got["rows"], got["shape"], got["stage"], got["identity"]) == (12, "alpaca", "sft", False)
    for view in got["tokens"]["views"].values():
        assert sum(one["rows"] for one in view["histogram"]) == 12
        assert len({one["to"] - one["from"] for one in view["histogram"]}) == 1
    views = got["tokens"]["views"]
    assert views["whole"]["max"] <= views["prompt"]["max"] + views["completion"]["max"]
    assert got["tokens"]["p50"] == views["whole"]["p50"] <= views["whole"]["max"]
    assert got["cutoff"]["rows_cut"] == 0
    assert 0 <= got["cutoff"]["padding_fraction"] < 1 and 0 <= got["cutoff"]["packing_saves"] < 1
    assert got["memory"]["total"] == sum(
        count for name, count in got["memory"].items() if name not in ("total", "budget")
    )


def test_of_chooses_which_length_is_drawn(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    got = ftui("data", rows, "--model", tiny_model, "--of", "completion", "--json").json["tokens"]
    assert got["max"] == got["views"]["completion"]["max"] < got["views"]["whole"]["max"]
    assert "tokens an answer" in ftui("data", rows, "--model", tiny_model, "--of", "completion").out


def test_log_makes_few_rows_show(ftui: Ftui, tmp_path: Path, tiny_model: Path) -> None:
    short = {"prompt": "a", "completion": "b"}
    file = jsonl(tmp_path / "long.jsonl", [*[short] * 300, {"prompt": "a " * 60, "completion": "b"}])

    def bars(*words: str) -> list[int]:
        said = ftui("data", file, "--model", tiny_model, "--rows", "0", *words).out
        return sorted(len(bar) for bar in re.findall(r"(?m)^ *[\d,]+ ▏(\S+) \d", said))

    assert bars() == [1, 40]
    few, many = bars("--log")
    assert (few > 2, many) == (True, 40)
    assert "logarithmic" in ftui("data", file, "--model", tiny_model, "--log").out


def test_what_padding_wastes_and_packing_would_save(ftui: Ftui, tmp_path: Path) -> None:
    rows = [{"prompt": "a " * (n % 40 + 1), "completion": "b"} for n in range(200)]
    said = ftui("data", jsonl(tmp_path / "rows.jsonl", rows), "--cutoff", "60")
    assert re.search(r"8 rows at once: \d+ % padding, packing would save \d+ %", said.out)


def test_a_sample_says_so(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    said = ftui("data", rows, "--model", tiny_model, "--sample", "5")
    assert "5 of 12 rows, evenly spread" in said.out
    got = ftui("data", rows, "--model", tiny_model, "--sample", "5", "--json").json
    assert (got["rows"], got["counted"]) == (12, 5)


def test_a_preset_is_filled_with_its_own_values(ftui: Ftui, tiny_model: Path) -> None:
    got = ftui("data", "preset:identity", "-m", tiny_model, "--json").json
    assert (got["placeholders"], set(got["filled"])) == ({}, {"name", "author"})


def test_without_a_model_lengths_are_an_estimate_and_memory_is_not_known(ftui: Ftui, rows: Path) -> None:
    said = ftui("data", rows)
    assert "an estimate" in said.out
    assert "memory" not in said.out
    assert "rows cut" not in said.out
    assert "12 rows cut" in ftui("data", rows, "--cutoff", "5").out


def test_no_damage_stops_it_and_each_is_named_by_its_line(ftui: Ftui, damaged: Path, tiny_model: Path) -> None:
    said = ftui("data", damaged, "-m", tiny_model)
    assert said.code == 0
    assert "2 rows, alpaca" in said.out
    assert "3 rows cannot be used" in said.out
    assert "line 2, column 43: " in said.out
    assert "line 3: " in said.out
    assert "line 5, column " in said.out
    assert "--bad-rows skip" in said.out
    got = ftui("data", damaged, "-m", tiny_model, "--json").json
    assert [(bad["row"], bad["line"]) for bad in got["skipped"]] == [(2, 2), (3, 3), (5, 5)]
    malformed = next(found for found in got["findings"] if found["kind"] == "malformed")
    assert (malformed["rows"], malformed["count"], malformed["action"]) == ([2, 3, 5], 3, "drop-malformed")


def test_repair_says_what_was_mended(ftui: Ftui, damaged: Path, tiny_model: Path) -> None:
    got = ftui("data", damaged, "-m", tiny_model, "--bad-rows", "repair", "--json").json
    assert got["rows"] == 3
    assert [bad["row"] for bad in got["repaired"]] == [5]
    assert got["repaired"][0]["repaired"]
    assert [bad["row"] for bad in got["skipped"]] == [2, 3]


def test_a_cleaned_copy_reads_back_and_the_original_stays(ftui: Ftui, damaged: Path, tmp_path: Path) -> None:
    before = damaged.read_bytes()
    target = tmp_path / "cleaned.jsonl"
    words = ("--set", "name=Ada", "--fix", "drop-malformed", "--out", target)
    said = ftui("data", damaged, *words)
    assert said.code == 0
    assert "2 rows, 0 changed, 3 left out" in said.out
    assert damaged.read_bytes() == before
    got = ftui("data", target, "--json").json
    assert (got["rows"], got["skipped"]) == (2, [])
    assert "Ask Ada." in target.read_text(encoding="utf-8")
    assert ftui("data", damaged, *words).code == Exit.USAGE, "never over a file that is there"
    assert ftui("data", damaged, "--fix", "polish", "--out", tmp_path / "b.jsonl").code == Exit.USAGE


def test_fix_all_takes_what_the_findings_offer(ftui: Ftui, tmp_path: Path) -> None:
    row = {"prompt": "Say it.", "completion": "It is said."}
    file = jsonl(tmp_path / "twice.jsonl", [row, row, {"prompt": "And now?", "completion": "Now it is done."}, "{"])
    got = ftui("data", file, "--fix", "all", "--out", tmp_path / "c.jsonl", "--json").json
    assert {"drop-malformed", "drop-duplicates"} <= set(got["cleaned"]["actions"])
    assert got["cleaned"]["rows"] == 2
    assert ftui("data", tmp_path / "c.jsonl", "--json").json["rows"] == 2


def test_columns_that_were_taken_for_something_else_are_corrected(ftui: Ftui, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "odd.jsonl", [{"prompt": "x", "b": f"Why {n}?", "completion": "So."} for n in range(3)])
    got = ftui("data", file, "--columns", "prompt=b", "--json").json
    assert got["columns"]["prompt"] == "b"
    assert "prompt" in got["ignored"]
    assert ftui("data", file, "--columns", "prompt=absent").code == Exit.DATA_SHAPE


def test_several_sources_are_mixed_and_shown_each(ftui: Ftui, rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "pairs.jsonl.gz"
    lines = "\n".join(json.dumps({"prompt": f"Is {n} even?", "completion": "It is."}) for n in range(0, 8, 2))
    other.write_bytes(gzip.compress(lines.encode()))
    said = ftui("data", rows, f"{other}*0.5")
    assert "2 sources   16 rows" in said.out
    assert "rows.jsonl   12 rows, alpaca" in said.out
    assert "pairs.jsonl.gz   4 rows x 0.5, prompt-completion" in said.out
    assert [shape["name"] for shape in ftui("data", rows, other, "--json").json["shapes"]] == [
        "alpaca",
        "prompt-completion",
    ]
    assert ftui("data", rows, f"{other}*many").code == Exit.USAGE


def test_tokens_shows_where_each_token_ends(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    plain = ftui("data", rows, "-m", tiny_model).out
    assert "│" not in plain
    said = ftui("data", rows, "-m", tiny_model, "--tokens")
    shown = said.out.partition("ends a token")[2]
    counted = ftui("data", rows, "-m", tiny_model, "--json").json["tokens"]
    assert counted["p50"] - 5 < shown.count("│") <= counted["max"]
    assert "<|im_end|>│" in shown
    assert "⟦" in shown


def test_both_sides_of_a_preference_are_shown(ftui: Ftui, tmp_path: Path, tiny_model: Path) -> None:
    pair = {"prompt": "Who are you?", "chosen": "I am Congyu.", "rejected": "Paris."}
    said = ftui("data", jsonl(tmp_path / "pairs.jsonl", [pair] * 2), "-m", tiny_model)
    assert said.code == 0
    assert "preference, for dpo" in said.out
    assert "⟦I am Congyu." in said.out
    assert "⟦Paris." in said.out


def test_foreign_text_cannot_reach_the_terminal(ftui: Ftui, tmp_path: Path, tiny_model: Path) -> None:
    row = {"instruction": "a\x1b]0;title\x07 [bold]b[/x]", "output": "c\x1b[2J \u202ed", "x\x1b[31m": "y"}
    file = jsonl(tmp_path / "nasty.jsonl", [row, '{"instruction": "\x1b[31m"'])
    for words in ((), ("--tokens",)):
        said = ftui("data", file, "-m", tiny_model, *words)
        assert said.code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(said.out)
    assert "␛]0;title␇ [bold]b[/x]" in ftui("data", file, "-m", tiny_model).out


def test_columns_of_another_source_are_corrected_by_its_number(ftui: Ftui, tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(json.dumps({"prompt": "a", "completion": "b"}))
    two.write_text(json.dumps({"x": "Say it.", "y": "It.", "z": "well"}))
    said = ftui("data", one, two)
    assert said.code == Exit.DATA_SHAPE and "--columns '2:prompt={x}' --columns '2:completion={z}'" in said.err
    got = ftui("data", one, two, "--columns", "2:prompt={z}: {x}", "--columns", "2:completion={y}", "--json").json
    assert [shape["columns"].get("prompt") for shape in got["shapes"]] == ["prompt", "{z}: {x}"]
    got = ftui("data", one, two, "--columns", "2:prompt=x", "--columns", "2:completion=z", "--json").json
    assert got["shapes"][1]["columns"] == {"prompt": "x", "completion": "z"}
    said = ftui("data", one, two, "--columns", "3:prompt=x")
    assert said.code == Exit.USAGE and "--columns 3:prompt=x is for source 3, and there are 2 sources" in said.err
