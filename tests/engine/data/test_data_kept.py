"""What was counted is kept as long as it is true, and no longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import paths
from engine.data import counting, length_cache, lengths, tokenizer
from engine.data.dataset import Dataset
from engine.data.lengths import Lengths
from engine.errors import Exit, FtuiError
from tests.engine.data.counted_rows import PICKY, conversations, same, with_template


@pytest.fixture
def counted_anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each data set that is counted and not taken from what is kept."""
    seen: list[int] = []
    real = counting.Counter.__init__

    def init(self: Any, *given: Any) -> None:
        seen.append(1)
        real(self, *given)

    monkeypatch.setattr(counting.Counter, "__init__", init)
    return seen


def test_what_was_counted_is_not_counted_again(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int]
) -> None:
    data, made = read(conversations(80)), tokenizer.load(tiny_model)
    first = lengths.count(data, made)
    seen: list[tuple[int, int]] = []
    again = lengths.count(data, tokenizer.load(tiny_model), lambda done, total: seen.append((done, total)))
    assert len(counted_anew) == 1 and seen == [(80, 80)] and again.counter == first.counter
    same(first, again)
    for file in (paths.cache_dir() / "lengths").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (paths.cache_dir() / "lengths").stat().st_mode & 0o777 == 0o700


def test_other_rows_another_template_another_day_are_counted(
    tiny_model: Path,
    tmp_path: Path,
    read: Callable[..., Dataset],
    counted_anew: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, made = read(conversations(20)), tokenizer.load(tiny_model)
    lengths.count(data, made)
    lengths.count(read(conversations(20, seed=1)), made)
    assert len(counted_anew) == 2
    other = tokenizer.load(with_template(tiny_model, tmp_path / "a", PICKY))
    assert lengths.count(data, other).total != lengths.count(data, made).total and len(counted_anew) == 3
    dated = tokenizer.load(with_template(tiny_model, tmp_path / "b", "{{ strftime_now('%d') }}" + PICKY))
    lengths.count(data, dated)
    lengths.count(data, dated)
    assert len(counted_anew) == 4

    class Tomorrow(length_cache.date):
        @classmethod
        def today(cls) -> Any:
            return cls(2100, 1, 1)

    monkeypatch.setattr(length_cache, "date", Tomorrow)
    lengths.count(data, dated)
    lengths.count(data, made)
    assert len(counted_anew) == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "no tokens", "short tokens"])
def test_what_is_kept_and_damaged_is_counted_again(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], damage: str
) -> None:
    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    first = lengths.count(data, made)
    (table,) = (paths.cache_dir() / "lengths").glob("*.npz")
    (tokens,) = table.parent.glob("*.tokens")
    if damage == "empty":
        table.write_bytes(b"")
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:700])
    elif damage == "other":
        np.savez(table, total=np.arange(30))
    elif damage == "no tokens":
        tokens.unlink()
    else:
        tokens.write_bytes(tokens.read_bytes()[:-2])
    same(first_again := lengths.count(data, made), lengths.count(data, made))
    assert len(counted_anew) == 2 and first_again.total == first.total


def test_a_full_disk_costs_what_would_be_kept_and_nothing_else(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    monkeypatch.setattr(np, "savez", full)
    counted = lengths.count(data, made)
    assert list(counted.total) == [len(made.tokenize(example).input_ids) for example in data.examples]
    assert counted.kept is None


def test_a_cache_folder_that_cannot_be_written_to_is_no_harm(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    monkeypatch.setattr(length_cache, "_folder", refuse)
    counted = lengths.count(data, made)
    assert list(counted.total) == [len(made.tokenize(example).input_ids) for example in data.examples]


def test_two_that_count_the_same_rows_do_not_mix_their_tokens(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One counts the quick way and one the long way, so that their tokens stand in another order on disk."""
    data, made = read(conversations(60, texts=["Hello", " blank ", "<|im_end|>"])), tokenizer.load(tiny_model)
    name = length_cache.key(data, made)
    writers = [length_cache.Writer(name, 60, made.vocabulary) for _ in range(2)]
    tables = []
    for writer, worth in zip(writers, (0, 1 << 60), strict=True):
        monkeypatch.setattr(counting, "WORTH", worth)
        tables.append(
            lengths._counted(counting.Counter(made, data.examples), iter([list(data.examples)]), 60, None, writer.keep)
        )
    first = writers[0].finish(tables[0], "one")
    second = writers[1].finish(tables[1], "other")
    assert first.tokens is not None and second.tokens is not None and second.counter == "other"
    assert first.tokens.ids.tolist() != second.tokens.ids.tolist()
    same(*(Lengths(data.examples.rows, one.table, made, "", one.tokens) for one in (first, second)))
    assert len(list((paths.cache_dir() / "lengths").iterdir())) == 2


def test_many_tokens_are_not_kept_but_counted(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(length_cache, "TOKENS", 1000)
    data, made = read(conversations(60)), tokenizer.load(tiny_model)
    for _ in range(2):
        counted = lengths.count(data, made)
        assert counted.kept is None and sum(counted.total) > 1000
    assert len(counted_anew) == 1
    assert [file.suffix for file in (paths.cache_dir() / "lengths").iterdir()] == [".npz"]


def test_what_was_not_used_for_longest_goes_first(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenizer.load(tiny_model)
    folder = paths.cache_dir() / "lengths"
    sets = [read(conversations(40, seed=seed)) for seed in range(3)]
    for age, data in enumerate(sets[:2]):
        lengths.count(data, made)
        for file in folder.iterdir():
            if file.stat().st_mtime > 1000:
                os.utime(file, (500 + age, 500 + age))
    (folder / ".half").write_bytes(b"x")
    os.utime(folder / ".half", (1, 1))
    size = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr(length_cache, "TOTAL", size)
    lengths.count(sets[0], made)  # used again, so it is younger now
    lengths.count(sets[2], made)
    assert not (folder / ".half").exists()
    before = len(counted_anew)
    lengths.count(sets[0], made)
    lengths.count(sets[2], made)
    assert len(counted_anew) == before
    lengths.count(sets[1], made)
    assert len(counted_anew) == before + 1


def test_an_interrupted_count_leaves_nothing(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lengths.count(read(conversations(300)), tokenizer.load(tiny_model), stop)
    assert list((paths.cache_dir() / "lengths").iterdir()) == []


def test_a_row_that_the_template_refuses_is_named(
    tiny_model: Path, tmp_path: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "WORTH", 0)
    made = tokenizer.load(with_template(tiny_model, tmp_path / "m", PICKY))
    rows = conversations(300, texts=["Hello"])
    rows[250]["messages"] = [{"role": "assistant", "content": "Hi"}, *rows[0]["messages"][-2:]]
    with pytest.raises(FtuiError) as caught:
        lengths.count(read(rows), made)
    assert caught.value.code == Exit.MODEL_UNSUPPORTED and "row 251" in caught.value.where
