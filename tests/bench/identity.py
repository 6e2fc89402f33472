"""The identity preset on the starter model: ftui's worker against a plain TRL script, in one run.

    python tests/bench/identity.py [epochs]

Same model, rows (tokenised once, by ftui), adapter, batch, rate and seed. Both numbers are from the start of the first
optimizer step to the end of the last, so that imports and loading are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from engine import draft
from engine.recipe import SETTING_FIELDS
from engine.runs import status
from engine.runs.events import ENDED, Step
from engine.runs.journal import Reader

PLAIN = """
import sys, time, json, torch
from pathlib import Path
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from engine import recipe as recipes
from engine.worker import rows
r = recipes.load(Path(sys.argv[1])); folder = Path(sys.argv[2]); s = r.settings
split = rows.prepare(r, folder)
class Clock(TrainerCallback):
    def on_train_begin(self, *a, **k): self.began = time.monotonic()
    def on_train_end(self, *a, **k): self.seconds = time.monotonic() - self.began
clock = Clock()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
    args=SFTConfig(output_dir=sys.argv[3], num_train_epochs=s.epochs, per_device_train_batch_size=s.micro_batch,
        gradient_accumulation_steps=s.accumulation, learning_rate=s.learning_rate, lr_scheduler_type=s.schedule,
        bf16=False, use_cpu=True, seed=s.seed, gradient_checkpointing=False, logging_steps=1, report_to="none",
        save_strategy="no", disable_tqdm=True, max_length=s.max_length, optim="adamw_torch"),
    train_dataset=rows.as_dataset(split.train), processing_class=AutoTokenizer.from_pretrained(folder),
    peft_config=LoraConfig(r=s.rank, lora_alpha=s.alpha, lora_dropout=s.dropout, target_modules="all-linear",
        task_type="CAUSAL_LM"), callbacks=[clock])
trainer.train()
losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
print(json.dumps({"seconds": clock.seconds, "steps": len(losses), "first": losses[0], "last": losses[-1]}))
"""


def ours(choice: draft.Choice) -> tuple[dict[str, float], Path, Path]:
    made = draft.make(choice)
    run = draft.start(made)
    while status.read(run).state not in ENDED:
        time.sleep(0.2)
    steps = [e for e in Reader(run.journal_path).poll() if isinstance(e, Step)]
    seconds = (steps[-1].time - steps[0].time) * len(steps) / (len(steps) - 1)
    return (
        {"seconds": seconds, "steps": len(steps), "first": steps[0].loss, "last": steps[-1].loss},
        run.recipe_path,
        made.model_folder,
    )


def main(epochs: float) -> None:
    edits = {"epochs": epochs, "stop_on_plateau": False, "sample_every": 100_000, "warmup": 0.0}
    assert set(edits) <= set(SETTING_FIELDS)
    mine, recipe, folder = ours(draft.Choice(preset="identity", name="bench", edits=edits))
    with tempfile.TemporaryDirectory() as scratch:
        root = str(Path(__file__).parents[2])
        printed = subprocess.run(
            [sys.executable, "-c", PLAIN, str(recipe), str(folder), scratch],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": root},
        ).stdout
    plain = msgspec.json.decode(printed.strip().splitlines()[-1])
    for name, found in (("ftui", mine), ("plain TRL", plain)):
        print(
            f"{name:<10} {found['seconds']:6.1f} s  {found['steps']:4.0f} steps  loss {found['first']:.3f} to {found['last']:.3f}"
        )
    print(f"ratio      {plain['seconds'] / mine['seconds']:.2f} x")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
