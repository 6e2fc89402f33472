"""What the questions of a run's checks have shown: how many are answered right, before and after, and whether that is learned."""

from __future__ import annotations

from engine.runs.events import Answer


def score(answers: list[Answer]) -> tuple[int, int, int]:
    """(right before, right after, how many)."""
    return sum(a.before_right for a in answers), sum(a.after_right for a in answers), len(answers)


def learned(answers: list[Answer]) -> bool:
    """Whether a run has learned what these ask: at least half is right, and more than before unless all is."""
    before, after, count = score(answers)
    return after * 2 >= count and (after > before or after == count)
