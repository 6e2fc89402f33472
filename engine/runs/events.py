"""What a run's journal can say. One event is one line of events.jsonl; the format is public.

Times are seconds since 1970 (UTC), rates are per optimizer step, tokens are trained tokens (those with a loss)
unless a name says otherwise. Fields are only ever added.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

StateName = Literal[
    "preparing",
    "queued",
    "loading",
    "tokenizing",
    "training",
    "evaluating",
    "saving",
    "ready",
    "stopped",
    "failed",
    "lost",
]
ENDED: frozenset[str] = frozenset({"ready", "stopped", "failed", "lost"})


class Event(Struct, kw_only=True, tag_field="event", omit_defaults=True):
    seq: int = 0
    time: float = 0.0


class State(Event, tag="state"):
    """The run entered `state`. "lost" is never written: a reader concludes it (see engine.runs.status)."""

    state: StateName
    detail: str = ""


class Progress(Event, tag="progress"):
    """How far a state that lasts has come: `done` of `total` `what` ("rows", "MB", "questions")."""

    what: str
    done: int
    total: int


class Start(Event, tag="start"):
    """An attempt begins to train at `from_step`. Steps after it in earlier attempts no longer count."""

    attempt: int
    from_step: int
    total_steps: int
    epochs: float
    rows: int
    eval_rows: int = 0
    parameters: int = 0
    trained_parameters: int = 0
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, object] = field(default_factory=dict)


class Step(Event, tag="step", gc=False):
    """One optimizer step is done. `reward` is the mean reward of its answers, where it learns from rewards."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int  # trained tokens since the run began
    tokens_per_second: float  # all tokens of the batch without padding, over the last step
    memory: int  # bytes in use on the device that trains, at most so far
    seconds_left: float
    reward: float | None = None


class Point(Struct, tag_field="event", tag="step", gc=False):
    """A step line of which only the point of the curve was read: most of a long journal (see `Reader.points`)."""

    step: int
    loss: float
    reward: float | None = None


class Evaluated(Event, tag="evaluated"):
    """Loss on the held-out rows after `step`.

    Of answers that are known to be better and worse, too: `accuracy`, the share of pairs that are ranked right, a level
    one counting half; `margin`, by how much the better one is ahead on average; `likelier`, the share of pairs whose
    better answer the model itself finds likelier, token for token.
    """

    step: int
    loss: float
    accuracy: float | None = None
    margin: float | None = None
    likelier: float | None = None


class Sample(Event, tag="sample"):
    """What the model answers to the probe prompt after `step`."""

    step: int
    prompt: str
    answer: str


class Checkpoint(Event, tag="checkpoint"):
    """A checkpoint was committed; `path` is relative to the run directory."""

    step: int
    path: str


class Retired(Event, tag="retired"):
    """An older checkpoint was deleted."""

    step: int


class Result(Event, tag="result"):
    """The trained result was written; `path` is relative to the run directory. `files`: the SHA-256 of each, by its path
    in there."""

    kind: Literal["adapter", "model"]
    path: str
    step: int
    files: dict[str, str] = field(default_factory=dict)


class Answer(Struct, kw_only=True):
    ask: str
    expect: list[str]
    before: str
    after: str
    before_right: bool
    after_right: bool


class Evaluation(Event, tag="evaluation"):
    """The checks, before and after. Also kept as evaluation.json."""

    identity: list[Answer] = field(default_factory=list)
    general: list[Answer] = field(default_factory=list)


class Scores(Struct, kw_only=True):
    """What rows are worth of which the answers are known. None where it was not measured, or is infinite.

    loss                    mean over all trained tokens, in nats; of models that fill gaps, over those left out
    perplexity              exp(loss)
    rouge1, rouge2, rougeL  F1, mean over the answers, from 0 to 1
    bleu                    of all answers together, from 0 to 100
    filled                  of models that fill gaps: the share whose token is the one found likeliest, from 0 to 1
    general_loss            of the known answers to plain questions (engine.general), in nats a token, mean over the questions
    general_right           how many of them are answered right
    """

    loss: float | None = None
    perplexity: float | None = None
    rouge1: float | None = None
    rouge2: float | None = None
    rougeL: float | None = None
    bleu: float | None = None
    filled: float | None = None
    general_loss: float | None = None
    general_right: int | None = None


class Measured(Event, tag="measured"):
    """Rows were measured before and after: `rows` of them, and all about it in the file `path` below the run directory."""

    path: str
    rows: int
    base: Scores
    tuned: Scores


class Exported(Event, tag="exported"):
    """An export was written, loaded back and compared: `difference` is the largest gap between logits.

    form          "f16" or "q8_0" of a GGUF, else the precision of the weights ("fp32")
    alike, asked  of a GGUF: greedy answers that are the run's own, of so many that were compared
    bytes         of all its files
    """

    kind: Literal["adapter", "merged", "gguf"]
    path: str
    difference: float
    form: str = ""
    alike: int = 0
    asked: int = 0
    bytes: int = 0


class Pushed(Event, tag="pushed"):
    """An export was put on the hub. `path` is the folder it came from."""

    repository: str
    url: str
    public: bool
    path: str


class Note(Event, tag="note"):
    """Something the person should know, in one sentence ("stopped early: the loss is flat")."""

    text: str


class Retry(Event, tag="retry"):
    """A try failed, and `attempt` begins by itself. `change` says what it does otherwise; `settings` are the new values.

    kind  "memory", "nan" or "gpu"
    """

    attempt: int
    kind: str
    cause: str
    change: str
    settings: dict[str, Any] = field(default_factory=dict)


class Failure(Event, tag="failure"):
    """Why the run failed; at most three lines for the person.

    offer  settings with which it may go on, if the person agrees: what `next_step` names first
    """

    cause: str
    where: str = ""
    next_step: str = ""
    code: int = 52
    offer: dict[str, Any] = field(default_factory=dict)


AnyEvent = (
    State
    | Progress
    | Start
    | Step
    | Evaluated
    | Sample
    | Checkpoint
    | Retired
    | Result
    | Evaluation
    | Measured
    | Exported
    | Pushed
    | Note
    | Retry
    | Failure
)
