"""The job "evaluate": rows with known answers, measured with the base model and with the tuned one.

Loss is what training minimises, over the same tokens (cut at the run's max_length), but weighted by token and not by batch;
answers are greedy, to prompts written by the run's own template. One answer a row: to its last turn. Beside the rows always
the plain questions of engine.general, which show what was forgotten. Models that fill in words or write another text answer
nothing: of them what is left out of each row is measured (engine.worker.measure_gaps).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from msgspec import Struct

from engine import general, paths
from engine.data import dataset
from engine.data import tokenizer as tokens
from engine.data.convert import Example, Message
from engine.errors import Exit, FtuiError
from engine.models import sources
from engine.recipe import Recipe
from engine.runs import directory, measured
from engine.runs.events import Measured, Progress, Scores
from engine.runs.measured import Asked, Measurement
from engine.worker import build, failures, generate, measure_gaps, rows, scoring, session
from engine.worker.measure_gaps import Texts
from engine.worker.scoring import Item, Side
from engine.worker.session import Session

BATCH = 8  # prompts answered at once
SHORT = 40  # new tokens of an answer to a plain question, as of the checks
TELL_EVERY = 1.0  # seconds between two words on how far it has come
Thing = TypeVar("Thing")


class Pool(Struct):
    """Rows to draw from: `which` of the examples; and the run's own rows with their split, None where they are not there
    any more as they were."""

    examples: Sequence[Example]
    which: Sequence[int]
    own: rows.Drawn | None
    seed: int


def run(now: Session, options: dict[str, Any]) -> None:
    """Measure what the job's options ask for, and write it down under their key.

    Raises FtuiError(DATA_*, RUN_STATE) as `measured.ready`, DATA_ROW for rows of which nothing can be measured,
    RUN_FAILED where memory runs out, INTERRUPTED when a stop was asked for.
    """
    asked = msgspec.convert({name: value for name, value in options.items() if name != "key"}, Asked)
    key, begun = str(options["key"]), time.monotonic()
    now.journal.write(Progress(what="evaluate: rows", done=0, total=0))
    pool = _pool(now, asked) if asked.rows else Pool([], [], None, 0)
    texts = measure_gaps.of(now)
    items, left_out = _items(now, asked, pool, texts)
    if (asked.rows or texts) and not items:
        raise FtuiError(
            Exit.DATA_ROW,
            f"nothing can be measured in these {len(pool.which)} rows",
            asked.data or now.recipe.data.source,
            "give texts of a few words at least (--data FILE)"
            if texts
            else "rows need an answer, and a prompt that leaves room for it",
        )
    try:
        base, tuned = _both(now, items, asked, texts)
    except Exception as error:
        if failures.kind(error) != "memory":
            raise
        longest = max((len(item.ids) for item in items), default=0)
        cause = f"out of memory at rows of up to {longest} tokens" if items else "out of memory at the plain questions"
        raise FtuiError(
            Exit.RUN_FAILED, cause, now.run.name, "end what else uses the memory, then do it again"
        ) from None
    finally:
        now.run.stop_path.unlink(missing_ok=True)
    found = Measurement(
        key=key,
        run=directory.handle(now.run),
        model=now.recipe.model.source,
        asked=asked,
        rows=[scoring.row(item, at, base, tuned) for at, item in enumerate(items)],
        general=[] if texts else [scoring.known(one, at, base, tuned) for at, one in enumerate(general.questions())],
        available=len(pool.which),
        left_out=left_out,
        seen=_seen(pool, items),
        base=Scores(),
        tuned=Scores(),
        versions=session.versions(),
    )
    scoring.score(found, base, tuned)
    found.seconds = time.monotonic() - begun
    target = measured.path(now.run, key)
    with directory.writing(now.run.path):
        paths.private_dir(target.parent)
        paths.write_private(target, msgspec.json.format(msgspec.json.encode(found), indent=1))
    where = str(target.relative_to(now.run.path))
    now.journal.write(Measured(path=where, rows=len(found.rows), base=found.base, tuned=found.tuned))


def _pool(now: Session, asked: Asked) -> Pool:
    source = asked.source(now.run)
    recipe = source.recipe()
    own: rows.Drawn | None = None
    with contextlib.suppress(FtuiError):  # its rows are gone: only those that are asked for count
        if now.recipe.stage in measured.SHOWN:
            own = _drawn(now.recipe, now.folder)
    drawn = own
    if asked.data is None and (own is None or source != now.run):
        model = recipe.model
        drawn = _drawn(recipe, sources.resolve(model.source, revision=model.revision))
    if asked.data is not None or drawn is None:
        examples: Sequence[Example] = dataset.load(asked.reads(recipe)).examples
        which: Sequence[int] = range(len(examples))
    else:
        examples, which = drawn.dataset.examples, drawn.held_out
    if own is not None and own.dataset.sha256 != measured.data_of(now.run):
        own = None
    return Pool(examples, which, own, recipe.settings.seed)


def _seen(pool: Pool, items: list[Item]) -> int | None:
    """How many of the rows the run was trained on, word for word. None where that cannot be told."""
    if pool.own is None:
        return None
    wanted, trained = {_identity(item.example) for item in items}, set(pool.own.train)
    known = wanted & {_identity(one) for at, one in enumerate(pool.own.dataset.examples) if at in trained}
    return sum(_identity(item.example) in known for item in items)


def _drawn(recipe: Recipe, folder: Path) -> rows.Drawn:
    """The rows as the stage draws them, so that the same ones are held out."""
    if recipe.stage == "dpo":
        from engine.worker.stages import dpo

        return rows.draw(recipe, folder, dpo.sides)
    return rows.draw(recipe, folder)


def _identity(example: Example) -> int:
    """Equal for rows that say the same, wherever they stand."""
    return hash(msgspec.json.encode(msgspec.structs.replace(example, row=0)))


def _items(now: Session, asked: Asked, pool: Pool, texts: Texts | None) -> tuple[list[Item], int]:
    """So many rows as are asked for, drawn by the seed, in tokens; and how many were drawn but are left out: nothing in them
    has a loss, a rating calls them bad, or the prompt leaves no room for an answer."""
    if asked.only is None:
        order = random.Random(pool.seed).sample(pool.which, len(pool.which))
    else:
        chosen = set(asked.only)
        order = [at for at in pool.which if pool.examples[at].row in chosen]
    config = build.config(now.folder, now.recipe.model, now.recipe.settings)
    limit = build.context(SimpleNamespace(config=config))
    found: list[Item] = []
    left_out = 0
    for at in order:
        if len(found) == asked.rows:
            break
        item = _item(now, pool.examples[at]) if texts is None else _gapped(texts, pool.examples[at])
        room = item is None or item.prompt is None or limit is None or len(item.prompt) + asked.max_tokens <= limit
        if item is not None and room:
            found.append(item)
        else:
            left_out += 1
    return sorted(found, key=lambda item: item.example.row), left_out


def _item(now: Session, example: Example) -> Item | None:
    """A row in tokens, None where there is nothing in it to measure."""
    (measure,) = now.rows.measure([now.rows.render(example)])
    cut = rows.Rows([(np.array(measure.ids), measure.trained)], now.recipe.settings.max_length)[0]
    # The first label is never predicted; KTO's bad answers are no reference.
    if example.label is False or all(label == tokens.UNTRAINED for label in cut["labels"][1:]):
        return None
    question, reference = _exchange(example)
    if question is None:
        return Item(example, cut["input_ids"], cut["labels"], None, None, None)
    prompt = now.rows.prompt(question, example.tools)
    return Item(example, cut["input_ids"], cut["labels"], prompt, _words(question), reference)


def _gapped(texts: Texts, example: Example) -> Item | None:
    """A text with gaps, None for one that is too short."""
    row = texts.row(example)
    return None if row is None else Item(example, row["input_ids"], row["labels"], None, *texts.told(row))


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


def _question(now: Session, one: general.Question) -> Item:
    """A plain question with its known answer, of which only what is to be known has a loss."""
    said = Message("assistant", one.lead + one.answer)
    example = Example(0, [Message("user", one.ask), said], None)
    rendered = now.rows.render(example)
    begin = rendered.text.rindex(said.content) + len(one.lead)
    (measure,) = now.rows.measure([msgspec.structs.replace(rendered, trained=[(begin, begin + len(one.answer))])])
    labels = [tokens.UNTRAINED] * len(measure.ids)
    for start, stop in measure.trained:
        labels[start:stop] = measure.ids[start:stop]
    return Item(example, list(measure.ids), labels, now.ask(one.ask), None, None)


def _both(now: Session, items: list[Item], asked: Asked, texts: Texts | None) -> tuple[Side, Side]:
    """The base model first. Of an adapter's run it is the same model with the adapter switched off."""
    recipe, result = now.recipe, now.run.result
    assert result is not None  # measured.ready has looked
    now.journal.write(Progress(what="evaluate: model", done=0, total=0))
    if recipe.settings.adapts:
        now.model = build.for_chat(recipe, now.folder, result)
        with now.model.disable_adapter():
            base = _side(now, "base", items, asked, texts)
    else:
        now.model = build.base_model(now.folder, recipe.model, recipe.settings).eval()
        base = _side(now, "base", items, asked, texts)
        now.model = None  # before the other is loaded: there may not be room for both
        now.model = build.for_chat(recipe, now.folder, result)
    return base, _side(now, "tuned", items, asked, texts)


