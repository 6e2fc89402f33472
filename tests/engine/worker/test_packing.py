"""Rows put together: the same losses and gradients as row by row, and a run that goes on to the same bits. Texts divided."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.advice.epoch import optimizer_steps
from engine.advice.kinds import Facts
from engine.data import dataset, packs, tokenizer
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Start
from tests.engine.worker.conftest import bits, events, steps

Make = Callable[..., Recipe]
Train = Callable[..., RunDir]
LENGTH = 160


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Rows of many lengths, some with two answers; one is longer than LENGTH."""
    rows = []
    for at in range(24):
        talk = [("user", f"Hello {at} " * (1 + at % 5)), ("assistant", "I am Congyu. " * (1 + at % 4))]
        turns = [*talk, *(talk if at % 8 == 0 else []), *(talk * 6 if at == 20 else [])]
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    path = tmp_path / "uneven.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of which some are several times as long as LENGTH."""
    chance = random.Random(0)
    words = ["who", "你好", "fox", "Paris.", "丛雨", "one", "two"]
    lines = [" ".join(chance.choices(words, k=chance.choice([5, 20, 90, 300]))) for _ in range(16)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    return path


@pytest.fixture
def packed(recipe: Make, uneven: Path, texts: Path) -> Make:
    def make(stage: str, packing: bool = True, **changes: Any) -> Recipe:
        small = {"learning_rate": 5e-3, "epochs": 20.0, "dropout": 0.0, "max_length": LENGTH, "save_every": 100}
        made = recipe(f"{stage}-{packing}", **{**small, "packing": packing, "unpadded": packing, **changes})
        made.stage = stage  # type: ignore[assignment]
        made.data.source = str(uneven if stage == "sft" else texts)
        made.probe = ""
        return made

    return make


def prepared(made: Recipe) -> Any:
    from engine.worker.stages import sft

    return sft.prepare(made, Path(made.model.source))


def test_rows_are_in_packs_once(packed: Make) -> None:
    apart, together = prepared(packed("sft", False)), prepared(packed("sft"))
    assert len(apart.train) == 24 and len(together.train) < 16 and together.rows == 24
    ids = [row for pack in together.train["input_ids"] for row in pack]
    labels = [row for pack in together.train["labels"] for row in pack]
    assert sorted(zip(ids, labels, strict=True)) == sorted(
        zip(apart.train["input_ids"], apart.train["labels"], strict=True)
    )
    assert all(sum(map(len, pack)) <= LENGTH for pack in together.train["input_ids"])
    assert max(len(pack) for pack in together.train["input_ids"]) > 2


@pytest.mark.parametrize("stage", ["sft", "pretraining"])
def test_losses_and_gradients_are_those_of_the_same_rows_padded(packed: Make, train: Train, stage: str) -> None:
    """All rows are in each of twenty steps, so that both ways learn from the same: in two micro-batches of packs, and in one
    padded micro-batch of rows."""
    count = len(prepared(packed(stage)).train)
    rows = len(prepared(packed(stage, False)).train)
    assert count < rows
    runs = [
        train(packed(stage, micro_batch=-(-count // 2), accumulation=2)),
        train(packed(stage, False, micro_batch=rows, accumulation=1)),
    ]
    mine, theirs = map(steps, runs)
    assert len(mine) == len(theirs) == 20 and mine[-1].loss < 0.7 * mine[0].loss
    assert [e.loss for e in mine] == pytest.approx([e.loss for e in theirs], rel=1e-5)
    assert [e.grad_norm for e in mine] == pytest.approx([e.grad_norm for e in theirs], rel=1e-3)
    assert [e.tokens for e in mine] == [e.tokens for e in theirs]
    assert [e.loss for e in mine] != [e.loss for e in theirs], "computed another way"
    assert [e.rows for run in runs for e in events(run) if isinstance(e, Start)] == [24 if stage == "sft" else 16] * 2


def test_the_gradient_is_as_large(packed: Make, train: Train) -> None:
    """Of one step over all rows, without clipping; its size is what Adam alone would hide."""
    count, rows = (len(prepared(packed("sft", packing)).train) for packing in (True, False))
    small = {"epochs": 1.0, "method": "full", "max_grad_norm": 1e9, "warmup": 0.0}
    found = []
    for packing, size in ((True, count), (False, rows)):
        run = train(packed("sft", packing, micro_batch=size, **small))
        (step,) = steps(run)
        found.append((step.loss, step.grad_norm))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("stage", ["sft", "pretraining"])
def test_it_goes_on_to_the_same_bits(packed: Make, train: Train, stage: str) -> None:
    """Stopped in the middle of the second epoch, with dropout and held-out rows."""
    small = {"epochs": 2.0, "dropout": 0.1, "micro_batch": 1, "accumulation": 1, "eval_fraction": 0.25}
    undisturbed = train(packed(stage, **small))
    each = len(steps(undisturbed)) // 2
    run = train(packed(stage, **small), stop=each + 1)
    assert each < len(steps(run)) < 2 * each
    assert bits(train(packed(stage, **small), run)) == bits(undisturbed)
    measured = [[e.loss for e in events(one) if isinstance(e, Evaluated)] for one in (undisturbed, run)]
    assert measured[0][-1] == measured[1][-1]


def test_held_out_rows_are_measured_as_without_packs(packed: Make, train: Train) -> None:
    small = {"epochs": 1.0, "eval_fraction": 0.25, "micro_batch": 2, "learning_rate": 1e-6}
    found = [
        next(e.loss for e in events(train(packed("sft", packing, **small))) if isinstance(e, Evaluated))
        for packing in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.25])
@pytest.mark.parametrize("packing", [True, False])
def test_the_plan_counts_the_steps_that_are_made(packed: Make, packing: bool, fraction: float) -> None:
    from engine import hardware
    from engine.data import lengths
    from engine.models import facts as model_facts

    for stage in ("sft", "pretraining"):
        made = packed(stage, packing, epochs=3.0, micro_batch=2, accumulation=2, eval_fraction=fraction)
        folder = Path(made.model.source)
        rows = dataset.load(made.data)
        counted = lengths.count(rows, tokenizer.load(folder))
        known = Facts(
            model=model_facts.read(folder),
            hardware=hardware.read(),
            rows=len(rows.examples),
            p50=counted.percentile(50),
            p95=counted.percentile(95),
            p99=counted.percentile(99),
            max=counted.max,
            lengths=counted.total,
            stage=stage,  # type: ignore[arg-type]
        )
        found = prepared(made)
        batches = -(-len(found.train) // 2)
        assert optimizer_steps(known, made.settings) == 3 * -(-batches // 2)


def test_long_texts_are_divided_and_lose_nothing(packed: Make) -> None:
    from engine.worker import rows

    made = packed("pretraining", False)
    found = rows.prepare(made, Path(made.model.source))
    own = tokenizer.load(Path(made.model.source))
    whole = [own.tokenize(one).input_ids for one in dataset.load(made.data).examples]
    assert found.rows == len(whole) < len(found.train) and found.masked == 0
    at = 0
    for text in whole:
        for begin, end in packs.parts(len(text), LENGTH):
            row = found.train[at]
            assert row["input_ids"] == row["labels"] == text[begin:end], "every token is there, and is learned"
            at += 1
    assert at == len(found.train) and max(map(len, whole)) > 3 * LENGTH


def test_a_held_out_text_is_held_out_whole(packed: Make) -> None:
    from engine.worker import rows

    made = packed("pretraining", False, eval_fraction=0.25)
    found = rows.prepare(made, Path(made.model.source))
    own = tokenizer.load(Path(made.model.source))
    whole = [own.tokenize(one).input_ids for one in dataset.load(made.data).examples]
    held = [one["input_ids"] for one in found.held_out]
    texts = [text for text in whole if any(text[: len(part)] == part for part in held)]
    assert [*chain(*held)] == [*chain(*texts)] and len(texts) == 4


def test_chat_rows_are_cut_as_before(packed: Make) -> None:
    from engine.worker import rows

    made = packed("sft", False)
    found = rows.prepare(made, Path(made.model.source))
    assert len(found.train) == 24 and max(len(row["input_ids"]) for row in found.train) == LENGTH


def test_a_model_that_cannot_fails_clearly(packed: Make, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained in another way than the plan said."""
    from engine.worker import unpadded

    monkeypatch.setattr(unpadded, "_agrees", lambda *_: False)
    with pytest.raises(FtuiError, match="packing needs a model that reads rows laid end to end") as caught:
        train(packed("sft"))
    assert caught.value.code == Exit.MODEL_UNSUPPORTED and "packing=false" in caught.value.next_step


def test_as_packs_of_single_rows(packed: Make) -> None:
    from engine.worker import rows

    some = rows.Rows([(np.arange(at + 2), [(1, at + 2)]) for at in range(5)], 8)
    alone = rows.as_packs(some, None)
    assert [pack[0] for pack in alone["input_ids"]] == [row["input_ids"] for row in some]
    assert all(len(pack) == 1 for pack in alone["labels"])
