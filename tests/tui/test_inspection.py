"""What the Data screen says, without a screen: lengths, what a cutoff costs, findings, ways through rows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import draft as drafts
from engine.data.findings import Finding
from engine.draft import Choice
from tui.inspection import Costs, Walk, buckets, costs, finding_lines, findings_at, going_on, percent, plural, stats
from tui.screens.fixing import on_copy, suggested


class Lengths:
    """Lengths by measure, with the three questions that are asked of them."""

    def __init__(self, **measures: Sequence[int]) -> None:
        self.measures = {name: sorted(values) for name, values in measures.items()}

    def percentile(self, p: float, of: str = "whole") -> int:
        values = self.measures[of]
        return values[max(0, -(-len(values) * int(p) // 100) - 1)]

    def histogram(self, bins: int, upto: int, of: str = "whole") -> list[tuple[int, int, int]]:
        width = -(-(upto + 1) // bins)
        values = [min(n, upto) for n in self.measures[of]]
        return [(low, low + width, sum(low <= n < low + width for n in values)) for low in range(0, upto + 1, width)]


def test_buckets_are_round_and_begin_at_the_shortest_row() -> None:
    found = buckets(Lengths(whole=[40, 50, 55, 60, 72]), 6)  # type: ignore[arg-type]
    assert found == ((40, 48, 1), (48, 56, 2), (56, 64, 1), (64, 72, 0), (72, 80, 1))


def test_a_few_very_long_rows_do_not_flatten_all_others() -> None:
    found = buckets(Lengths(whole=[*range(100, 300), 100_000]), 6)  # type: ignore[arg-type]
    assert len(found) <= 6 and sum(count for _, _, count in found) == 201
    assert found[-1][1:] == (100_001, 1) and found[-2][1] < 1000


@pytest.mark.parametrize("longest", [5, 90, 257, 844, 12_257, 1_000_000])
def test_buckets_fill_the_place_they_have(longest: int) -> None:
    found = buckets(Lengths(whole=range(1, longest + 1)), 6)  # type: ignore[arg-type]
    assert 3 <= len(found) <= 6 and sum(count for _, _, count in found) == longest


def test_each_measure_has_buckets_of_its_own() -> None:
    lengths: Any = Lengths(whole=[100, 140], prompt=[8, 12], completion=[92, 128])
    assert buckets(lengths, 4, "prompt")[-1][1] <= 16
    assert "○ row ● prompt ○ answer" in stats(lengths, "prompt", False).plain
    assert "max 12" in stats(lengths, "prompt", False).plain
    assert "● log" in stats(lengths, "whole", True).plain and "○ log" in stats(lengths, "whole", False).plain


def test_the_spread_keeps_to_its_line() -> None:
    lengths: Any = Lengths(whole=[*[1000] * 199, 11_632], prompt=[1000], completion=[9])
    assert stats(lengths, "whole", False).plain.endswith("l ○ log")
    assert stats(lengths, "whole", False, 75).plain.endswith("max 11,632")
    assert stats(lengths, "whole", True, 76).plain.endswith("max 11,632  log")
    assert stats(lengths, "whole", True, 75).cell_length <= 75


def test_plain_text_has_one_measure_only() -> None:
    lengths: Any = Lengths(whole=[100, 140], prompt=[0, 0], completion=[100, 140])
    assert stats(lengths, "whole", False).plain.startswith("tokens a row")


def test_shares_and_counts_read_well() -> None:
    assert [percent(f) for f in (0, 0.0001, 0.002, 0.034, 0.31, 1)] == [
        "0 %",
        "under 0.1 %",
        "0.2 %",
        "3.4 %",
        "31 %",
        "100 %",
    ]
    assert plural(1, "row") == "1 row" and plural(1200, "row") == "1,200 rows"


COSTS = Costs(
    cut="5 rows cut, all lose their end token, 0.2 % of trained tokens",
    brief="5 cut, all lose the end token, 0.2 % of trained tokens",
    short="5 rows cut",
    ends="5 rows, all lose their end token",
    trained="0.2 % of trained tokens lost",
    padding="31 % at batch 16",
    packing="saves 28 %",
    memory="4.7 of 21 GB",
    over=False,
)


def test_what_else_a_cutoff_costs_fits_beside_the_histogram() -> None:
    assert COSTS.line().plain == "memory 4.7 of 21 GB   padding 31 % at batch 16   packing saves 28 %"
    assert COSTS.line().cell_length <= 69  # cells there are at 80 columns
    assert len(COSTS.block().plain.splitlines()) == 5


def test_too_much_memory_is_said_with_a_glyph_and_words() -> None:
    import msgspec

    over = msgspec.structs.replace(COSTS, over=True)
    assert "✗ memory 4.7 of 21 GB, too much" in over.line().plain
    assert "✗ 4.7 of 21 GB, too much" in over.block().plain


def test_what_lasts_says_how_far_and_how_fast_it_goes() -> None:
    counting = going_on(("counting tokens", 120_000, 1_000_000), 48_000.4)
    assert counting.plain == "━━──────────────  counting 120,000 of 1,000,000 rows, 48,000 a second"
    assert counting.cell_length <= 75
    reading = going_on(("reading bytes", 90_000_000, 1_000_000_000), 85e6)
    assert reading.plain.endswith("reading 90 of 1,000 MB, 85 a second")
    assert going_on(("looking at the rows", 5, 10), 0).plain.endswith("looking at 5 of 10 rows")
    assert going_on(("reading the rows", 0, 0), 0).plain == "reading the rows …"
    assert going_on(None, 0).plain == ""


def finding(**more: Any) -> Finding:
    given = {"kind": "empty-answer", "level": "problem", "message": "12 rows have an empty answer", **more}
    return Finding(**{"rows": list(range(1, 13)), "count": 12, **given})


@pytest.mark.parametrize("width", [30, 56, 75, 115])
def test_a_finding_fits_its_line_and_says_what_f_does(width: int) -> None:
    (line,) = finding_lines([finding(action="leave_out_empty")], set())
    text = line.line(width)
    assert text.cell_length == width and text.plain.startswith("✗ 12 rows") and text.plain.endswith("  fix")
    (marked,) = finding_lines([finding(action="leave_out_empty")], {"leave_out_empty"})
    assert marked.line(width).plain.endswith("✓ marked")


def test_row_numbers_stand_where_there_is_room() -> None:
    (line,) = finding_lines([finding()], set())
    assert "rows 1, 2, 3, 4, 5, 6 …" in line.line(75).plain
    assert "rows" not in line.line(36).plain.partition("empty answer")[2]


def test_each_level_has_its_glyph() -> None:
    levels = [finding(level=level) for level in ("problem", "warning", "note")]
    assert [line.line(60).plain[0] for line in finding_lines(levels, set())] == ["✗", "!", "·"]


def test_an_example_and_a_fix_are_safe_and_keep_to_their_width() -> None:
    (line,) = finding_lines([finding(example="row 3: \x1b[31m" + "x" * 90, fix="take these rows out")], set())
    first, second = line.detail(40, 2).plain.splitlines()
    assert first.startswith("row 3: ␛[31m") and len(first) <= 40 and second == "→ take these rows out"


def test_a_message_too_long_for_its_line_stands_below_it() -> None:
    (line,) = finding_lines([finding(message="12 rows " + "and so on " * 5, example="row 3: x", fix="look")], set())
    assert line.detail(75, 2).plain == "row 3: x\n→ look"
    assert line.detail(40, 2).plain.startswith("12 rows and so on") and "row 3" not in line.detail(40, 2).plain
    assert line.detail(40).plain.endswith("and so on \nrow 3: x\n→ look")


def test_placeholders_are_filled_by_a_key_here() -> None:
    (line,) = finding_lines([finding(kind="placeholders", fix="fill them: --set name=…")], set())
    assert "--set" not in line.detail(60, 2).plain and "f asks" in line.detail(60, 2).plain


def test_a_walk_goes_round() -> None:
    walk = Walk("0 x", [3, 8, 9], 0)
    assert [walk.row, walk.step(1).row, walk.step(-1).row, walk.step(1).step(1).step(1).row] == [3, 8, 9, 3]


def test_a_cleaned_copy_stands_beside_the_original_under_a_free_name(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl.gz"
    rows.touch()
    assert suggested(Choice(data=str(rows))) == tmp_path / "rows.cleaned.jsonl"
    (tmp_path / "rows.cleaned.jsonl").touch()
    assert suggested(Choice(data=str(rows))) == tmp_path / "rows.cleaned-2.jsonl"
    assert suggested(Choice(data=str(tmp_path / "rows.cleaned.jsonl"))).name == "rows.cleaned-2.jsonl"
    assert suggested(Choice(preset="identity")) == Path("identity.cleaned.jsonl")
    assert suggested(Choice(data="hub:owner/name")) == Path("name.cleaned.jsonl")


def test_a_cleaned_copy_is_read_as_what_it_is() -> None:
    choice = Choice(
        data="a.json", more=["b.json"], columns={"prompt": "q"}, prompt="{q}", on_bad_row="skip", values={"name": "Ada"}
    )
    again = on_copy(choice, Path("/x/a.cleaned.jsonl"))
    assert again.data == "/x/a.cleaned.jsonl" and again.values == {"name": "Ada"}
    assert not again.more and not again.columns and again.prompt is None and again.on_bad_row == "abort"


def test_what_padding_would_cost_is_said_where_none_is_computed(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{n}?", "completion": "b " * (n % 40 + 1)}) for n in range(400)))
    draft = drafts.make(Choice(model=str(tiny_model), data=str(path)))
    assert draft.plan.settings.micro_batch > 1
    found = costs(draft)
    assert re.fullmatch(r"none \(else \d+ %\)", found.padding) and found.packing == "saves 0 %"
    assert found.line().cell_length <= 69
    for edits in ({"unpadded": False}, {"attention": "eager"}):
        padded = costs(drafts.replan(draft, edits))
        assert re.fullmatch(r"\d+ % at batch \d+", padded.padding) and padded.packing != "saves 0 %"


def test_what_the_columns_do_not_say_stands_among_the_findings(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"dialogue": f"A: Is it {n}? B: Yes, it is, and it will be.", "summary": f"It is {n}."} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    draft = drafts.make(Choice(model=str(tiny_model), data=str(path)))
    (line,) = [line for line in finding_lines(findings_at(draft, 64), set()) if line.kind == "mapping"]
    assert "dialogue is given to the model without a word of what to do with it" in line.message
    assert "--" not in line.message and "t on Mapping: Summarise this dialogue: {dialogue}" in line.message
    notes = [one.kind for one in findings_at(draft, 64) if one.level == "note"]
    assert notes[0] == "mapping"  # ahead of what is less to be known
