"""What a journal adds up to: the picture of a run that the screens draw."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby

from engine.runs.events import (
    AnyEvent,
    Checkpoint,
    Evaluated,
    Evaluation,
    Exported,
    Failure,
    Note,
    Point,
    Progress,
    Result,
    Retired,
    Retry,
    Sample,
    Start,
    State,
    StateName,
    Step,
)


class Curve:
    """The loss of each optimizer step, two arrays of the same length: 16 bytes a step, so that a million fit. Where it
    learns from rewards, the mean reward: the loss then says nothing.

    step is strictly rising; NaN stands where a loss was not finite.
    """

    def __init__(self) -> None:
        self.step = array("q")
        self.loss = array("d")

    def __len__(self) -> int:
        return len(self.step)

    def extend(self, steps: Sequence[Step | Point]) -> None:
        self.step.extend([step.step for step in steps])
        self.loss.extend([step.loss if step.reward is None else step.reward for step in steps])

    def drop_after(self, step: int) -> None:
        """Forget every point after optimizer step `step`."""
        keep = bisect_right(self.step, step)
        del self.step[keep:], self.loss[keep:]


class RunView:
    """The current picture of a run. `fold` takes events as `journal.Reader` gives them, each once, in order.

    The state is what the journal says; whether the processes still live is the business of `engine.runs.status`.
    """

    def __init__(self) -> None:
        self.state: StateName = "preparing"
        self.detail = ""
        self.progress: Progress | None = None
        self.start: Start | None = None
        self.steps = Curve()
        self.last: Step | None = None
        self.evaluated: list[Evaluated] = []
        self.samples: list[Sample] = []
        self.checkpoints: list[Checkpoint] = []
        self.result: Result | None = None
        self.evaluation: Evaluation | None = None
        self.failure: Failure | None = None
        self.notes: list[Note] = []
        self.retries: list[Retry] = []  # that led to this attempt, without the person in between
        self.exports: list[Exported] = []
        self.seq = 0
        self.time = 0.0
        self._smoothed = array("d")
        self._alpha = 0.0

    def fold(self, events: Iterable[AnyEvent | Point]) -> bool:
        """Take in events; True when there was at least one."""
        any_came = False
        for kind, group in groupby(events, type):
            batch = list(group)
            if kind is Step or kind is Point:
                self._steps(batch)  # type: ignore[arg-type]
            else:
                for event in batch:
                    self._one(event)  # type: ignore[arg-type]
            last = batch[-1]
            if not isinstance(last, Point):
                self.seq, self.time = last.seq, last.time
            any_came = True
        return any_came

    def _steps(self, batch: Sequence[Step | Point]) -> None:
        if self.steps.step and batch[0].step <= self.steps.step[-1]:
            self._rewind(batch[0].step - 1)
        self.steps.extend(batch)
        if isinstance(last := batch[-1], Step):
            self.last = last

    def _one(self, event: AnyEvent) -> None:
        match event:
            case State():
                self.state, self.detail, self.progress = event.state, event.detail, None
                if event.state == "preparing":
                    self.failure = None
            case Progress():
                self.progress = event
            case Start():
                self.start, self.progress, self.failure = event, None, None
                if self.retries and self.retries[-1].attempt != event.attempt:
                    self.retries = []
                self._rewind(event.from_step)
            case Evaluated():
                self.evaluated.append(event)
            case Sample():
                self.samples.append(event)
            case Checkpoint():
                self.checkpoints = [kept for kept in self.checkpoints if kept.step != event.step] + [event]
            case Retired():
                self.checkpoints = [kept for kept in self.checkpoints if kept.step != event.step]
            case Result():
                self.result = event
            case Evaluation():
                self.evaluation = event
            case Exported():
                self.exports.append(event)
            case Note():
                self.notes.append(event)
            case Retry():
                follows = self.retries and self.retries[-1].attempt == event.attempt - 1
                self.retries = [*(self.retries if follows else []), event]
            case Failure():
                self.failure = event

    def _rewind(self, step: int) -> None:
        """What an earlier attempt did after `step` no longer counts."""
        self.steps.drop_after(step)
        del self._smoothed[len(self.steps) :]
        self.evaluated = [kept for kept in self.evaluated if kept.step <= step]
        self.samples = [kept for kept in self.samples if kept.step <= step]
        self.checkpoints = [kept for kept in self.checkpoints if kept.step <= step]
        if self.last is not None and self.last.step > step:
            self.last = None

    def smoothed(self, alpha: float = 0.1) -> array[float]:
        """The loss as an exponential moving average: s = alpha * loss + (1 - alpha) * s, starting at the first loss.

        As long as steps.loss, NaN where that is NaN. Kept between calls with the same alpha, which must lie in (0, 1].
        """
        if alpha != self._alpha:
            self._smoothed, self._alpha = array("d"), alpha
        done = len(self._smoothed)
        mean = next((value for value in reversed(self._smoothed) if value == value), None)
        for loss in self.steps.loss[done:]:
            if loss != loss:
                self._smoothed.append(loss)
                continue
            mean = loss if mean is None else mean + alpha * (loss - mean)
            self._smoothed.append(mean)
        return self._smoothed
