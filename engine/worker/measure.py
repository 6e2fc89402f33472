"""The job "evaluate": rows with known answers, measured with the base model and with the tuned one.

Loss is what training minimises, over the same tokens (cut at the run's max_length), but weighted by token and not by batch;
answers are greedy, to prompts written by the run's own template. One answer a row: to its last turn.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct

from engine import metrics, paths
from engine.data import dataset
from engine.data import tokenizer as tokens
from engine.data.convert import Example, Message
from engine.errors import Exit, FtuiError
from engine.models import sources
from engine.recipe import Recipe
from engine.runs import directory, measured
from engine.runs.events import Measured, Progress, Scores
from engine.runs.measured import Asked, Measurement, Row
from engine.worker import build, generate, rows, session
from engine.worker.session import Session

BATCH = 8  # prompts answered at once
TELL_EVERY = 1.0  # seconds between two words on how far it has come


class Item(Struct):
    """A row in tokens. `prompt` are the ids up to where the last answer begins, None where there is none to write."""

    example: Example
    ids: list[int]
    labels: list[int]
    prompt: list[int] | None
    question: str | None
    reference: str | None


class Side(Struct):
    """One model's rows: the summed loss and the number of tokens of each, and its answers, None where none was asked for."""

    losses: list[tuple[float, int]]
    answers: list[str | None]


def run(now: Session, options: dict[str, Any]) -> None:
    """Measure what the job's options ask for, and write it down under their key.

    Raises FtuiError(DATA_*, RUN_STATE, INTERRUPTED) as `measured.ready`, and for rows of which nothing can be measured.
    """
    asked = msgspec.convert({name: value for name, value in options.items() if name != "key"}, Asked)
    key, begun = str(options["key"]), time.monotonic()
    now.journal.write(Progress(what="evaluate: rows", done=0, total=0))
    examples, seen_by_training = _examples(now, asked)
    items, left_out = _items(now, asked, examples)
    if not items:
        raise FtuiError(
            Exit.DATA_ROW,
            f"nothing can be measured in these {len(examples)} rows",
            asked.data or now.recipe.data.source,
            "rows need an answer, and a prompt shorter than the run's max_length",
        )
    drawn = sorted(random.Random(now.recipe.settings.seed).sample(range(len(items)), min(asked.rows, len(items))))
    chosen = [items[at] for at in drawn]
    try:
        base, tuned = _both(now, chosen, asked)
    finally:
        now.run.stop_path.unlink(missing_ok=True)
    found = Measurement(
        key=key,
        run=directory.handle(now.run),
        model=now.recipe.model.source,
        asked=asked,
        rows=[_row(item, at, base, tuned) for at, item in enumerate(chosen)],
        available=len(items),
        left_out=left_out,
        seen=None if seen_by_training is None else sum(_identity(one.example) in seen_by_training for one in chosen),
        base=Scores(),
        tuned=Scores(),
        versions=session.versions(),
    )
    _score(found, base, tuned)
    found.seconds = time.monotonic() - begun
    target = measured.path(now.run, key)
    with directory.writing(now.run.path):
        paths.private_dir(target.parent)
        paths.write_private(target, msgspec.json.format(msgspec.json.encode(found), indent=1))
    where = str(target.relative_to(now.run.path))
    now.journal.write(Measured(path=where, rows=len(found.rows), base=found.base, tuned=found.tuned))


def _examples(now: Session, asked: Asked) -> tuple[list[Example], set[int] | None]:
    """The rows to draw from, and what the run was trained on, to tell rows that it has seen (None where that is gone)."""
    source = asked.source(now.run)
    recipe = source.recipe()
    own: rows.Drawn | None = None
    trained: set[int] | None = None
    with contextlib.suppress(FtuiError):  # its rows are gone or changed: only what is asked for counts
        if now.recipe.stage in measured.SHOWN:
            own = _drawn(now.recipe, now.folder)
            if own.dataset.sha256 == measured.data_of(now.run):
                trained = {_identity(own.dataset.examples[at]) for at in set(own.train)}
    if asked.data is not None:
        return list(dataset.load(asked.reads(recipe)).examples), trained
    if source != now.run or own is None:
        model = recipe.model
        own = _drawn(recipe, sources.resolve(model.source, revision=model.revision))
    return [own.dataset.examples[at] for at in own.held_out], trained


def _drawn(recipe: Recipe, folder: Path) -> rows.Drawn:
    """The rows as the stage draws them, so that the same ones are held out."""
    if recipe.stage == "dpo":
        from engine.worker.stages import dpo

        return rows.draw(recipe, folder, dpo.sides)
    return rows.draw(recipe, folder)


def _identity(example: Example) -> int:
    """Equal for rows that say the same, wherever they stand."""
    return hash(msgspec.json.encode(msgspec.structs.replace(example, row=0)))


