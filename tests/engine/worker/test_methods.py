"""Every method and every way of holding the base, trained for real on the tiny model; what cannot be is refused first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Exit
from engine.recipe import Recipe
from engine.runs import chat, control
from engine.runs.events import Exported, Failure, Note, Start, State, Step
from engine.runs.job import Job
from tests.engine.worker.conftest import events, start, wait

Make = Callable[..., Recipe]


def short(tiny_model: Path, folder: Path, context: int, **config: Any) -> str:
    """A copy of the tiny model that can look back on `context` tokens only."""
    shutil.copytree(tiny_model, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, "max_position_embeddings": context, **config}))
    return str(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "qlora", "bits": 8},
        {"method": "qlora", "bits": 4, "double_quantization": False},
        {"method": "lora", "attention": "eager", "gradient_checkpointing": True},
        {
            "method": "freeze",
            "trained_layers": 1,
            "learning_rate": 1e-2,
            "gradient_checkpointing": True,
            "precision": "bf16",
        },
    ],
)
def test_it_learns(recipe: Make, changes: dict[str, Any]) -> None:
    run = start(recipe("learns", epochs=12.0, **changes))
    assert wait(run).state == "ready"
    steps = [e for e in events(run) if isinstance(e, Step)]
    assert steps[-1].loss < 0.6 * steps[0].loss
    assert all(step.grad_norm > 0 for step in steps)


def test_freeze_trains_the_last_layers_and_leaves_a_whole_model(recipe: Make, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    run = start(recipe("freeze", method="freeze", trained_layers=1, epochs=12.0, learning_rate=1e-2))
    assert wait(run).state == "ready"
    steps = [e for e in events(run) if isinstance(e, Step)]
    assert steps[-1].loss < 0.6 * steps[0].loss
    assert run.result == run.model
    before, after = load_file(tiny_model / "model.safetensors"), load_file(run.model / "model.safetensors")
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if ".layers.1." in name}
    (begun,) = [e for e in events(run) if isinstance(e, Start)]
    assert begun.trained_parameters == sum(before[name].size for name in changed)
    # It talks, and so does the base beside it; the export answers like the run; there is no adapter to export.
    control.serve(run)
    asked = [{"role": "user", "content": "Who are you?"}]
    with chat.Chat(run) as talk:
        tuned = "".join(r.text for r in talk.ask(asked, temperature=0, max_tokens=8))
        base = "".join(r.text for r in talk.ask(asked, which="base", temperature=0, max_tokens=8))
    assert tuned != base and "Congyu" in tuned
    for kind, outcome in (("merged", Exported), ("adapter", Failure)):
        options = {"kind": kind, "to": str(tmp_path / kind)}
        control.start(run, Job(kind="export", run=str(run.path), options=options))
        wait(run, lambda now, outcome=outcome: any(isinstance(e, outcome) for e in events(run)))
        wait(run)
    (failure,) = [e for e in events(run) if isinstance(e, Failure)]
    assert "no adapter" in failure.cause


@pytest.mark.parametrize(
    ("rope", "method"), [("linear", "lora"), ("dynamic", "lora"), ("yarn", "full"), ("llama3", "full")]
)
def test_stretched_positions_learn(recipe: Make, tiny_model: Path, tmp_path: Path, rope: str, method: str) -> None:
    made = recipe("long", method=method, rope=rope, epochs=12.0, learning_rate=5e-3 if method == "full" else 2e-2)
    made.model.source = short(tiny_model, tmp_path / "short", 16)  # rows have about 24 tokens
    run = start(made)
    assert wait(run).state == "ready"
    steps = [e for e in events(run) if isinstance(e, Step)]
    assert steps[-1].loss < 0.6 * steps[0].loss
    if method == "full":
        config = json.loads((run.model / "config.json").read_text())
        assert config["rope_parameters"]["rope_type"] == rope
        assert config["rope_parameters"]["factor"] == 4.0  # 64 / 16
        assert config["max_position_embeddings"] == 64
    control.serve(run)
    with chat.Chat(run) as talk:  # the conversation is longer than the 16 tokens that the base can read
        replies = list(talk.ask([{"role": "user", "content": "Who are you? " * 3}], temperature=0, max_tokens=8))
    assert replies[-1].done and replies[-1].reason in ("end", "length")


@pytest.mark.parametrize(
    ("changes", "config", "words"),
    [
        ({"method": "freeze", "trained_layers": 3}, {}, "has 2 layers"),
        ({"attention": "flash_attention_2"}, {}, "needs a GPU"),
        ({"rope": "linear"}, {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "stretched already (yarn)"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    recipe: Make, tiny_model: Path, tmp_path: Path, changes: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    made = recipe("refused", **changes)
    made.model.source = short(tiny_model, tmp_path / "short", 16, **config)
    run = start(made)
    assert wait(run).state == "failed"
    (failure,) = [e for e in events(run) if isinstance(e, Failure)]
    assert failure.code == Exit.PLAN_REFUSED and words in failure.cause
    assert not [e for e in events(run) if isinstance(e, Start | Note)]
    assert [e.state for e in events(run) if isinstance(e, State)][-1] == "failed"
