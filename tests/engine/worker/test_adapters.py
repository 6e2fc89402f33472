"""Each kind of adapter in this process: what peft counts, what is written and loaded back, and what it answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.models import facts
from engine.models.trainable import trainable
from engine.recipe import VIRTUAL, Model, Recipe, Settings
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, State
from engine.worker import adapters, build, decode, generate
from tests.engine.settings import settings
from tests.engine.worker.conftest import QUESTIONS, bits, events, steps

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"rslora": True, "alpha": 4},
    "dora": {"dora": True},
    "pissa": {"init": "pissa", "alpha": 16},
    "pissa with rslora": {"init": "pissa", "rslora": True, "targets": "attention"},
    "ia3": {"method": "ia3"},
    "prompt": {"method": "prompt", "virtual_tokens": 5},
    "prefix": {"method": "prefix", "virtual_tokens": 5},
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [30, 31, 32, 33, 34, 35]])


@pytest.fixture
def base(tiny_model: Path) -> Callable[[Settings], Any]:
    return lambda chosen: build.base_model(tiny_model, Model(source=str(tiny_model)), chosen).eval()


def logits(model: Any) -> torch.Tensor:
    """[rows, tokens, vocabulary], those of virtual tokens left out."""
    with torch.no_grad():
        return model(input_ids=IDS).logits[:, -IDS.shape[1] :]


def taught(model: Any, chosen: Settings) -> Any:
    """`model` with a new adapter that has moved from where it began."""
    torch.manual_seed(0)
    made = adapters.new(model, chosen).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight += (0.1 if chosen.method == "lora" else 2.0) * torch.randn_like(weight)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_learns_what_was_counted_and_changes_nothing_yet(
    base: Callable[[Settings], Any], tiny_model: Path, kind: str
) -> None:
    chosen = settings(**KINDS[kind])
    plain = logits(base(chosen))
    torch.manual_seed(0)
    made = adapters.new(base(chosen), chosen).eval()
    assert build.sizes(made)[1] == trainable(facts.read(tiny_model), chosen)
    if chosen.method not in VIRTUAL:
        torch.testing.assert_close(logits(made), plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_answers_like_what_was_trained_and_the_base_stays(
    base: Callable[[Settings], Any], tmp_path: Path, kind: str
) -> None:
    chosen = settings(**KINDS[kind])
    plain = logits(base(chosen))
    made = taught(base(chosen), chosen)
    expected = logits(made)
    assert (expected - plain).abs().max() > 0.1
    adapters.save(made, tmp_path / "adapter")
    with made.disable_adapter():
        assert torch.equal(logits(made), plain)
    torch.testing.assert_close(logits(made), expected)
    result = tmp_path / "adapter"
    used = build.PeftModel.from_pretrained(base(chosen), result).eval()
    torch.testing.assert_close(logits(used), expected, atol=2e-4, rtol=1e-4)
    with used.disable_adapter():
        assert torch.equal(logits(used), plain)
    # It can be trained on, with as much to learn; what PiSSA began is an ordinary LoRA of twice the rank.
    again = adapters.begun(base(chosen), result).eval()
    torch.testing.assert_close(logits(again), expected, atol=2e-4, rtol=1e-4)
    assert build.sizes(again)[1] == build.sizes(made)[1] * (2 if chosen.init == "pissa" else 1)
    if chosen.method not in VIRTUAL:
        torch.testing.assert_close(logits(used.merge_and_unload()), expected, atol=2e-3, rtol=1e-3)


class Numbers:
    """In the place of a tokenizer: ids as they are, where text would hide half a character."""

    pad_token_id, eos_token_id = 0, 2

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(f"{int(one)} " for one in ids if one)

    def batch_decode(self, rows: Any, **_: Any) -> list[str]:
        return [self.decode(row) for row in rows]


def lively(model: Any) -> Any:
    """The tiny model says one token over and over; with small embeddings under large layers it says anything."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= 0.3 if "embed" in name else 4 if weight.ndim == 2 else 1
    return model


