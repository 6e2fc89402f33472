"""What is asked before, after and while a model trains: a preset's questions, or the first prompt of the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine import presets
from engine.recipe import Check, Checks

if TYPE_CHECKING:
    from engine.data.dataset import Dataset
    from engine.presets import Preset

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {{name}} that has a value replaced by it."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def of(preset: Preset | None, dataset: Dataset, values: Mapping[str, str]) -> tuple[Checks, str]:
    """What is asked before, after (checks) and while (probe) the model trains."""
    asked_by = preset
    if preset is None and dataset.identity and {"name", "author"} <= {k for k, v in values.items() if v}:
        asked_by = presets.load("identity")
    checks, probe = Checks(), ""
    if asked_by is not None:
        checks = Checks(
            identity=_filled(asked_by.checks.identity, values), general=_filled(asked_by.checks.general, values)
        )
        probe = fill(asked_by.probe, values)
    return checks, probe or _first_prompt(dataset)


def _filled(checks: list[Check], values: Mapping[str, str]) -> list[Check]:
    """The checks with their placeholders filled; one that still holds a placeholder cannot be judged and is left out."""
    done = [Check(ask=fill(c.ask, values), expect=[fill(word, values) for word in c.expect]) for c in checks]
    return [c for c in done if not any(PLACEHOLDER.search(part) for part in (c.ask, *c.expect))]


def _first_prompt(dataset: Dataset) -> str:
    """The first thing that a person says in the rows: with no preset to ask better, what the model should learn to answer."""
    for example in dataset.examples:
        for message in example.messages or []:
            if message.role == "user":
                return message.content
    return ""
