"""The table and the sentence under it, from measurements made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.ratings import Rating
from engine.runs import scoreboard
from engine.runs.events import Answer, Evaluated, Evaluation, Result, Scores
from engine.runs.measured import Asked, Known, Measurement, Row
from engine.runs.scoreboard import Compared, History
from engine.runs.view import RunView


def row(number: int, before: float, after: float, **changes: Any) -> Row:
    texts = {"prompt": f"{number}?", "reference": "Paris.", "base": f"base {number}", "tuned": f"tuned {number}"}
    made = {"base_loss": 2.0, "tuned_loss": 1.0, "base_rouge": before, "tuned_rouge": after, "tokens": 3}
    return Row(row=number, **{**texts, **made, **changes})


def known(before: bool, after: bool, gap: float) -> Known:
    sides = {"base_right": before, "tuned_right": after, "base_loss": 1.0, "tuned_loss": 1.0 + gap}
    return Known(ask="?", answer="a", base="b", tuned="c", **sides)


def measurement(**changes: Any) -> Measurement:
    made: dict[str, Any] = {
        "key": "aa",
        "run": "one",
        "model": "starter",
        "asked": Asked(),
        "rows": [row(1, 0.1, 0.6), row(2, 0.2, 0.1)],
        "available": 9,
        "left_out": 0,
        "seen": 0,
        "base": Scores(loss=2.0, perplexity=7.4, rougeL=0.15, bleu=1.0, general_loss=1.0, general_right=3),
        "tuned": Scores(loss=1.0, perplexity=2e9, rougeL=0.35, bleu=5.0, general_loss=1.5, general_right=1),
        "intervals": {"rougeL": (0.1, 0.3), "general_loss": (0.2, 0.8), "general_right": (-3.0, -1.0)},
        "general": [known(True, False, 0.5)] * 3,
    }
    return Measurement(**{**made, **changes})


def compared(found: Measurement | None, name: str = "one", history: History | None = None) -> Compared:
    return Compared(name, Path("/nowhere"), found, history or History())


def cells(lines: list[scoreboard.Line]) -> dict[str, tuple[object, ...]]:
    return {line.name: (*line.cells, line.difference, line.interval) for line in lines}


def test_one_run_against_its_base() -> None:
    results = [compared(measurement())]
    assert scoreboard.heads(results) == ["base", "tuned"]
    assert cells(scoreboard.table(results)) == {
        "loss": ("2.000", "1.000", "-1.000", ""),
        "perplexity": ("7.40", "over 1,000,000", "–", ""),
        "ROUGE-L": ("0.150", "0.350", "+0.200", "+0.100 to +0.300"),
        "BLEU": ("1.0", "5.0", "+4.0", ""),
        "general: loss": ("1.000", "1.500", "+0.500", "+0.200 to +0.800"),
        "general: right of 3": ("3", "1", "-2", "-3 to -1"),
    }
    told = scoreboard.verdict(results)
    assert told.startswith("tuned is better than base by ROUGE-L; forgot: 1 of 3 plain questions right, 3 before")
    assert "known answers are less likely, loss 1.50, 1.00 before" in told
    assert scoreboard.remarks(results) == ["2 rows are few: differences of some hundredths may be chance"]


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ({"rougeL": (-0.3, -0.1)}, "tuned is worse than base by ROUGE-L; nothing forgotten"),
        ({"rougeL": (-0.3, 0.1)}, "these rows do not tell tuned from base by ROUGE-L; nothing"),
        ({"loss": (-0.3, -0.1)}, "tuned is better than base by loss; nothing forgotten"),
        ({}, "nothing forgotten that shows in 3 plain questions"),
    ],
)
def test_the_sentence_says_what_the_rows_show(intervals: dict[str, tuple[float, float]], said: str) -> None:
    assert scoreboard.verdict([compared(measurement(intervals=intervals))]).startswith(said)


def test_little_is_not_called_forgetting() -> None:
    found = measurement(intervals={"general_loss": (0.01, 0.09), "general_right": (-2.0, 0.0)})
    found.tuned.general_loss = 1.05
    assert scoreboard.forgot(found) == ""


def test_two_runs_are_compared_row_by_row() -> None:
    one = measurement(rows=[row(at, 0.1, 0.2) for at in range(40)])
    other = measurement(run="two", key="bb", rows=[row(at, 0.1, 0.5, tuned_loss=0.5) for at in range(1, 40)])
    results = [compared(one), compared(other, "two")]
    found = cells(scoreboard.table(results))
    assert scoreboard.heads(results) == ["base", "one", "two"]
    assert found["ROUGE-L"] == ("0.150", "0.350", "0.350", "+0.000", "+0.300 to +0.300")
    assert found["loss"][-1] == "-0.500 to -0.500" and found["general: right of 3"][-1] == "+0 to +0"
    assert scoreboard.verdict(results).startswith("two is better than one by ROUGE-L; forgot: ")
    assert scoreboard.remarks(results)[0] == "two could be measured on 39 of these rows only: the others are too long"
    pair = scoreboard.pairs(results)[0]
    assert (pair.row, pair.first, pair.second, pair.base) == (1, "tuned 1", "tuned 1", "base 1")
    assert pair.gain == pytest.approx(0.3) and scoreboard.to_rate(results) == []


def test_what_a_run_noted_of_itself() -> None:
    view = RunView()
    asked = [
        Answer(ask="?", expect=["C"], before="x", after="C", before_right=False, after_right=at > 0) for at in range(3)
    ]
    view.fold(
        [
            Evaluated(step=0, loss=0.7, accuracy=0.5, margin=0.0, likelier=0.6),
            Evaluated(step=5, loss=0.5, accuracy=0.8, margin=1.25, likelier=0.7),
            Evaluated(step=9, loss=0.6, accuracy=0.7, margin=1.5, likelier=0.7),
            Evaluation(identity=asked),
            Result(kind="adapter", path="adapter", step=5),  # the best, not the last
        ]
    )
    results = [compared(None, history=scoreboard.noted(view))]
    assert cells(scoreboard.table(results)) == {
        "identity: right of 3": ("0", "2", "+2", ""),
        "pairs ranked right": ("50.0%", "80.0%", "+30.0%", ""),
        "margin of the better": ("0.000", "1.250", "+1.250", ""),
        "better one likelier": ("60.0%", "70.0%", "+10.0%", ""),
    }
    assert scoreboard.verdict(results) == "" and scoreboard.pairs(results) == [] and scoreboard.tally(results) is None
    assert "step 0 and 5" in scoreboard.noted_where(results)


def test_ratings_are_told_once_the_person_may_know(tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    same = row(3, 0.5, 0.5, base="the same", tuned="the same")
    found = measurement(rows=[row(1, 0.1, 0.6), row(2, 0.2, 0.1), same])
    results = [msgspec.structs.replace(compared(found), folder=tmp_path)]
    assert scoreboard.tally(results) is None and [pair.row for pair in scoreboard.to_rate(results)] == [1, 2]
    ratings = scoreboard.rated(results)
    ratings.add(Rating(row=1, better="second", left="first"))
    tally = scoreboard.tally(results)
    assert tally is not None
    assert scoreboard.told(tally) == "rated blind: 1 of 2 pairs; who is ahead shows when the rating is ended"
    ratings.add(Rating(row=2, better="tie", left="first"))
    ratings.unblind()
    tally = scoreboard.tally(results)
    assert tally is not None
    assert (
        scoreboard.told(tally) == "rated blind: tuned better in 1, base in 0, 1 ties, 2 of 2 pairs (sign test: p 1.000)"
    )
