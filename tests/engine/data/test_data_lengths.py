"""Counts agree with the tokens themselves, and a cutoff's price with cutting them."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset, lengths, tokenizer
from engine.data.dataset import Dataset
from engine.data.lengths import Lengths
from engine.data.measure import Table
from engine.recipe import Data

WORDS = ["one", "two", "three", "four", "five", "你好", "丛雨", "fox", "dog"]


@pytest.fixture
def talks(tmp_path: Path) -> Dataset:
    """Sixty conversations of one to three questions and answers, of very different lengths."""
    chance = random.Random(0)

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=chance.choice([1, 3, 10, 40])))

    rows = []
    for _ in range(60):
        turns = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            turns += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
        rows.append({"messages": turns})
    path = tmp_path / "talks.json"
    path.write_text(json.dumps(rows))
    return dataset.load(Data(source=str(path)))


def test_counts_are_those_of_the_tokens(tiny_model: Path, talks: Dataset) -> None:
    made = tokenizer.load(tiny_model)
    seen: list[tuple[int, int]] = []
    counted = lengths.count(talks, made, lambda done, total: seen.append((done, total)))
    tokens = [made.tokenize(example) for example in talks.examples]
    assert list(counted.total) == [len(one.input_ids) for one in tokens]
    assert list(counted.completion) == [sum(label != -100 for label in one.labels) for one in tokens]
    assert list(counted.prompt) == [total - part for total, part in zip(counted.total, counted.completion, strict=True)]
    assert counted.max == max(counted.total) and counted.exact and counted.tokenizer == made.name
    assert seen[-1] == (60, 60)


def test_a_cutoff_costs_what_cutting_the_tokens_costs(tiny_model: Path, talks: Dataset) -> None:
    made = tokenizer.load(tiny_model)
    counted = lengths.count(talks, made)
    tokens = [made.tokenize(example) for example in talks.examples]
    trained = sum(counted.completion)
    for cutoff in [1, 2, 8, 50, *sorted(set(counted.total))[::5], counted.max - 1, counted.max]:
        cut = counted.at(cutoff)
        assert cut.rows_cut == sum(len(one.input_ids) > cutoff for one in tokens)
        kept = [sum(label != -100 for label in one.labels[:cutoff]) for one in tokens]
        assert cut.trained_lost_fraction == pytest.approx(1 - sum(kept) / trained)
        assert cut.untrained == kept.count(0)
        # The last label that is the end token is the second from the end: a line end follows it.
        assert cut.lose_end == sum(len(one.labels) - 1 > cutoff for one in tokens)


def test_a_row_that_only_loses_its_last_line_end_keeps_its_end_token(tiny_model: Path, talks: Dataset) -> None:
    counted = lengths.count(talks, tokenizer.load(tiny_model))
    cut = counted.at(counted.max - 1)
    assert cut.rows_cut > 0 and cut.lose_end == 0


def test_what_all_rows_begin_with(tiny_model: Path, talks: Dataset, tmp_path: Path) -> None:
    """Up to the question, or to the token before the answer; nothing where a row learns from its first token on."""
    made = tokenizer.load(tiny_model)
    counted = lengths.count(talks, made)
    rows = [made.tokenize(example).input_ids for example in talks.examples]
    alike = min(next(at for at, (a, b) in enumerate(zip(rows[0], row, strict=False)) if a != b) for row in rows[1:])
    assert counted.shared == alike > 0
    for given, expected in (
        ([{"instruction": "one fox", "output": word} for word in WORDS], "all but the last of the question"),
        ([{"text": "one fox " + word} for word in WORDS], "nothing"),
    ):
        path = tmp_path / "same.json"
        path.write_text(json.dumps(given))
        same = lengths.count(dataset.load(Data(source=str(path))), made)
        assert same.shared == (min(same.starts) - 1 if expected != "nothing" else 0), expected


def test_padding_is_what_random_batches_have_on_average(tiny_model: Path, talks: Dataset) -> None:
    counted = lengths.count(talks, tokenizer.load(tiny_model))
    chance = random.Random(1)
    for cutoff, batch in ((10_000, 4), (60, 4), (60, 7), (10_000, 60)):
        values = [min(total, cutoff) for total in counted.total]
        computed = 0
        for _ in range(2000):
            chance.shuffle(values)
            parts = [values[at : at + batch] for at in range(0, len(values), batch)]
            computed += sum(max(part) * len(part) for part in parts)
        expected = 1 - sum(values) / (computed / 2000)
        assert counted.at(cutoff).padding_fraction(batch) == pytest.approx(expected, abs=0.01)
    assert counted.at(100).padding_fraction(1) == 0
    assert counted.at(100).padding_fraction(500) > 0, "fewer rows than a batch holds"


def test_percentiles_and_histogram(tiny_model: Path, talks: Dataset) -> None:
    counted = lengths.count(talks, tokenizer.load(tiny_model))
    ordered = sorted(counted.total)
    assert counted.percentile(50) == ordered[29] and counted.percentile(100) == counted.max == ordered[-1]
    assert counted.percentile(0) == ordered[0] and counted.percentile(99) == ordered[59]
    for bins, upto in ((1, None), (12, None), (12, 1000), (5, 40), (10_000, None)):
        found = counted.histogram(bins, upto)
        assert sum(count for _, _, count in found) == 60 and len(found) <= bins
        assert all(low < high for low, high, _ in found) and found[0][0] == 0
        for low, high, count in found[:-1]:
            assert count == sum(low <= total < high for total in counted.total)


def test_a_cutoff_over_a_hundred_thousand_rows_is_a_few_searches(tiny_model: Path) -> None:
    import numpy as np

    chance = np.random.default_rng(2)
    prompt, answer = chance.integers(5, 300, (2, 100_000))
    table = Table(100_000)
    total = prompt + answer
    table.put(np.arange(100_000), total, prompt[:, None], total[:, None], total - 1, 0)
    table.close()
    counted = Lengths(range(1, 100_001), table, tokenizer.load(tiny_model))
    cut = counted.at(300)
    assert cut.rows_cut == (total > 300).sum() and cut.lose_end == (total > 301).sum()
    assert cut.untrained == (prompt >= 300).sum() and counted.trained == answer.sum()
    assert cut.trained_lost_fraction == pytest.approx((np.maximum(total - 300, 0)).sum() / answer.sum(), abs=1e-3)
    # What a key held down asks for goes over lengths that occur, of which there are hundreds, not over rows.
    assert len(counted.distribution("whole").values) < 600


def test_a_first_picture_counts_rows_from_all_over(tiny_model: Path, talks: Dataset) -> None:
    made = tokenizer.load(tiny_model)
    counted = lengths.count(talks, made, limit=6)
    assert list(counted.rows) == [1, 11, 21, 31, 41, 51]
    assert list(counted.total) == [lengths.count(talks, made).total[row - 1] for row in counted.rows]
    assert counted.of_rows == 60


@pytest.mark.parametrize("tables", [True, False])
def test_estimates_need_no_network_and_say_what_they_are(
    talks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    if not tables:
        from engine.data import estimate

        monkeypatch.setattr(estimate, "_table", lambda: None)
    made = tokenizer.estimate()
    counted = lengths.count(talks, made)
    assert not counted.exact and ("tiktoken" in made.name or "estimate" in made.name)
    assert all(0 < part < total for part, total in zip(counted.completion, counted.total, strict=True))
    assert counted.at(5).rows_cut == 60
