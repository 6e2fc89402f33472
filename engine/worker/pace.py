"""How fast a training goes: seconds of each optimizer step, its micro-batches apart from its update."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import msgspec
import torch
from msgspec import Struct

from engine.speeds import Speed

_KEPT = 1000  # of the last steps: enough to tell how fast a machine is


class Pass(Struct, frozen=True):
    """One optimizer step: tokens that were computed, micro-batches, seconds of computing them and of the update.

    processor  seconds that processor cores spent on computing, all added up
    """

    tokens: int
    batches: int
    computing: float
    updating: float
    processor: float

    @property
    def seconds(self) -> float:
        return self.computing + self.updating


class Pace:
    """A stopwatch that a trainer presses. Whatever lies between two steps (saving, evaluation, samples) is not in it."""

    def __init__(self) -> None:
        self.passes: deque[Pass] = deque(maxlen=_KEPT)
        self._steps, self._seconds = 0, 0.0
        self._tokens = self._batches = 0
        self._began = self._computed = self._processor = 0.0
        self._waiting = 0  # tokens of the micro-batch, until it is told how they are computed
        self.padded = True  # with their padding

    def batch(self, tokens: int) -> None:
        """A micro-batch of so many tokens, padding included, is about to be computed."""
        if not self._batches:
            self._began, self._processor = time.monotonic(), time.process_time()
        self._batches += 1
        self._tokens += tokens
        self._waiting = tokens

    def laid(self, tokens: int) -> None:
        """It is computed as so many tokens instead, without padding. What is read beside micro-batches does not count."""
        if self._waiting:
            self._tokens += tokens - self._waiting
            self._waiting, self.padded = 0, False

    def computed(self) -> None:
        """The last micro-batch of a step has its gradients."""
        self._waiting = 0
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._computed, self._processor = time.monotonic(), time.process_time() - self._processor

    def stepped(self) -> Pass:
        """The optimizer has made its step."""
        now = time.monotonic()
        made = Pass(self._tokens, self._batches, self._computed - self._began, now - self._computed, self._processor)
        self.passes.append(made)
        self._steps += 1
        self._seconds += made.seconds
        self._tokens = self._batches = 0
        return made

    @property
    def mean(self) -> float:
        """Seconds a step."""
        return self._seconds / max(1, self._steps)

    @property
    def busy(self) -> bool:
        """Whether others had the processor: its cores could have computed a third as much again meanwhile (alone 1.02 times,
        beside one that keeps one of two cores busy 1.7 times as much, measured)."""
        if torch.cuda.is_available():
            return False  # which computes while the processor waits
        could = torch.get_num_threads() * sum(one.computing for one in self.passes)
        return could > 1.3 * sum(one.processor for one in self.passes)

    def speed(self, source: str) -> Speed | None:
        """What the steps come to; None before the second one, because the first one pays for the start."""
        if len(self.passes) < 2:
            return None
        return msgspec.structs.replace(fitted(list(self.passes)[1:], self.padded, source), busy=self.busy)


def fitted(passes: Sequence[Pass], padded: bool, source: str) -> Speed:
    """Seconds of `passes` shared out to tokens, micro-batches and updates: least squares, none of them below zero."""
    import numpy as np

    tokens, batches, seconds = (
        np.array([getattr(one, name) for one in passes], float) for name in ("tokens", "batches", "computing")
    )
    update = float(np.median([one.updating for one in passes]))
    each = tokens / batches
    a_batch, a_token = 0.0, seconds.sum() / tokens.sum()
    if each.std() > 0.1 * each.mean():  # rows of one length cannot tell the two apart
        found = np.linalg.lstsq(np.stack([batches, tokens], axis=1), seconds, rcond=None)[0]
        if found[1] <= 0:
            a_batch, a_token = seconds.sum() / batches.sum(), 0.0
        elif found[0] > 0:
            a_batch, a_token = found
    return Speed(
        seconds_per_batch=float(a_batch),
        seconds_per_token=float(a_token),
        seconds_per_update=update,
        padded=padded,
        source=source,
    )
