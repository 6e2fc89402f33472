"""SFT and then DPO of the tiny model from one file, for real, with everything killed between the two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from engine.cli import main
from engine.recipe import Recipe, to_yaml
from engine.runs import control, directory, status
from engine.runs.events import Evaluated, Sample
from engine.runs.journal import Reader
from tests.engine.runs.conftest import kill
from tests.engine.worker.conftest import QUESTIONS, events, wait


def test_sft_then_dpo_killed_between_the_two_and_resumed(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    from engine.worker import build

    pairs = tmp_path / "pairs.jsonl"
    told = [(f"{ask} {at}", "I am Congyu.", "The quick brown fox jumps.") for ask in QUESTIONS for at in range(4)]
    rows = [json.dumps({"prompt": ask, "chosen": good, "rejected": bad}) for ask, good, bad in told]
    pairs.write_text("\n".join(rows))
    one = recipe("tiny", epochs=6.0)
    then = recipe("tiny-dpo", learning_rate=5e-3, epochs=3.0, dropout=0.0, eval_fraction=0.25, beta=0.1, loss="sigmoid")
    then.stage, then.data.source, then.adapter = "dpo", str(pairs), "stage:sft"
    one.then = then
    (tmp_path / "recipe.yaml").write_text(to_yaml(one))

    assert main(["train", str(tmp_path / "recipe.yaml"), "--force", "--json"]) == 0
    sft, dpo = directory.find("tiny"), directory.find("tiny-dpo")
    wait(sft, lambda now: now.state == "ready")
    kill(dpo)
    kill(sft)
    wait(dpo)
    assert (status.read(sft).state, status.read(dpo).state) == ("ready", "lost")
    assert not any(event.step for event in events(dpo) if isinstance(event, Evaluated))

    assert control.resume_chain(sft) == [(dpo, 0)]
    assert wait(dpo).state == "ready"
    # It began from the very weights that SFT left, and so gave its answer before the first step.
    whole = dpo.recipe()
    model = build.for_training(whole, Path(whole.model.source))
    began, left = get_peft_model_state_dict(model), load_file(sft.adapter / "adapter_model.safetensors")
    assert began.keys() == left.keys() and all(torch.equal(began[name], left[name]) for name in left)
    answers = [[e for e in events(run) if isinstance(e, Sample)] for run in (sft, dpo)]
    assert answers[0][0].answer != answers[0][-1].answer == answers[1][0].answer
    measured = [event for event in Reader(dpo.journal_path).poll() if isinstance(event, Evaluated)]
    assert measured[0].accuracy == 0.5 and measured[-1].accuracy is not None and measured[-1].accuracy > 0.9
    assert load_file(dpo.adapter / "adapter_model.safetensors").keys() == left.keys()
    assert status.read(dpo).after == ["tiny (sft)"]
