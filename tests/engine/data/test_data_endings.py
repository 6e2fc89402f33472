"""Answers that stop in the middle are found; lists, verses, code, titles and data without full stops are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.findings.endings import cut
from tests.engine.data.finding_rows import look, pair, prefer, prose, rate

WHOLE = prose(7, 40)  # more than 200 characters, ends with a full stop

CUT = [
    f"{WHOLE} And so the old bridge over the river was closed, which is why the",
    f"{WHOLE} And so the old bridge over the river was closed for the whole wint",
    f"{WHOLE}\n\n{WHOLE} Last of all the garden behind the temple was opened, then",
    f"{WHOLE}\n- The first thing that has to be done is to look at the engine.\n"
    "- The second thing that has to be done is to look at the har",
    f"Here it is:\n```python\n{'value = 1  # a line of code' * 8}\nprint(val",
    "这座桥已经很老了，城里的人都知道它的故事。" * 6
    + "后来人们决定在河的另一边再建一座新的桥，但是因为冬天的雪下得太大，所以",
]
FINISHED = [
    WHOLE,
    f"{WHOLE}\n\n- apples\n- pears\n- a basket of oranges from the market near the river",
    f"{WHOLE}\n1. The Silver Engine and the Paper Island\n2. The Long Winter by the Harbour and the Bridge over the River",
    f"{WHOLE} See https://example.org/a/very/long/address/that/ends/without/any/full/stop/at/all",
    f"{WHOLE} Come and see it for yourself, and bring a friend who likes the river. #Bridges #Winter",
    f"{WHOLE}\n```python\nprint(1)\n```",
    f"{WHOLE}\n```python\nprint(1)\n```\nwhich prints the number one, and nothing else, on a line of its own.",
    f"{WHOLE}\n\nThe answer is 42",
    "apple, pear, orange, lemon, cherry, plum, grape, melon, peach, " * 5 + "fig",
    "\n".join(["The river winds along the stone, the winter wind goes home alone"] * 5),
    "SELECT name, town, street, letter, market, engine, island, candle FROM houses\n" * 4
    + "WHERE town = 5 ORDER BY name",
    '{"rows": [' + '{"name": "river", "length": 12}, ' * 12 + "{}]}",
    f"{WHOLE}\n\nBest regards,\nYuriko",
    f"{WHOLE} 🙂",
    f"{WHOLE} $x = 5$",
    "short and the",
]


@pytest.mark.parametrize("answer", CUT)
def test_answers_that_stop_in_the_middle(answer: str) -> None:
    assert cut(answer) and cut(answer + "\n ")


@pytest.mark.parametrize("answer", FINISHED)
def test_answers_that_are_finished(answer: str) -> None:
    assert not cut(answer)


def test_the_few_that_are_cut_among_many_that_are_not(tmp_path: Path) -> None:
    rows = [pair(f"q{at}", prose(at, 60)) for at in range(20)]
    finding = look(tmp_path, [*rows, pair("a", CUT[0]), pair("b", FINISHED[1])])["cut-answers"]
    assert finding.message == "1 row has an answer that stops in the middle" and list(finding.rows) == [21]
    assert finding.example.startswith("row 21: …") and finding.example.endswith("which is why the")
    assert finding.level == "warning"


def test_where_most_answers_have_no_full_stop_none_is_cut(tmp_path: Path) -> None:
    rows = [pair(f"q{at}", prose(at, 60) + " " + " ".join(prose(at, 14).split())[:-1].lower()) for at in range(20)]
    assert all(cut(row["completion"]) for row in rows)
    assert "cut-answers" not in look(tmp_path, rows)


def test_an_answer_that_is_not_to_be_learned_may_stop_anywhere(tmp_path: Path) -> None:
    pairs = [prefer(f"q{at}", prose(at, 60), prose(at + 50, 60)) for at in range(10)]
    assert "cut-answers" not in look(tmp_path, [*pairs, prefer("a", WHOLE, CUT[0])])
    assert list(look(tmp_path, [*pairs, prefer("a", CUT[0], WHOLE)])["cut-answers"].rows) == [11]
    ratings = [rate(f"q{at}", prose(at, 60), at % 2 == 0) for at in range(10)]
    assert "cut-answers" not in look(tmp_path, [*ratings, rate("a", CUT[0], False)])
