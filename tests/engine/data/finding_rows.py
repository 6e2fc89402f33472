"""Rows for the tests of findings and fixes, and the findings in them by kind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from engine.data import dataset, findings, lengths, tokenizer
from engine.data.dataset import Dataset
from engine.data.findings import Finding
from engine.recipe import Data

ROLES = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
_WORDS = """
river stone window garden letter music winter bridge market silver engine forest paper island candle mirror thunder
pocket harbour ladder button carpet dragon feather hammer jacket kettle lantern meadow needle orange pepper quarter
ribbon saddle temple uncle valley wagon yellow zebra anchor basket cotton donkey eagle falcon
"""
WORDS = _WORDS.split()


def pair(question: str, answer: str) -> dict[str, str]:
    return {"prompt": question, "completion": answer}


def talk(*turns: str, **more: Any) -> dict[str, Any]:
    """Turns as "u: text", "a: text", "s: text", "t: text"."""
    return {"messages": [{"role": ROLES[turn[0]], "content": turn[3:]} for turn in turns], **more}


def prefer(question: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": question, "chosen": chosen, "rejected": rejected}


def rate(question: str, answer: str, label: bool) -> dict[str, Any]:
    return {"prompt": question, "completion": answer, "label": label}


def prose(seed: int, words: int = 60) -> str:
    """Some sentences without meaning, the same for the same seed, unlike those of any other."""
    drawn = random.Random(seed)
    sentences = []
    while words > 0:
        count = min(words, drawn.randint(6, 12))
        sentences.append(" ".join(drawn.choice(WORDS) for _ in range(count)).capitalize() + ".")
        words -= count
    return " ".join(sentences)


def load(folder: Path, rows: list[Any], name: str = "rows.json", **options: Any) -> Dataset:
    """The rows read as if a person only looked at them."""
    path = folder / name
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return dataset.load(Data(source=str(path), **options), strict=False)


def kinds(found: list[Finding]) -> dict[str, Finding]:
    assert len({finding.kind for finding in found}) == len(found), [finding.kind for finding in found]
    return {finding.kind: finding for finding in found}


def look(
    folder: Path, rows: list[Any], model: Path | None = None, cutoff: int | None = None, **options: Any
) -> dict[str, Finding]:
    """The findings in the rows, by kind."""
    data = load(folder, rows, **options)
    counted = lengths.count(data, tokenizer.load(model)) if model else None
    return kinds(findings.find(data, counted, cutoff))
