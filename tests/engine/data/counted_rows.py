"""Rows to count, and what compares two counts of them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine import paths
from engine.data import counting, lengths
from engine.data.dataset import Dataset
from engine.data.lengths import Lengths
from engine.data.tokenizer import Tokenizer

TEXTS = [
    *(
        "Hello",
        "What is it?\n",
        "\nlate",
        " both ",
        "e",
        "<",
        "user",
        "{0} {x}",
        "你好，丛雨。",
        "line\n\nline",
        "\u3000wide",
        "é😀",
    ),
    *(
        "<think>\nhm\n</think>\n\nyes",
        "</think>no",
        "<tool_response>a</tool_response>",
        "<|im_end|>",
        "a<|im_start|>b",
        "</s>",
    ),
    *("[INST] x", "word " * 40, "\u200bzero", "Paris is the capital of France.", "0123456789", 'it\'s "so"', "\n"),
]
# Takes white space off, looks into texts, and refuses to begin with an answer, as real ones do.
PICKY = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' and loop.first %}{{ raise_exception('no') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{% if m.role == 'user' %}{{ m.content | trim }}"
    "{% elif '</think>' in m.content %}{{ m.content.split('</think>')[1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def conversations(count: int, seed: int = 0, texts: list[str] = TEXTS) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        turns = [{"role": "system", "content": chance.choice(texts)}] if chance.random() < 0.2 else []
        for _ in range(chance.choice([1, 1, 2, 3])):
            turns.append({"role": "user", "content": chance.choice(texts)})
            turns.append(
                {"role": "assistant", "content": "ok " + chance.choice(texts) + chance.choice(["", "", "\n", "."])}
            )
        rows.append({"messages": turns})
    return rows


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(model / name, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def both(data: Dataset, made: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> tuple[Lengths, Lengths]:
    """Counted the quick way if it can be taken, and the long way."""
    counted = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr(counting, "WORTH", worth)
        shutil.rmtree(paths.cache_dir() / "lengths", ignore_errors=True)
        counted.append(lengths.count(data, made))
    quick, long = counted
    assert long.counter == "tokenizers"
    return quick, long


def same(one: Lengths, other: Lengths) -> None:
    for name in ("rows", "total", "completion", "prompt", "ends", "endless", "literal", "rewritten", "diverging"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.kept is None) == (other.kept is None)
    for at in range(len(one.rows) if one.kept is not None else 0):
        (ids, spans), (others, trained) = one.row(at), other.row(at)
        assert ids.tolist() == others.tolist() and spans == trained
