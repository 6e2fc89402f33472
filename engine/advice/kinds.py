"""What goes into a plan and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from engine.advice import fields
from engine.hardware import Hardware
from engine.models.facts import ModelFacts
from engine.models.memory import Memory
from engine.recipe import Settings, Stage
from engine.speeds import Measured
from engine.text import number

if TYPE_CHECKING:
    import numpy as np

Confidence = Literal["high", "medium", "low"]
# What tuning is for. It wins for the first four; facts that change are better looked up (PEFT overview).
Goal = Literal["persona", "style", "format", "language", "task", "changing facts"]
# Identity is SFT with a rate and passes of its own: few rows, one small change. All that learns from rewards is alike.
Kind = Literal["sft", "identity", "pretraining", "dpo", "kto", "reward", "rl"]
# Settings decided so far, by name: the advice, or the person's edit where there is one.
Values = dict[str, Any]


class Facts(Struct, kw_only=True, dict=True):
    """What the rules may know.

    rows               usable rows of the data set
    p50, p95, p99, max tokens of whole rendered rows; `exact` tells the model's own tokenizer from an estimate
    mean               average tokens a row; 0 where it was not counted
    lengths            tokens of each row that was counted, in the order of the rows: a list or an array; empty where only
                       percentiles are known. Fewer than `rows` for a sample, or where some rows stand in an epoch more than once
    shared             tokens that all rows begin with, before the first with a loss; 0 where not known
    around             of them, tokens that the tokenizer puts around a text, and around each part of one that is divided
    starts             tokens before the first one with a loss, of those rows that have one: says at which length nothing is
                       trained
    complex_task       the person says that it takes reasoning, not only style or format
    stage              what the columns of the rows allow: "sft", "pretraining" (bare text), "dpo" (pairs), "kto" (ratings),
                       "grpo" (prompts alone); or another that fits them, where the person chose it (recipe.FITTING)
    goal               what the tuning is for, where the person said so or it is plain (identity: "persona")
    deadline           seconds in which it has to be done, where the person said so
    has_end_token      False when no row's answer ends with an end token
    trained_rows       rows of which something is trained when none is cut, of those counted; None where not known
    overlap            held-out rows that stand in the training rows as well
    added_known        words of `added_tokens` that are one token already
    added_idle         those that are new, and stand in no row
    speeds             measured with this model on this machine, by a probe or earlier runs (`speeds.known`)
    """

    model: ModelFacts | None
    hardware: Hardware
    rows: int
    p50: int
    p95: int
    p99: int
    max: int
    mean: float = 0.0
    lengths: Sequence[int] | np.ndarray = []
    shared: int = 0
    around: int = 0
    starts: Sequence[int] | np.ndarray = []
    exact: bool = True
    intent: Literal["identity", "instructions", "text"] = "instructions"
    complex_task: bool = False
    stage: Stage = "sft"
    goal: Goal | None = None
    deadline: float | None = None
    has_end_token: bool = True
    trained_rows: int | None = None
    overlap: int = 0
    speeds: list[Measured] = []
    added_known: list[str] = []
    added_idle: list[str] = []

    @property
    def tokens_per_row(self) -> float:
        """The mean, or the median where no mean was counted."""
        return self.mean or float(self.p50)

    @property
    def kind(self) -> Kind:
        """The stage, or "identity", or "rl"."""
        if self.stage == "grpo" or self.stage == "rloo" or self.stage == "ppo":
            return "rl"
        return "identity" if self.stage == "sft" and self.intent == "identity" else self.stage

    @property
    def divided(self) -> bool:
        """Whether what is longer than `max_length` is divided, and nothing of it lost; else it is cut."""
        return self.stage == "pretraining"

    @property
    def rated(self) -> bool:
        """Whether answers that are known to be better or worse are learned from."""
        return self.stage in ("dpo", "kto", "reward")

    @cached_property
    def ascending(self) -> np.ndarray:
        """`lengths` from the shortest row to the longest: sorted once, then searched."""
        return _sorted(self.lengths)

    @property
    def mean_start(self) -> float:
        """Tokens before the first one with a loss; of a pair, its prompt. 0 where not known."""
        return float(self._starts.mean()) if len(self.starts) else 0.0

    @cached_property
    def _starts(self) -> np.ndarray:
        return _sorted(self.starts)

    @property
    def counted(self) -> int:
        """Rows whose tokens were counted; all of them where only percentiles are known."""
        return len(self.lengths) or self.rows

    def cut_at(self, max_length: int) -> int | None:
        """Counted rows that are longer than `max_length`; None where only percentiles are known."""
        return _above(self.ascending, max_length) if len(self.lengths) else None

    def untrained_at(self, max_length: int) -> int | None:
        """Counted rows of which nothing with a loss is left at `max_length`; None where it is not known."""
        if len(self.starts):
            beyond = 0 if self.divided else _above(self._starts, max_length - 1)
            return self.counted - len(self.starts) + beyond
        return None if self.trained_rows is None else self.counted - self.trained_rows

    @property
    def first_length(self) -> int:
        """The shortest cutoff at which one row keeps a token with a loss; 0 where it was not counted."""
        return int(self._starts[0]) + 1 if len(self.starts) else 0


class Alternative(Struct, frozen=True):
    """Another value, and what it would change or who recommends it."""

    value: Any
    effect: str


class Advice(Struct, frozen=True):
    """One setting's value and why.

    reason        a short plain sentence with the numbers at hand; fits 40 terminal cells unless a preset wrote it
    source        who says so, in words
    disagreement  where the sources contradict each other, one sentence that shows it; else empty
    """

    field: str
    value: Any
    reason: str
    source: str
    confidence: Confidence
    alternatives: list[Alternative] = []
    disagreement: str = ""


class Question(Struct, frozen=True):
    """One question of the gate, answered from what is known.

    key      "data", "hardware", "retrieval" or "time"
    known    False where only the person can answer: then `answer` says what to give
    speaks   what the answer means for tuning
    """

    key: Literal["data", "hardware", "retrieval", "time"]
    text: str
    answer: str
    known: bool
    source: str
    speaks: Literal["for", "doubt", "against"]


class Gate(Struct, frozen=True):
    """Whether to tune at all, and why. Advice only: nothing is kept from starting by it."""

    verdict: Literal["tune", "unsure", "do not tune"]
    why: str
    questions: list[Question]


class Plan(Struct, kw_only=True):
    """Advice for every setting, and what follows from it.

    stage           what kind of training the rows are for
    gate            whether to tune at all
    edits           what the person set, as typed values; kept apart from the advice
    settings        advice and edits resolved
    steps           optimizer steps of the whole run
    memory          None while no model is picked
    seconds         training time, None where it cannot be told; `seconds_source` says where it comes from
    warnings        what will probably disappoint
    refusals        why it cannot work at all
    """

    advice: list[Advice]
    edits: dict[str, Any]
    settings: Settings
    steps: int
    memory: Memory | None
    seconds: float | None
    seconds_source: str
    warnings: list[str]
    refusals: list[str]
    sentence: str
    stage: Advice
    gate: Gate

    def shown(self, everything: bool) -> tuple[list[Advice], list[Advice]]:
        """What a person is shown: the settings that most people look at; and of the rest that count here those that were
        edited, or all of them, and edits that do not count here.
        """
        of = {advice.field: advice for advice in self.advice}
        few, expert = self._counting()
        idle = [name for name in self.edits if name not in (*few, *expert) and self.edits[name] != of[name].value]
        rest = [name for name in expert if everything or name in self.edits]
        return [of[name] for name in few], [of[name] for name in (*rest, *idle)]

    def why(self, advice: Advice) -> tuple[str, str]:
        """Reason and source of the value that holds: the person's own where they set it."""
        if advice.field not in self.edits:
            return advice.reason, advice.source
        if not self.counts(advice.field):
            return "you set it; it does not count here", "you"
        if self.edits[advice.field] != advice.value:
            return f"you set it; advised {number(advice.value)}", "you"
        return "you set it, as advised", "you"

    def counts(self, field: str) -> bool:
        """Whether anything of such a run looks at this setting."""
        few, expert = self._counting()
        return field in few or field in expert

    def unpadded(self, model: ModelFacts | None) -> bool:
        """Whether rows are computed end to end, so that no padding is."""
        return fields.laid(self.stage.value, model, self.settings)

    def _counting(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        stage, method = self.stage.value, self.settings.method
        return fields.few(stage, method), fields.expert(stage, method, self.settings)

    @property
    def verdict(self) -> str:
        """The plan in a word or two and the first thing to know: "ready", "may disappoint: …", "cannot work: …"."""
        if self.refusals:
            return f"cannot work: {self.refusals[0]}"
        if self.gate.verdict == "do not tune":
            return f"do not tune: {self.gate.why}"
        if self.warnings:
            return f"may disappoint: {self.warnings[0]}"
        return "ready"


def held_out(rows: int, eval_fraction: float) -> int:
    """Rows kept for evaluation."""
    return round(rows * eval_fraction)


def _sorted(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    import numpy as np

    return np.sort(np.asarray(numbers, dtype=np.int64))


def _above(ascending: np.ndarray, limit: int) -> int:
    return len(ascending) - int(ascending.searchsorted(limit, side="right"))


def power_of_two(number: float) -> int:
    """The largest power of two that is not above `number`, at least 1."""
    return 1 << max(0, math.floor(math.log2(number))) if number >= 1 else 1


def gigabytes(count: float) -> str:
    """Bytes as a bare number of GB (10**9) for "2.1 of 23 GB": one digit after the point below 10, none from there on.

    >>> gigabytes(2_140_000_000), gigabytes(80e9)
    ('2.1', '80')
    """
    value = count / 1e9
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