@pytest.mark.parametrize("kind", ["lora", "ia3", "prompt", "prefix"])
def test_token_by_token_and_all_at_once_are_the_same_answer(base: Callable[[Settings], Any], kind: str) -> None:
    chosen = settings(**KINDS[kind])
    plain = lively(base(chosen))
    made = taught(lively(base(chosen)), chosen)
    words: Any = Numbers()
    prompts = [[265, 266, 267, 268, 269, 270, 271, 300], [330, 331, 332]]  # of different lengths: one is padded
    together = list(generate.answers(made, words, prompts, max_tokens=12))
    sampling = generate.Sampling(temperature=0, max_tokens=12)

    def one_by_one(tuned: bool) -> list[str]:
        ends = generate.stop_ids(made, words)
        source = decode.reader(made, tuned)
        return ["".join(p.text for p in generate.stream(source, words, ids, sampling, ends)).strip() for ids in prompts]

    streamed = one_by_one(True)
    assert streamed == together
    with made.disable_adapter():
        off = list(generate.answers(made, words, prompts, max_tokens=12))
        alone = one_by_one(False)
    assert off == alone == list(generate.answers(plain, words, prompts, max_tokens=12)) != together


LEARNED: dict[str, tuple[dict[str, Any], float]] = {  # what is set, and how much of the loss may be left
    "rslora": ({"rslora": True, "alpha": 4, "learning_rate": 2e-2}, 0.1),
    "dora": ({"dora": True, "learning_rate": 2e-2}, 0.1),
    "pissa": ({"init": "pissa", "learning_rate": 2e-2}, 0.4),
    "lora_plus": ({"lora_plus": 4.0, "learning_rate": 5e-3}, 0.1),
    "neftune": ({"neftune": 5.0, "learning_rate": 2e-2}, 0.1),
    "ia3": ({"method": "ia3", "learning_rate": 0.2}, 0.8),
    "prompt": ({"method": "prompt", "learning_rate": 0.3}, 0.8),
    "prefix": ({"method": "prefix", "learning_rate": 0.3}, 0.6),
}


@pytest.mark.parametrize("kind", LEARNED)
def test_it_learns_and_a_resumed_run_goes_on_to_the_same_bits(
    recipe: Callable[..., Recipe], train: Callable[..., RunDir], kind: str
) -> None:
    changes, left = LEARNED[kind]
    made = recipe(kind, **{"epochs": 5.0, "save_every": 99, "sample_every": 5, **changes})
    undisturbed, run = train(made), train(made, stop=7)
    losses = [step.loss for step in steps(undisturbed)]
    assert losses[-1] < left * losses[0]
    assert [e.state for e in events(run) if isinstance(e, State)][-1] == "stopped"
    assert bits(train(made, run)) == bits(undisturbed)


@pytest.mark.parametrize("kind", ["pissa", "prompt", "prefix"])
def test_preferences_begin_level_with_their_reference(
    recipe: Callable[..., Recipe], train: Callable[..., RunDir], tmp_path: Path, kind: str
) -> None:
    """Before the first step the model is its own reference, whatever its adapter begins with."""
    rows = [
        {"prompt": f"{question} {at}", "chosen": "I am Congyu.", "rejected": "The quick brown fox jumps."}
        for question in QUESTIONS
        for at in range(2)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    changes = {"epochs": 5.0, "dropout": 0.0, "eval_fraction": 0.25, "beta": 0.1, "loss": "sigmoid", "save_every": 99}
    made = recipe(kind, **{**KINDS[kind], "learning_rate": 5e-3 if kind == "pissa" else 0.1, **changes})
    made.stage, made.data.source, made.probe = "dpo", str(path), ""
    run = train(made)
    losses = [step.loss for step in steps(run)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < 0.8 * losses[0]
    first, last = (e for e in events(run) if isinstance(e, Evaluated))
    assert first.accuracy == 0.5 and last.accuracy == 1.0