def _side(now: Session, which: str, items: list[Item], asked: Asked, texts: Texts | None) -> Side:
    if texts is not None:
        told = _told(now, f"evaluate: {which} gaps", items, 0, len(items))
        found = [texts.filled(now.model, {"input_ids": item.ids, "labels": item.labels}) for item in told]
        answers = [one.words if one.shown else None for one in found]
        return Side(
            [(one.loss, one.tokens) for one in found], answers, filled=[(one.right, one.shown) for one in found]
        )
    losses = [_loss(now.model, item) for item in _told(now, f"evaluate: {which} loss", items, 0, len(items))]
    answers = _answers(now, f"evaluate: {which} answers", items, asked.max_tokens)
    plain = [_question(now, one) for one in general.questions()]
    known = [_loss(now.model, item) for item in plain]
    said = _answers(now, f"evaluate: {which} general questions", plain, SHORT)
    return Side(losses, answers, known, [one or "" for one in said])


def _answers(now: Session, what: str, items: list[Item], most: int) -> list[str | None]:
    """The greedy answer to each prompt, of `most` new tokens at most; None where there is no prompt."""
    # Prompts of one length together, so that little is padded.
    order = sorted((at for at, item in enumerate(items) if item.prompt), key=lambda at: len(items[at].prompt or []))
    prompts = [items[at].prompt or [] for at in order]
    said: list[str] = []
    for batch in (BATCH, 1):
        left = prompts[len(said) :]
        try:
            answers = generate.answers(now.model, now.tokenizer, left, most, batch)
            said.extend(_told(now, what, answers, len(said), len(prompts)))
            break
        except Exception as error:
            if batch == 1 or failures.kind(error) != "memory":
                raise
    by_row = dict(zip(order, said, strict=True))
    return [by_row.get(at) for at in range(len(items))]


@torch.no_grad()
def _loss(model: Any, item: Item) -> tuple[float, int]:
    """(summed cross entropy in nats, tokens that it is over) of one row."""
    ids, labels = torch.tensor([item.ids], device=model.device), torch.tensor(item.labels[1:], device=model.device)
    with generate.mixed(model):
        logits = model(input_ids=ids, use_cache=False).logits[0, -ids.shape[1] : -1]  # behind virtual tokens
    kept = labels != tokens.UNTRAINED
    summed = torch.nn.functional.cross_entropy(logits[kept].float(), labels[kept], reduction="sum")
    return float(summed), int(kept.sum())


def _told(now: Session, what: str, things: Iterable[Thing], done: int, total: int) -> Iterator[Thing]:
    """`things`, with the journal told how far it has come, until a stop is asked for."""
    said = 0.0
    for at, thing in enumerate(things, done):
        if now.run.stop_path.exists():
            raise FtuiError(Exit.INTERRUPTED, "the evaluation was stopped", next_step="start it again any time")
        if time.monotonic() - said >= TELL_EVERY:
            said = time.monotonic()
            now.journal.write(Progress(what=what, done=at, total=total))
        yield thing