def _items(now: Session, asked: Asked, examples: Iterable[Example]) -> tuple[list[Item], int]:
    """The rows in tokens, and how many are left out: nothing has a loss, a bad answer, or no room for one."""
    most, found, left_out = now.recipe.settings.max_length, [], 0
    config = build.config(now.folder, now.recipe.model, now.recipe.settings)
    limit = build.context(SimpleNamespace(config=config))
    for example in examples:
        if example.label is False:  # KTO's bad answers are no reference
            left_out += 1
            continue
        (measure,) = now.rows.measure([now.rows.render(example)])
        cut = rows.Rows([(np.array(measure.ids), measure.trained)], most)[0]
        question, reference = _exchange(example)
        prompt = None if question is None else now.rows.prompt(question, example.tools)
        too_long = prompt is not None and limit is not None and len(prompt) + asked.max_tokens > limit
        if too_long or all(label == tokens.UNTRAINED for label in cut["labels"][1:]):
            left_out += 1
            continue
        words = None if question is None else _words(question)
        found.append(Item(example, cut["input_ids"], cut["labels"], prompt, words, reference))
    return found, left_out


def _exchange(example: Example) -> tuple[list[Message] | None, str | None]:
    """The conversation up to its last answer, and that answer; (None, None) where there is no text to compare with."""
    messages = [*(example.messages or []), *(example.chosen or [])[:1]]
    last = max((at for at, one in enumerate(messages) if one.role == "assistant" and one.trained), default=0)
    if not last or not messages[last].content.strip() or messages[last].tool_calls:
        return None, None
    return messages[:last], messages[last].content.strip()


def _words(messages: list[Message]) -> str:
    """What was asked, for a person: the question alone where there is nothing else."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _both(now: Session, items: list[Item], asked: Asked) -> tuple[Side, Side]:
    """The base model first. Of an adapter's run it is the same model with the adapter switched off."""
    recipe, result = now.recipe, now.run.result
    assert result is not None  # measured.ready has looked
    now.journal.write(Progress(what="evaluate: model", done=0, total=0))
    if recipe.settings.adapts:
        now.model = build.for_chat(recipe, now.folder, result)
        with now.model.disable_adapter():
            base = _side(now, "base", items, asked)
    else:
        now.model = build.base_model(now.folder, recipe.model, recipe.settings).eval()
        base = _side(now, "base", items, asked)
        now.model = None  # before the other is loaded: there may not be room for both
        now.model = build.for_chat(recipe, now.folder, result)
    return base, _side(now, "tuned", items, asked)


def _side(now: Session, which: str, items: list[Item], asked: Asked) -> Side:
    losses = [_loss(now.model, item) for item in _told(now, f"evaluate: {which} loss", items, len(items))]
    # Prompts of one length together, so that little is padded.
    order = sorted((at for at, item in enumerate(items) if item.prompt), key=lambda at: len(items[at].prompt or []))
    prompts = [items[at].prompt or [] for at in order]
    said = generate.answers(now.model, now.tokenizer, prompts, asked.max_tokens, BATCH)
    answers: list[str | None] = [None] * len(items)
    for at, answer in zip(order, _told(now, f"evaluate: {which} answers", said, len(order)), strict=True):
        answers[at] = answer
    return Side(losses, answers)


@torch.no_grad()
def _loss(model: Any, item: Item) -> tuple[float, int]:
    """(summed cross entropy in nats, tokens that it is over) of one row."""
    ids, labels = torch.tensor([item.ids], device=model.device), torch.tensor(item.labels[1:], device=model.device)
    with generate.mixed(model):
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    kept = labels != tokens.UNTRAINED
    summed = torch.nn.functional.cross_entropy(logits[kept].float(), labels[kept], reduction="sum")
    return float(summed), int(kept.sum())


def _told(now: Session, what: str, things: Iterable[Any], total: int) -> Iterator[Any]:
    """`things`, with the journal told how far it has come, until a stop is asked for."""
    said = 0.0
    for done, thing in enumerate(things):
        if now.run.stop_path.exists():
            raise FtuiError(Exit.INTERRUPTED, "the evaluation was stopped", next_step="start it again any time")
        if time.monotonic() - said >= TELL_EVERY:
            said = time.monotonic()
            now.journal.write(Progress(what=what, done=done, total=total))
        yield thing


def _row(item: Item, at: int, base: Side, tuned: Side) -> Row:
    return Row(
        row=item.example.row,
        prompt=item.question,
        reference=item.reference,
        base=base.answers[at],
        tuned=tuned.answers[at],
        base_loss=base.losses[at][0] / base.losses[at][1],
        tuned_loss=tuned.losses[at][0] / tuned.losses[at][1],
    )


def _score(found: Measurement, base: Side, tuned: Side) -> None:
    """Fill in the scores of each model, of each row, and how sure the differences are."""
    answered = [row for row in found.rows if row.reference is not None]
    references = [row.reference or "" for row in answered]
    cut = metrics.bleu_tokenizer(references)
    rouges: list[list[dict[str, float]]] = []
    texts: tuple[Callable[[Row], str | None], ...] = (lambda row: row.base, lambda row: row.tuned)
    for side, scores, text in zip((base, tuned), (found.base, found.tuned), texts, strict=True):
        loss = sum(summed for summed, _ in side.losses) / sum(count for _, count in side.losses)
        scores.loss, scores.perplexity = loss, metrics.perplexity(loss)
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
