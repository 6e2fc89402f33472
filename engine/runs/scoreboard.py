"""What was measured, as a person reads it: the table, what it rests on, what is to be said of it. For the verb, the screen
and the model card; texts of it are not made safe yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from engine import metrics, ratings
from engine.errors import Exit, FtuiError
from engine.ratings import Ratings, Tally
from engine.runs import directory, measured
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Evaluation
from engine.runs.journal import Reader
from engine.runs.measured import Measurement
from engine.runs.view import RunView

FEW = 30  # rows below which chance is to be mentioned
FORGOT = 0.1  # nats that the known answers must have lost before it is called forgetting
_MOST_PERPLEXITY = 1e6  # above, a number says nothing to anybody
# Name of a score -> (what it is called, decimals)
_SCORES = {
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "bleu": ("BLEU", 1),
    "filled": ("gaps filled right", 3),
    "general_loss": ("general: loss", 3),
    "general_right": ("general: right", 0),
}


class History(Struct):
    """What a run has noted of itself while it trained.

    identity     how many checks of who it is were right, before and after, of how many
    first, last  held-out rows before the first step and after that of the result; of preferences they have accuracy and margin
    """

    identity: tuple[int, int, int] | None = None
    first: Evaluated | None = None
    last: Evaluated | None = None


class Compared(Struct):
    """One run: what was found of it, None of a reward model, and its own history."""

    run: str
    folder: Path
    found: Measurement | None
    history: History
    seed: int = 0


class Line(Struct, frozen=True):
    """One line of the table; `cells` are those of the models, as `heads` names them. Empty where nothing is known."""

    name: str
    cells: list[str]
    difference: str
    interval: str = ""


class Pair(Struct, frozen=True):
    """Two answers to one prompt: base and tuned, or those of two runs (then `base` is the first run's base's).

    first_score, second_score  ROUGE-L against the reference, or the share of a text's gaps that is filled right
    """

    row: int
    prompt: str
    reference: str
    first: str
    second: str
    first_score: float
    second_score: float
    base: str | None = None

    @property
    def gain(self) -> float:
        return self.second_score - self.first_score


def of(run: RunDir, found: Measurement | None) -> Compared:
    return Compared(directory.handle(run), run.path, found, history(run), run.recipe().settings.seed)


def ranked(run: RunDir) -> Compared:
    """A reward model: what its own curve tells. FtuiError(RUN_STATE) where it was never measured."""
    made = of(run, None)
    if made.history.last is None or made.history.last.accuracy is None:
        cause = f"no pairs were held out when {made.run} was trained: nothing tells how well it ranks"
        raise FtuiError(Exit.RUN_STATE, cause, run.name, "train it with eval_fraction above 0")
    return made


def history(run: RunDir) -> History:
    view = RunView()
    for events in Reader(run.journal_path).points():
        view.fold(events)
    with contextlib.suppress(OSError, msgspec.MsgspecError):  # without the journal's entry, the file
        if view.evaluation is None:
            view.evaluation = msgspec.json.decode(run.evaluation_path.read_bytes(), type=Evaluation)
    return noted(view)


def noted(view: RunView) -> History:
    """The history in a journal that was read."""
    made = History()
    if view.evaluation is not None and (asked := view.evaluation.identity):
        made.identity = sum(one.before_right for one in asked), sum(one.after_right for one in asked), len(asked)
    if len(view.evaluated) > 1:
        result = view.result.step if view.result else view.evaluated[-1].step
        made.first = view.evaluated[0]
        made.last = next((one for one in view.evaluated[1:] if one.step == result), view.evaluated[-1])
    return made


# the table --------------------------------------------------------------------------------------------------------


def heads(results: Sequence[Compared]) -> list[str]:
    """The models: base and tuned, or base and both runs."""
    return ["base", "tuned"] if len(results) == 1 else ["base", *(one.run for one in results)]


def table(results: Sequence[Compared]) -> list[Line]:
    lines: list[Line] = []
    if found := _found(results):
        scores = [found[0].base, *(one.tuned for one in found)]
        intervals = found[0].intervals if len(found) == 1 else _between(found[0], found[1])
        questions = len(found[0].general)
        for name, (title, decimals) in _SCORES.items():
            values = [getattr(one, name) for one in scores]
            if any(value is not None for value in values):
                title += f" of {questions}" if name == "general_right" else ""
                lines.append(_line(title, values, intervals.get(name), partial(_decimals, decimals)))
    return lines + _of_histories([one.history for one in results])


def _of_histories(told: Sequence[History]) -> list[Line]:
    lines = []
    if all(one.identity is not None for one in told):
        counts = [one.identity or (0, 0, 0) for one in told]
        title = f"identity: right of {counts[0][2]}"
        lines.append(_line(title, [counts[0][0], *(one[1] for one in counts)], None, str))
    ranks: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("pairs ranked right", "accuracy", lambda value: f"{value:.1%}"),
        ("margin of the better", "margin", lambda value: f"{value:.3f}"),
        ("better one likelier", "likelier", lambda value: f"{value:.1%}"),
    )
    for title, name, words in ranks:
        values = [getattr(one, name, None) for one in (told[0].first, *(one.last for one in told))]
        if any(value is not None for value in values):
            lines.append(_line(title, values, None, words))
    return lines


def _line(
    title: str, values: Sequence[float | None], interval: tuple[float, float] | None, words: Callable[[float], str]
) -> Line:
    def written(value: float | None) -> str:
        if value is None:
            return "–"
        return words(value) if value <= _MOST_PERPLEXITY else f"over {_MOST_PERPLEXITY:,.0f}"

    def signed(value: float) -> str:
        return ("" if words(value).startswith("-") else "+") + words(value)

    before, after = values[-2:]
    known = before is not None and after is not None and max(before, after) <= _MOST_PERPLEXITY
    gap = signed(after - before) if known and before is not None and after is not None else "–"
    span = f"{signed(interval[0])} to {signed(interval[1])}" if interval else ""
    return Line(title, [written(value) for value in values], gap, span)


def _decimals(decimals: int, value: float) -> str:
    return f"{value:.{decimals}f}"


def _between(one: Measurement, other: Measurement) -> dict[str, tuple[float, float]]:
    """The intervals of OTHER minus ONE, from what is kept of each row."""
    rows = {row.row: row for row in other.rows}
    both = [(row, rows[row.row]) for row in one.rows if row.row in rows]
    made: dict[str, tuple[float, float]] = {}
    if all(row.tokens for row, _ in both) and both:
        gaps = [theirs.tuned_loss - row.tuned_loss for row, theirs in both]
        made["loss"] = metrics.interval(gaps, [row.tokens for row, _ in both])
    scored = [
        (theirs.scores[1] - row.scores[1], row.gaps)
        for row, theirs in both
        if row.scores[1] is not None and theirs.scores[1] is not None
    ]
    if scored and fills(one):
        made["filled"] = metrics.interval([gain for gain, _ in scored], [gaps for _, gaps in scored])
    elif scored:
        made["rougeL"] = metrics.interval([gain for gain, _ in scored])
    known = list(zip(one.general, other.general, strict=False))
    if known:
        made["general_loss"] = metrics.interval([b.tuned_loss - a.tuned_loss for a, b in known])
        low, high = metrics.interval([float(b.tuned_right) - float(a.tuned_right) for a, b in known])
        made["general_right"] = (low * len(known), high * len(known))
    return made


# what is said of it -----------------------------------------------------------------------------------------------


def basis(found: Measurement) -> str:
    """ "50 of 122 held-out rows of congyu, greedy answers of 128 tokens at most"."""
    asked = found.asked
    if not asked.rows:
        return f"{found.run} has no rows of its own to be measured on: {len(found.general)} plain questions alone"
    where = f"rows of {Path(asked.data).name}" if asked.data else f"held-out rows of {found.run}"
    left = f" ({found.left_out} drawn were left out: nothing to compare, or too long)" if found.left_out else ""
    how = "parts of each left out" if fills(found) else f"greedy answers of {asked.max_tokens} tokens at most"
    return f"{len(found.rows)} of {found.available} {where}{left}, {how}"


def fills(found: Measurement) -> bool:
    """Whether the models fill in what is left out of a text, and answer nothing."""
    return found.base.filled is not None


def verdict(results: Sequence[Compared]) -> str:
    """One sentence: whether the rows tell the models apart, and what was forgotten. Empty for a reward model."""
    found = _found(results)
    if not found:
        return ""
    better = results[-1].run if len(results) > 1 else "tuned"
    worse = results[0].run if len(results) > 1 else "base"
    intervals = found[0].intervals if len(found) == 1 else _between(found[0], found[1])
    name, sign = ("rougeL", 1) if "rougeL" in intervals else ("loss", -1)  # of gaps the loss, which sees near misses
    low, high = sorted(sign * bound for bound in intervals.get(name, (0.0, 0.0)))
    by = f"by {_SCORES[name][0]}"
    if name not in intervals:
        said = ""
    elif low > 0:
        said = f"{better} is better than {worse} {by}"
    elif high < 0:
        said = f"{better} is worse than {worse} {by}"
    else:
        said = f"these rows do not tell {better} from {worse} {by}"
    lost = forgot(found[-1])
    questions = len(found[0].general)
    kept = f"nothing forgotten that shows in {questions} plain questions" if questions else ""
    return "; ".join(filter(None, (said, f"forgot: {lost}" if lost else kept)))


def forgot(found: Measurement) -> str:
    """What tuning has cost of plain knowledge, against the base; empty where it is not clear that it cost any."""
    base, tuned, said = found.base, found.tuned, []
    low, _ = found.intervals.get("general_loss", (0.0, 0.0))
    _, most = found.intervals.get("general_right", (0.0, 0.0))
    if most < 0:
        said.append(f"{tuned.general_right} of {len(found.general)} plain questions right, {base.general_right} before")
    if low > 0 and (tuned.general_loss or 0.0) - (base.general_loss or 0.0) > FORGOT:
        said.append(f"known answers are less likely, loss {tuned.general_loss:.2f}, {base.general_loss:.2f} before")
    return ", ".join(said)


def remarks(results: Sequence[Compared]) -> list[str]:
    """What must be said beside the table."""
    lines = []
    found = _found(results)
    for one in found:
        if one.seen:
            lines.append(f"{one.run} was trained on {one.seen} of these rows, word for word: they prove nothing for it")
        elif one.seen is None and one.asked.rows and (one.asked.data or one.asked.of):
            lines.append(
                f"whether {one.run} was trained on these rows cannot be told: its own are gone or have changed"
            )
    if len(found) > 1 and len(found[1].rows) < len(found[0].rows):
        lines.append(
            f"{found[1].run} could be measured on {len(found[1].rows)} of these rows only: the others are too long"
        )
    if len(found) > 1 and found[0].model != found[1].model:
        lines.append(f"base is that of {found[0].run}, {found[0].model}; {found[1].run} began with {found[1].model}")
    if found and 0 < len(found[0].rows) < FEW:
        lines.append(f"{len(found[0].rows)} rows are few: differences of some hundredths may be chance")
    return lines


def noted_where(results: Sequence[Compared]) -> str:
    """Where the lines come from that were not measured now."""
    said = []
    first, last = results[0].history.first, results[-1].history.last
    if all(one.history.identity is not None for one in results):
        said.append("identity: the run's own checks, in words that are not in its rows")
    if first is not None and last is not None and last.accuracy is not None:
        said.append(
            f"pairs and margin: all held-out rows of the run, by its own curve, step {first.step} and {last.step}"
        )
    return "; ".join(said)


# pairs of answers -------------------------------------------------------------------------------------------------


def pairs(results: Sequence[Compared]) -> list[Pair]:
    """Prompts that both answered, in the order of the rows."""
    found = _found(results)
    if not found:
        return []
    others = {row.row: row for row in found[-1].rows}
    made = []
    for row in found[0].rows:
        other = others.get(row.row)
        if row.reference is None or other is None:
            continue
        texts = (row.base, row.tuned) if len(found) == 1 else (row.tuned, other.tuned)
        scores = row.scores if len(found) == 1 else (row.scores[1], other.scores[1])
        base = row.base if len(found) > 1 else None
        made.append(
            Pair(
                row.row,
                row.prompt or "",
                row.reference,
                texts[0] or "",
                texts[1] or "",
                scores[0] or 0.0,
                scores[1] or 0.0,
                base,
            )
        )
    return made


def to_rate(results: Sequence[Compared]) -> list[Pair]:
    """Those whose answers differ."""
    return [pair for pair in pairs(results) if pair.first.strip() != pair.second.strip()]


def rated(results: Sequence[Compared]) -> Ratings:
    """The ratings of these answers, to be read and added to."""
    keys = [one.key for one in _found(results)]
    return Ratings(ratings.path(results[0].folder / measured.FOLDER, keys[0], keys[1] if len(keys) > 1 else None))


def tally(results: Sequence[Compared]) -> Tally | None:
    """What the ratings add up to; None where nothing was rated."""
    if not _found(results):
        return None
    found = rated(results).tally([pair.row for pair in to_rate(results)])
    return found if found.rated else None


def told(found: Tally, first: str = "base", second: str = "tuned") -> str:
    """The tally in words; who is ahead only where the person may know."""
    if not found.known:
        return f"rated blind: {found.rated} of {found.pairs} pairs; who is ahead shows when the rating is ended"
    p = f"{found.p:.3f}" if found.p >= 0.001 else "below 0.001"
    return (
        f"rated blind: {second} better in {found.second}, {first} in {found.first}, {found.ties} ties, "
        f"{found.rated} of {found.pairs} pairs (sign test: p {p})"
    )


def _found(results: Sequence[Compared]) -> list[Measurement]:
    return [one.found for one in results if one.found is not None]
