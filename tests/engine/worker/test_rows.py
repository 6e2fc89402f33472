"""The rows that are trained on are those of the tokenizer, whether their tokens were kept or are made anew."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import counting, dataset, length_cache, lengths, split, tokenizer
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe, Source
from engine.worker import rows

WORDS = ["who", "你好", "fox", "<|im_end|>", "Paris.", "\n", "丛雨 123", "e"]


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    chance = random.Random(0)
    path = tmp_path / "talks.jsonl"
    lines = []
    for _ in range(150):
        turns = []
        for _ in range(chance.choice([1, 2, 3])):
            turns.append(
                {"role": "user", "content": "ask " + " ".join(chance.choices(WORDS, k=chance.randrange(1, 12)))}
            )
            turns.append(
                {"role": "assistant", "content": "say " + " ".join(chance.choices(WORDS, k=chance.randrange(9)))}
            )
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines))
    return path


def by_hand(made: Recipe, folder: Path) -> list[dict[str, list[int]] | None]:
    """Each row as the tokenizer gives it, cut; None where nothing is left to train."""
    tokens = tokenizer.load(folder)
    found: list[dict[str, list[int]] | None] = []
    for example in dataset.load(made.data).examples:
        row = tokens.tokenize(example)
        ids, labels = (part[: made.settings.max_length] for part in (row.input_ids, row.labels))
        found.append({"input_ids": ids, "labels": labels} if set(labels[1:]) - {-100} else None)
    return found


@pytest.mark.parametrize("way", ["quick", "long", "kept", "too many to keep"])
def test_rows_are_those_of_the_tokenizer(
    tiny_model: Path, talks: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    made = recipe(max_length=40, eval_fraction=0.1)
    made.data.source = str(talks)
    if way == "quick":
        monkeypatch.setattr(counting, "WORTH", 0)
    if way == "too many to keep":
        monkeypatch.setattr(length_cache, "TOKENS", 100)
    if way == "kept":
        lengths.count(dataset.load(made.data), tokenizer.load(tiny_model))
        monkeypatch.setattr(tokenizer.Tokenizer, "measure", None)  # whoever calls it now fails
    prepared = rows.prepare(made, tiny_model)
    monkeypatch.undo()
    expected = by_hand(made, tiny_model)
    whole = [row for row in expected if row is not None]
    assert prepared.masked == expected.count(None) > 0
    apart = split.held_out(len(whole), 0.1, made.settings.seed)
    assert list(prepared.held_out) == [whole[at] for at in apart] and len(apart) == round(len(whole) / 10)
    assert list(prepared.train) == [row for at, row in enumerate(whole) if at not in set(apart)]
    for part in (prepared.train, prepared.held_out):
        table = rows.as_dataset(part)
        assert table.column_names == ["input_ids", "labels"] and table[:] == {
            name: [row[name] for row in part] for name in ("input_ids", "labels")
        }


def test_weights_repeat_rows_and_none_is_trained_on_that_is_held_out(
    tiny_model: Path, talks: Path, tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"prompt": f"number {at}", "completion": f"is {at}"}) for at in range(40)))
    made = recipe(max_length=400, eval_fraction=0.1)
    made.data.source, made.data.weight, made.data.more = str(other), 2.5, [Source(source=str(talks), weight=0.5)]
    prepared = rows.prepare(made, tiny_model)
    train, held_out = ([tuple(row["input_ids"]) for row in part] for part in (prepared.train, prepared.held_out))
    assert len(held_out) == len(set(held_out)) == round((40 + 75) * 0.1)
    assert not set(held_out) & set(train)
    counts = [train.count(row) for row in set(train)]
    assert set(counts) == {1, 2, 3}
    held_of_other = sum(tuple(row["input_ids"]) in held_out for row in by_hand(made, tiny_model)[:40] if row)
    assert 2 * (40 - held_of_other) <= sum(count for count in counts if count > 1) <= 2 * (40 - held_of_other) + 20
    assert rows.prepare(made, tiny_model).train[5] == prepared.train[5], "drawn by the seed alone"


def test_nothing_left_to_train_is_refused(tiny_model: Path, talks: Path, recipe: Callable[..., Recipe]) -> None:
    made = recipe(max_length=8)
    made.data.source = str(talks)
    with pytest.raises(FtuiError) as caught:
        rows.prepare(made, tiny_model)
    assert caught.value.code == Exit.PLAN_REFUSED
