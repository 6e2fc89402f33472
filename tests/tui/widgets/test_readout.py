"""A run's outcome in words: what is good news and what is not."""

from __future__ import annotations

from engine.runs.events import Answer, Evaluated, Evaluation, State
from engine.runs.view import RunView
from tui.widgets.readout import outcome


def answers(before: int, after: int, count: int) -> list[Answer]:
    return [
        Answer(ask="?", expect=["!"], before="", after="", before_right=at < before, after_right=at < after)
        for at in range(count)
    ]


def told(identity: list[Answer], general: list[Answer]) -> list[tuple[str, str]]:
    view = RunView()
    view.fold([Evaluation(identity=identity, general=general), State(state="ready")])
    return outcome(view, None, "ready")


def test_what_was_learned_without_loss_is_good() -> None:
    for lines in (
        told(answers(0, 9, 10), answers(5, 5, 6)),
        told(answers(10, 10, 10), []),
        told([], answers(5, 5, 6)),
    ):
        assert [level for level, _ in lines] == ["good"]


def test_what_was_not_learned_is_a_warning_and_says_what_to_do() -> None:
    for before, after in ((0, 0), (0, 4), (6, 6), (8, 7)):
        (level, score), (_, what) = told(answers(before, after, 10), answers(6, 5, 6))
        assert level == "warning"
        assert score.startswith(f"identity {before} → {after} of 10   general 6 → 5 of 6")
        assert "more epochs" in what


def test_what_was_forgotten_is_a_warning() -> None:
    lines = told(answers(0, 10, 10), answers(6, 5, 6))
    assert [level for level, _ in lines] == ["warning"]


def test_pairs_ranked_no_better_than_before_are_a_warning() -> None:
    levels = {}
    for last in (0.5, 0.6, 0.7, 1.0):
        view = RunView()
        view.fold([Evaluated(step=step, loss=0.5, accuracy=share) for step, share in ((0, 0.6), (9, last))])
        levels[last] = outcome(view, None, "ready")[-1][0]
    assert levels == {0.5: "warning", 0.6: "warning", 0.7: "good", 1.0: "good"}
