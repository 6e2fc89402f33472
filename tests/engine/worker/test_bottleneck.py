"""Bottleneck adapters: a method of our own that peft treats as one of its own. Saving, loading and switching off stand in
test_adapters.py with those of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.errors import FtuiError
from engine.recipe import Model, Recipe
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Start
from engine.worker import adapters, build, export
from engine.worker.bottleneck import Bottleneck
from engine.worker.session import Session
from tests.engine.settings import settings
from tests.engine.worker.conftest import bits, events, pairs, rewarded, steps

Make = Callable[..., Recipe]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def test_it_stands_behind_each_feed_forward_part_and_starts_at_the_base(tiny_model: Path) -> None:
    chosen = settings(method="bottleneck", rank=4)
    base = build.base_model(tiny_model, Model(source=str(tiny_model)), chosen).eval()
    with torch.no_grad():
        plain = base(input_ids=IDS).logits
    made = adapters.new(base, chosen).eval()
    parts = {name: part for name, part in made.named_modules() if isinstance(part, Bottleneck)}
    assert [name.split("layers.")[1] for name in parts] == ["0.mlp", "1.mlp"]
    learns = {name for name, weight in made.named_parameters() if weight.requires_grad}
    assert len(learns) == 2 * 4 and all(".bottleneck_" in name for name in learns)
    with torch.no_grad():
        assert torch.equal(made(input_ids=IDS).logits, plain)
        first = next(iter(parts.values()))
        given = torch.randn(1, 3, first.bottleneck_down["default"].in_features)
        before = first.base_layer(given)
        first.bottleneck_up["default"].weight.normal_()
        down, up = first.bottleneck_down["default"], first.bottleneck_up["default"]
        torch.testing.assert_close(first(given), before + torch.relu(before @ down.weight.T + down.bias) @ up.weight.T)
        with made.disable_adapter():
            assert torch.equal(made(input_ids=IDS).logits, plain)


def test_it_learns_and_goes_on_to_the_same_bits(recipe: Make, train: Callable[..., RunDir]) -> None:
    made = recipe("narrow", method="bottleneck", epochs=12.0, precision="bf16", gradient_checkpointing=True)
    made.probe = ""
    undisturbed = train(made)
    losses = [e.loss for e in steps(undisturbed)]
    assert losses[-1] < 0.3 * losses[0]
    (begun,) = [e for e in events(undisturbed) if isinstance(e, Start)]
    assert begun.trained_parameters == 2 * (2 * 64 * 8 + 8 + 64) < begun.parameters
    kept = json.loads((undisturbed.adapter / "adapter_config.json").read_text())
    assert (kept["peft_type"], kept["width"], kept["features"], kept["target_modules"]) == (
        "BOTTLENECK",
        8,
        64,
        ["mlp"],
    )
    assert bits(train(made, train(made, stop=8))) == bits(undisturbed)


def test_an_export_brings_what_peft_lacks_and_cannot_be_merged(
    recipe: Make, train: Callable[..., RunDir], tiny_model: Path, tmp_path: Path
) -> None:
    made = recipe("export", method="bottleneck", epochs=4.0)
    made.probe = ""
    run = train(made)
    now, folder = Session(run), tmp_path / "adapter"
    for kind in ("merged", "gguf"):
        with pytest.raises(FtuiError, match="networks of their own behind the layers, which cannot be merged"):
            export.run(now, {"kind": kind, "to": str(tmp_path / kind)})
    export.run(now, {"kind": "adapter", "to": str(folder)})
    words = (folder / "README.md").read_text()
    assert "import ftui_bottleneck" in words and "| rank | 8 |" in words and "| alpha |" not in words
    # With nothing of ftui in sight.
    alone = f"""
import sys, torch, ftui_bottleneck
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained({str(folder)!r}).eval()
assert not [name for name in sys.modules if name.partition(".")[0] in ("engine", "tui")]
torch.save(model(input_ids=torch.tensor({IDS.tolist()})).logits, "logits.pt")
"""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-P", "-c", alone], cwd=tmp_path, env=environment, check=True)
    tuned = build.for_chat(made, tiny_model, run.adapter)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), tuned(input_ids=IDS).logits)


def test_dpo_compares_with_the_base_under_it(staged: Make, train: Callable[..., RunDir]) -> None:
    small = {"method": "bottleneck", "learning_rate": 1e-2, "eval_fraction": 0.25, "beta": 0.1, "loss": "sigmoid"}
    first = train(staged("dpo", pairs(), **small))
    measured = [e for e in events(first) if isinstance(e, Evaluated)]
    assert measured[0].accuracy == 0.5 and measured[-1].accuracy == 1.0
    # Of what was trained before, the adapter is part of the reference: it is level again.
    again = staged("dpo", pairs(), **{**small, "epochs": 1.0})
    again.adapter = str(first.adapter)
    measured = [e for e in events(train(again)) if isinstance(e, Evaluated)]
    assert measured[0].accuracy == 0.5 and measured[0].margin == pytest.approx(0, abs=1e-4)
    assert measured[-1].margin > 0.1  # type: ignore[operator]


def test_a_reward_model_and_rewards_learn_through_it(
    staged: Make,
    lively_model: Path,
    train: Callable[..., RunDir],
) -> None:
    judge = train(staged("reward", pairs(), method="bottleneck", learning_rate=1e-2, eval_fraction=0.25))
    measured = [e for e in events(judge) if isinstance(e, Evaluated)]
    assert measured[-1].accuracy == 1.0
    small = {"method": "bottleneck", "epochs": 8.0, "beta": 0.001, "generations": None, "learning_rate": 1e-2}
    run = train(rewarded(staged, lively_model, "ppo", "regex:o", **small, micro_batch=24, answer_length=4))
    found = [e.reward for e in steps(run) if e.reward is not None][::4]
    assert sum(found[-3:]) / 3 > sum(found[:3]) / 3
