"""What the verb evaluate is asked, and the file that answers: RUN/measured/KEY.json. The same for the faces and the worker."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import msgspec
from msgspec import Struct, field

from engine import general
from engine.data import dataset
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Recipe
from engine.runs import checkpoints
from engine.runs.directory import RunDir
from engine.runs.events import Scores

FOLDER = "measured"
# Stages whose held-out rows say what a right answer is.
SHOWN = ("sft", "pretraining", "dpo", "kto")


class Asked(Struct, kw_only=True):
    """What a job of kind "evaluate" is told.

    data        a source of rows; None for rows that were held out
    of          the folder of the run whose held-out rows they are; None for this one's
    rows        so many at most, drawn by the seed; 0 for the plain questions of engine.general alone
    only        just those with these numbers, to compare two runs on the same rows
    max_tokens  new tokens of an answer at most
    """

    data: str | None = None
    of: str | None = None
    rows: int = 50
    only: list[int] | None = None
    max_tokens: int = 128

    def source(self, run: RunDir) -> RunDir:
        """The run whose rows they are, and whose recipe says how rows are read."""
        return RunDir(Path(self.of)) if self.of else run

    def reads(self, recipe: Recipe) -> Data:
        """The rows, of `recipe` or of a file that is read as the recipe reads its own."""
        if self.data is None:
            return recipe.data
        return msgspec.structs.replace(recipe.data, source=self.data, more=[], weight=1.0, subset=None, split=None)


class Row(Struct, kw_only=True):
    """One row that was measured, by its number from 1 in its source.

    prompt, reference, base, tuned   texts; None where the row has no answer to compare with (plain text, a tool's call)
    tokens                           of it that have a loss (0 in files from before it was counted)
    base_loss, tuned_loss            mean over them, in nats
    base_rouge, tuned_rouge          ROUGE-L
    gaps                             of models that fill gaps: how many can be seen in the text, which is `prompt`; the other texts
                                     are then the tokens of the gaps
    base_filled, tuned_filled        the share of them that is filled right
    """

    row: int
    prompt: str | None = None
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None
    tokens: int = 0
    base_loss: float = 0.0
    tuned_loss: float = 0.0
    base_rouge: float | None = None
    tuned_rouge: float | None = None
    gaps: int = 0
    base_filled: float | None = None
    tuned_filled: float | None = None

    @property
    def scores(self) -> tuple[float | None, float | None]:
        """How near the base's and the tuned answer come to the reference, from 0 to 1."""
        return (self.base_filled, self.tuned_filled) if self.gaps else (self.base_rouge, self.tuned_rouge)


class Known(Struct, kw_only=True):
    """One plain question (engine.general): what each model says, whether that is right, and the loss of the known answer."""

    ask: str
    answer: str
    base: str
    tuned: str
    base_right: bool
    tuned_right: bool
    base_loss: float
    tuned_loss: float


class Measurement(Struct, kw_only=True):
    """What measured/KEY.json holds.

    available  rows that there were to draw from
    left_out   rows that were drawn, but have nothing to measure, or a prompt that leaves no room for an answer
    seen       of the measured rows those that the run was trained on, word for word; None where its own rows cannot be
               read any more
    bleu       sacrebleu's signature
    intervals  of the differences in loss, ROUGE and what is generally known, the middle 95 % (paired bootstrap)
    general    plain questions, always the same
    """

    key: str
    run: str
    model: str
    asked: Asked
    rows: list[Row]
    available: int
    left_out: int
    seen: int | None
    base: Scores
    tuned: Scores
    bleu: str = ""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    general: list[Known] = field(default_factory=list)


def path(run: RunDir, key: str) -> Path:
    return run.path / FOLDER / f"{key}.json"


def read(run: RunDir, key: str) -> Measurement | None:
    """What was measured under this key, None where nothing was or the file is damaged."""
    try:
        return msgspec.json.decode(path(run, key).read_bytes(), type=Measurement)
    except (OSError, msgspec.DecodeError):
        return None


def newest(run: RunDir) -> Measurement | None:
    """What was measured last of the run's weights as they are, on rows of its own or of a file; None where nothing was."""
    files = sorted((run.path / FOLDER).glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files:
        found = read(run, file.stem)
        if found is None or found.asked.of is not None:
            continue
        with contextlib.suppress(FtuiError):  # its rows are gone: whether it still holds cannot be told
            if ready(run, found.asked) == found.key:
                return found
    return None


def ready(run: RunDir, asked: Asked) -> str:
    """Look whether the rows can be had, and give the key of the answer: the same for the same rows and the same weights.

    Raises FtuiError(RUN_STATE) for a run without a result or one that does not talk, and where held-out rows are asked for
    that are not there, or not the ones that were held out; FtuiError(DATA_*) for rows that cannot be read.
    """
    recipe = run.recipe()
    if run.result is None:
        raise FtuiError(
            Exit.RUN_STATE, f"{recipe.name} has no result yet", str(run.path), "`ftui runs` shows its state"
        )
    if recipe.stage == "reward":
        raise FtuiError(
            Exit.RUN_STATE,
            "a reward model gives scores, not answers",
            run.name,
            "`ftui evaluate RUN` alone shows how well it ranks what was held out",
        )
    source = asked.source(run)
    theirs = source.recipe()
    sha256 = ""
    if asked.rows:
        if asked.data is None and (cause := without_rows(theirs)):
            give = "give rows that it has not seen: --data FILE"
            raise FtuiError(Exit.RUN_STATE, cause, theirs.data.source, give)
        sha256 = dataset.load(asked.reads(theirs)).sha256
        trained_on = data_of(source)
        if asked.data is None and trained_on and sha256 != trained_on:
            raise FtuiError(
                Exit.RUN_STATE,
                f"the rows are not those that {theirs.name} was trained on any more: which were held out cannot be told",
                theirs.data.source,
                "give rows that it has not seen: --data FILE",
            )
    weights = [(file.name, *_stamp(file)) for file in sorted(run.result.glob("*.safetensors"))]
    split = (theirs.settings.eval_fraction, theirs.settings.seed, recipe.settings.max_length)
    what = [sha256, msgspec.to_builtins(asked), weights, split, general.sha256()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def data_of(run: RunDir) -> str:
    """The sha256 of the rows that the run was trained on, as its newest checkpoint says; empty where none does."""
    for _, folder in sorted(checkpoints.committed(run), reverse=True):
        try:
            return str(checkpoints.manifest(folder).get("data_sha256") or "")
        except (OSError, ValueError):
            continue
    return ""


def without_rows(recipe: Recipe) -> str:
    """Why the run has no rows of its own to be measured on; empty where it has."""
    if recipe.stage not in SHOWN:
        return f"the rows of {recipe.name} are prompts, without an answer to compare with"
    if not recipe.settings.eval_fraction:
        return f"no rows were held out when {recipe.name} was trained (eval_fraction 0)"
    return ""


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
