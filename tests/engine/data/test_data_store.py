"""Examples come back as they were put in, from memory and from disk, whoever asks."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import paths
from engine.data import store
from engine.data.convert import Example, Message
from engine.data.store import Examples
from engine.errors import Exit, FtuiError


def some(count: int) -> list[Example]:
    """Rows of every kind, with gaps in their numbers, between 10 bytes and 4 kB."""
    made = []
    for at in range(count):
        answer = "丛雨" * (at * 37 % 700)
        turns = [Message("user", f"question {at}"), Message("assistant", answer)]
        if at % 4 == 0:
            made.append(Example(at * 2 + 1, None, answer))
        elif at % 4 == 1:
            made.append(Example(at * 2 + 1, turns, None, label=at % 8 == 1))
        elif at % 4 == 2:
            made.append(Example(at * 2 + 1, turns[:1], None, chosen=turns[1:], rejected=[Message("assistant", "no")]))
        else:
            call = Message("assistant", "", [{"name": "look", "arguments": {"at": at, "deep": [1, None]}}])
            made.append(Example(at * 2 + 1, [turns[0], call, *turns], None, tools=[{"name": "look"}]))
    return made


@pytest.mark.parametrize("in_memory", [32 << 20, 100_000, 0], ids=["memory", "both", "disk"])
def test_examples_come_back_as_they_were(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(store, "_BLOCK", 20_000)
    given = some(300)
    kept = Examples()
    for at, example in enumerate(given):
        kept.append(example)
        assert kept[at] == example and kept[0] == given[0] and kept[at // 2] == given[at // 2]
    assert len(kept) == 300 and list(kept) == given and list(kept.rows) == [example.row for example in given]
    assert kept[-1] == given[-1] and kept[-300] == given[0]
    for part in (slice(0, 7), slice(290, 500), slice(5, 5), slice(9, 3), slice(None, None, 11), slice(-4, None)):
        assert kept[part] == given[part]
    with pytest.raises(IndexError):
        kept[300]
    blocks = list(kept.blocks())
    assert [example for block in blocks for example in block] == given and len(blocks) > 10
    assert list(Examples()) == [] and Examples(given[:3])[1] == given[1]


def test_several_threads_read_while_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_IN_MEMORY", 1000)
    monkeypatch.setattr(store, "_BLOCK", 3000)
    given = some(200)
    kept = Examples(given[:1])

    def look(which: int) -> bool:
        return all(kept[at] == given[at] for _ in range(40) for at in [(len(kept) - 1) * which // 4])

    with ThreadPoolExecutor(5) as threads:
        looks = [threads.submit(look, which) for which in range(1, 5)]
        for example in given[1:]:
            kept.append(example)
        assert all(one.result() for one in looks)
    assert list(kept) == given


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_IN_MEMORY", 0)
    gc.collect()  # so that nothing of an earlier test is closed in between
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    kept = Examples(some(50))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before + 1, "the rows are in a file"
    assert list(paths.cache_dir().glob(".rows*")) == [], "which has no name"
    del kept
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(store, "_IN_MEMORY", 0)
    real = os.pwrite
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "pwrite", lambda file, raw, at: real(full, raw, at))
    with pytest.raises(FtuiError) as caught:
        Examples(some(2))
    os.close(full)
    assert caught.value.code == Exit.DISK_FULL and "No space left" in caught.value.cause
