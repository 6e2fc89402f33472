"""The probe for real, on the tiny model: what it measures, what it keeps, what it says when it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from engine import hardware, probe, speeds
from engine.errors import Exit, FtuiError
from engine.models import facts
from engine.speeds import Speed
from tests.engine.cli.conftest import Said, ftui  # noqa: F401
from tests.engine.settings import settings


def test_a_probe_is_kept_and_found_again(tiny_model: Path) -> None:
    chosen = settings(max_length=64, method="freeze", trained_layers=1)
    steps: list[tuple[int, int]] = []
    speed = probe.run(tiny_model, chosen, lambda what, done, total: steps.append((done, total)))
    assert speed.seconds(4 * 64, 1, 1) > 0
    assert speed.source.startswith("a probe on this machine, ")
    assert steps[-1][0] == steps[-1][1] > 0
    assert speeds.lookup(hardware.read(), facts.read(tiny_model), chosen) == speed
    (kept,) = speeds.known(hardware.read(), facts.read(tiny_model))
    assert kept.by == "probe"


def test_what_nobody_disturbed_counts_before_what_somebody_did(tiny_model: Path) -> None:
    """However new that is, and whether a run or a probe; while nothing else is known, it counts, and says so."""
    machine, model, chosen = hardware.read(), facts.read(tiny_model), settings(max_length=64)

    def keep(source: str, busy: bool, by: Literal["probe", "run"]) -> str:
        speeds.record(
            machine, model, chosen, Speed(seconds_per_batch=1, seconds_per_token=1, busy=busy, source=source), by
        )
        found = speeds.lookup(machine, model, chosen)
        assert found is not None
        return found.told

    assert keep("first", True, "probe") == "first, while others used it"
    assert keep("second", False, "probe") == "second"
    assert keep("third", True, "run") == "second"
    assert keep("fourth", False, "run") == "fourth"
    assert keep("fifth", True, "run") == "fourth"


def test_a_broken_model_is_named_with_its_reason(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "broken")
    config = tmp_path / "broken" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 96}))
    with pytest.raises(FtuiError) as caught:
        probe.run(tmp_path / "broken", settings(max_length=64))
    assert caught.value.code == Exit.RUN_FAILED
    assert caught.value.cause.startswith("the probe failed: ")
    assert "mismatch" in caught.value.cause or "size" in caught.value.cause
    assert not speeds.known(hardware.read(), facts.read(tiny_model))
    with pytest.raises(FtuiError) as caught:
        probe.run(tmp_path, settings())
    assert caught.value.code == Exit.MODEL_MISSING


def test_the_verb_says_how_many_tokens_a_second(ftui: Callable[..., Said], tiny_model: Path) -> None:  # noqa: F811
    got = ftui("probe", "--model", tiny_model, "--length", "32", "--batch", "2", "--json").json
    assert got["tokens_per_second"] > 0
    assert (got["micro_batch"], got["max_length"], got["method"]) == (2, 32, "lora")
    planned = ftui(
        "plan", "--preset", "identity", "--model", tiny_model, "--set", "name=A", "--set", "author=B", "--json"
    )
    assert "a probe on this machine" in planned.json["plan"]["seconds_source"]
