"""When a short run has learned what there is to learn."""

from __future__ import annotations

from collections.abc import Sequence

GAIN = 0.05  # of the loss: less than this over a whole epoch is flat
LOW = 0.1  # of the first loss: flat high up is a run that does not learn, and must not be called done


def flat(losses: Sequence[float], steps_per_epoch: int) -> bool:
    """Whether the training loss (one value a step) has stopped falling.

    Means of the last two epochs are compared, since within an epoch the rows differ. The walk-through that people
    follow for identity tuning says: many epochs, stop when the loss is flat.
    """
    window = max(8, steps_per_epoch)
    if len(losses) < 3 * window:
        return False
    first = sum(losses[: max(1, window // 4)]) / max(1, window // 4)
    before = sum(losses[-2 * window : -window]) / window
    now = sum(losses[-window:]) / window
    return now < LOW * first and now > before * (1 - GAIN)
