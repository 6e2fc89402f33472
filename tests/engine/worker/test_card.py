"""What a model card says of what was measured."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.ratings import Rating
from engine.recipe import Data, Model, Recipe
from engine.runs import scoreboard
from engine.runs.events import Evaluated
from engine.runs.scoreboard import Compared, History
from engine.runs.view import RunView
from engine.worker.exports import card
from tests.engine.runs.test_scoreboard import measurement
from tests.engine.settings import settings


def written(compared: Compared | None) -> str:
    recipe = Recipe(
        name="one", model=Model(source="starter"), data=Data(source="/home/me/rows.jsonl"), settings=settings()
    )
    made = card.Made(kind="adapter", form="fp32", difference=0.0)
    return card.write("one", recipe, RunView(), made, Path("/nowhere"), "", compared)


def test_scores_forgetting_and_ratings_stand_in_the_card(tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    found = measurement(bleu="nrefs:1|tok:13a", seen=1)
    found.asked.data = "/home/me/secret/unseen.jsonl"
    compared = Compared("one", tmp_path, found, History(identity=(0, 9, 10)))
    ratings = scoreboard.rated([compared])
    ratings.add(Rating(row=1, better="second", left="first"))
    assert "rated blind" not in written(compared)  # the person does not know yet
    ratings.add(Rating(row=2, better="first", left="first"))
    ratings.unblind()
    text = written(compared)
    assert "2 of 9 rows of unseen.jsonl, greedy answers of 128 tokens at most:" in text and "/home/me" not in text
    assert "| ROUGE-L | 0.150 | 0.350 | +0.200 | +0.100 to +0.300 |" in text
    assert "| general: right of 3 | 3 | 1 | -2 | -3 to -1 |" in text
    assert "forgot: 1 of 3 plain questions right, 3 before" in text and "trained on 1 of these rows" in text
    assert "rated blind: tuned better in 1, base in 1, 0 ties, 2 of 2 pairs" in text and r"nrefs:1\|tok:13a" in text
    assert "identity: right" not in text  # the checks have a place of their own


def test_pairs_stand_in_the_card_and_nothing_else_where_nothing_was_measured(tmp_path: Path) -> None:
    first, last = (
        Evaluated(step=step, loss=0.7, accuracy=share, margin=share) for step, share in ((0, 0.5), (9, 0.875))
    )
    text = written(Compared("one", tmp_path, None, History(first=first, last=last)))
    assert "| pairs ranked right | 50.0% | 87.5% | +37.5% |  |" in text and "step 0 and 9:" in text
    nothing = written(Compared("one", tmp_path, None, History()))
    assert nothing == written(None) and "Nothing was measured in this run." in nothing
    hostile = msgspec.structs.replace(measurement(), run="\x1b[31m|x|")
    assert "\x1b" not in written(Compared("one", tmp_path, hostile, History()))
