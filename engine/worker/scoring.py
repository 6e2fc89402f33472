"""What both models make of each row becomes scores, with how sure their differences are."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from engine import general, metrics
from engine.data.convert import Example
from engine.runs.events import Scores
from engine.runs.measured import Known, Measurement, Row


class Item(Struct):
    """A row in tokens. `prompt` are the ids up to where the last answer begins, None where there is none to write."""

    example: Example
    ids: list[int]
    labels: list[int]
    prompt: list[int] | None
    question: str | None
    reference: str | None


class Side(Struct):
    """One model's rows: the summed loss and the number of tokens of each, and its answers, None where none was asked for.

    known   the same of the known answers to the plain questions; `said` what it answers to them
    filled  of each row the gaps whose token the model finds likeliest, of how many
    """

    losses: list[tuple[float, int]]
    answers: list[str | None]
    known: list[tuple[float, int]] = []
    said: list[str] = []
    filled: list[tuple[int, int]] = []


def row(item: Item, at: int, base: Side, tuned: Side) -> Row:
    return Row(
        row=item.example.row,
        prompt=item.question,
        reference=item.reference,
        base=base.answers[at],
        tuned=tuned.answers[at],
        tokens=base.losses[at][1],
        base_loss=_mean(base.losses[at]),
        tuned_loss=_mean(tuned.losses[at]),
        gaps=base.filled[at][1] if base.filled else 0,
        base_filled=_share(base.filled[at]) if base.filled else None,
        tuned_filled=_share(tuned.filled[at]) if tuned.filled else None,
    )


def known(one: general.Question, at: int, base: Side, tuned: Side) -> Known:
    return Known(
        ask=one.ask,
        answer=one.lead + one.answer,
        base=base.said[at],
        tuned=tuned.said[at],
        base_right=one.right(base.said[at]),
        tuned_right=one.right(tuned.said[at]),
        base_loss=_mean(base.known[at]),
        tuned_loss=_mean(tuned.known[at]),
    )


def _mean(loss: tuple[float, int]) -> float:
    return loss[0] / loss[1]


def _share(filled: tuple[int, int]) -> float | None:
    right, gaps = filled
    return right / gaps if gaps else None


def score(found: Measurement, base: Side, tuned: Side) -> None:
    """Fill in the scores of each model, of each row, and how sure the differences are."""
    gaps = [row.tuned_loss - row.base_loss for row in found.rows]
    if gaps:
        found.intervals["loss"] = metrics.interval(gaps, [row.tokens for row in found.rows])
    if base.filled:
        _score_gaps(found, base, tuned)
        return
    found.intervals["general_loss"] = metrics.interval([one.tuned_loss - one.base_loss for one in found.general])
    turned = [float(one.tuned_right) - float(one.base_right) for one in found.general]
    low, high = metrics.interval(turned)
    found.intervals["general_right"] = (low * len(turned), high * len(turned))
    answered = [row for row in found.rows if row.reference is not None]
    references = [row.reference or "" for row in answered]
    cut = metrics.bleu_tokenizer(references)
    rouges: list[list[dict[str, float]]] = []
    texts: tuple[Callable[[Row], str | None], ...] = (lambda row: row.base, lambda row: row.tuned)
    rights: tuple[Callable[[Known], bool], ...] = (lambda one: one.base_right, lambda one: one.tuned_right)
    for side, scores, text, right in zip((base, tuned), (found.base, found.tuned), texts, rights, strict=True):
        _score_losses(scores, side)
        scores.general_loss = sum(map(_mean, side.known)) / len(side.known)
        scores.general_right = sum(map(right, found.general))
        if not answered:
            continue
        answers = [text(row) or "" for row in answered]
        each = [metrics.rouge(*pair) for pair in zip(references, answers, strict=True)]
        rouges.append(each)
        for name in metrics.ROUGE:
            setattr(scores, name, sum(one[name] for one in each) / len(each))
        total = metrics.bleu(references, answers, cut)
        scores.bleu, found.bleu = total.score, total.signature
    if not answered:
        return
    for row, before, after in zip(answered, *rouges, strict=True):
        row.base_rouge, row.tuned_rouge = before["rougeL"], after["rougeL"]
    for name in metrics.ROUGE:
        found.intervals[name] = metrics.interval([b[name] - a[name] for a, b in zip(*rouges, strict=True)])


def _score_losses(scores: Scores, side: Side) -> None:
    if side.losses:
        scores.loss = sum(summed for summed, _ in side.losses) / sum(count for _, count in side.losses)
        scores.perplexity = metrics.perplexity(scores.loss)


def _score_gaps(found: Measurement, base: Side, tuned: Side) -> None:
    """Loss, and the share of the gaps that are filled right; over all gaps, so that a long row counts more."""
    for side, scores in ((base, found.base), (tuned, found.tuned)):
        _score_losses(scores, side)
        scores.filled = _share((sum(right for right, _ in side.filled), sum(gaps for _, gaps in side.filled)))
    some = [row for row in found.rows if row.base_filled is not None and row.tuned_filled is not None]
    gaps = [(row.tuned_filled or 0.0) - (row.base_filled or 0.0) for row in some]
    if some:
        found.intervals["filled"] = metrics.interval(gaps, [row.gaps for row in some])
