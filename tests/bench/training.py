"""How fast ftui trains: its worker, a plain TRL script and, where one is named, LLaMA-Factory, on the same work in turns.

    python -m tests.bench.training                                   identity: the preset's own rows
    python -m tests.bench.training identity alpaca dialogsum dpo --data FOLDER
    python -m tests.bench.training --llamafactory ENVIRONMENT/bin/python
    python -m tests.bench.training identity --shape 8b               random weights of a real shape, for a card

The same starter model, rows, adapter, batch, rate, seed and precision for all; FOLDER holds alpaca_en_demo.json,
dialogsum.dev.jsonl and dpo_en_demo.json, of which the first `--rows` are taken. Seconds are from the start of the first
optimizer step to the end of the last (for DPO with what the reference reads before it), so imports, loading and tokenising
are left out. A faster run counts only where the losses are the same: dropout is off, so that they can be compared.

The floor is what the matrix products alone would take: forward and backward of every token that is not padding and not a
repeated beginning, the output head for trained tokens only, at the rate that one large product runs at here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine import draft
from engine.models import starter
from engine.recipe import Recipe
from engine.runs import status
from engine.runs.directory import RunDir
from engine.runs.events import ENDED, Progress, Step
from engine.runs.journal import Reader
from tests.bench.shapes import SHAPES, build

ROOT = Path(__file__).parents[2]
# What a workload is, beside its rows: file, settings, and templates where columns need them.
WORKLOADS: dict[str, dict[str, Any]] = {
    "identity": {"preset": "identity", "edits": {"micro_batch": 8}},  # as the preset has it
    "alpaca": {"file": "alpaca_en_demo.json", "edits": {"max_length": 512}},
    "dialogsum": {
        "file": "dialogsum.dev.jsonl",
        "prompt": "Summarize the following conversation.\n\n{dialogue}",
        "completion": "{summary}",
        "edits": {"max_length": 512},
    },
    "dpo": {"file": "dpo_en_demo.json", "stage": "dpo", "edits": {"max_length": 512}},
}
SAME = {
    "rank": 8,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "epochs": 1.0,
    "micro_batch": 4,
    "accumulation": 1,
    "warmup": 0.0,
    "weight_decay": 0.0,
    "eval_fraction": 0.0,
    "stop_on_plateau": False,
    "gradient_checkpointing": False,
    "save_every": 100_000,
    "sample_every": 100_000,
}

PLAIN = """
import sys, time, json, resource, torch
from pathlib import Path
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from engine import recipe as recipes
from engine.data import dataset
from engine.worker import rows
r = recipes.load(Path(sys.argv[1])); folder = Path(sys.argv[2]); s = r.settings
class Clock(TrainerCallback):
    def on_train_begin(self, *a, **k): self.began = time.monotonic()
    def on_train_end(self, *a, **k): self.seconds = time.monotonic() - self.began
clock = Clock()
shared = dict(output_dir=sys.argv[3], num_train_epochs=s.epochs, per_device_train_batch_size=s.micro_batch,
    gradient_accumulation_steps=s.accumulation, learning_rate=s.learning_rate, lr_scheduler_type=s.schedule,
    bf16=s.precision == "bf16", use_cpu=not torch.cuda.is_available(), seed=s.seed, gradient_checkpointing=False,
    logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, max_length=s.max_length, optim="adamw_torch_fused",
    max_grad_norm=s.max_grad_norm, weight_decay=0.0)
number = torch.bfloat16 if s.precision == "bf16" else torch.float32
packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=number) if s.method == "qlora" else None
common = dict(model=AutoModelForCausalLM.from_pretrained(folder, dtype=number, quantization_config=packed),
    processing_class=AutoTokenizer.from_pretrained(folder), callbacks=[clock],
    peft_config=LoraConfig(r=s.rank, lora_alpha=s.alpha, lora_dropout=s.dropout, target_modules="all-linear",
        task_type="CAUSAL_LM"))
if r.stage == "dpo":
    from trl import DPOConfig, DPOTrainer
    pairs = [{"prompt": [{"role": m.role, "content": m.content} for m in e.messages],
        "chosen": [{"role": m.role, "content": m.content} for m in e.chosen],
        "rejected": [{"role": m.role, "content": m.content} for m in e.rejected]}
        for e in dataset.load(r.data).examples]
    trainer = DPOTrainer(args=DPOConfig(**shared, beta=s.beta, loss_type=[s.loss]), train_dataset=Dataset.from_list(pairs), **common)
else:
    from trl import SFTConfig, SFTTrainer
    trainer = SFTTrainer(args=SFTConfig(**shared), train_dataset=rows.as_dataset(rows.prepare(r, folder).train), **common)
trainer.train()
steps = [e for e in trainer.state.log_history if "loss" in e]
print(json.dumps({"seconds": clock.seconds, "steps": len(steps), "first": steps[0]["loss"], "last": steps[-1]["loss"],
    "norm": min(e["grad_norm"] for e in steps), "memory": torch.cuda.max_memory_reserved() if torch.cuda.is_available()
    else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


class Found(Struct):
    """One run. `norm` is its smallest gradient norm, `memory` its largest resident size in bytes."""

    seconds: float
    steps: int
    first: float
    last: float
    norm: float
    memory: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORK", default=["identity"])
    parser.add_argument("--data", type=Path, help="the folder of the rows (identity brings its own)")
    parser.add_argument("--rows", type=int, default=64, help="of each file")
    parser.add_argument("--llamafactory", help="the Python of an environment that has LLaMA-Factory")
    parser.add_argument(
        "--shape", choices=SHAPES, help="a model of this shape with random weights, not the starter model"
    )
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora", help="qlora is for a card")
    parser.add_argument("--padded", action="store_true", help="ftui without its levers, too")
    args = parser.parse_args()
    if unknown := [name for name in args.workloads if name not in WORKLOADS]:
        parser.error(f"no such work: {', '.join(unknown)}; there is {', '.join(WORKLOADS)}")
    rate = products()
    print(f"one large product: {rate / 1e9:.0f} GFLOP/s", flush=True)
    print(
        "| work | trainer | steps | seconds | real tokens/s | memory | loss | least gradient | ratio |\n|" + "---|" * 9
    )
    for name in args.workloads:
        with tempfile.TemporaryDirectory(prefix="ftui-training-") as scratch:
            compare(name, args, Path(scratch), rate)
    return 0


def compare(name: str, args: argparse.Namespace, scratch: Path, rate: float) -> None:
    made = draft.make(choice(name, args, scratch))
    made.recipe.probe = ""  # whose answer comes between the first step and the second
    run, mine = ours(made)
    recipe, folder = run.recipe(), made.model_folder
    assert folder is not None
    least, real = work(recipe, folder)
    found = {"ftui": mine}
    if args.padded:
        off = {"unpadded": False, "fused_lora": False}
        found["ftui, levers off"] = ours(draft.replan(made, {**made.choice.edits, **off}))[1]
    found["plain TRL"] = plain(run.recipe_path, folder, scratch)
    if args.llamafactory and recipe.stage == "sft":
        found["LLaMA-Factory"] = llamafactory(args.llamafactory, recipe, folder, scratch, checkpointing=False)
        # As it comes: where memory would do without, too.
        found["LLaMA-Factory, checkpointing"] = llamafactory(
            args.llamafactory, recipe, folder, scratch, checkpointing=True
        )
    for who, one in found.items():
        print(
            f"| {name} | {who} | {one.steps} | {one.seconds:.1f} | {real / one.seconds:.0f} | {one.memory / 1e9:.1f} GB "
            f"| {one.first:.4f} → {one.last:.4f} | {one.norm:.3f} | {one.seconds / mine.seconds:.2f} |",
            flush=True,
        )
    print(f"| {name} | floor | | {least / rate:.1f} | | | | | {least / rate / mine.seconds:.2f} |", flush=True)


def choice(name: str, args: argparse.Namespace, scratch: Path) -> draft.Choice:
    kind = WORKLOADS[name]
    path = None
    if "file" in kind:
        if args.data is None:
            sys.exit(f"{name} needs --data, the folder with {kind['file']}")
        source = args.data / kind["file"]
        if source.suffix == ".jsonl":
            rows = [json.loads(line) for line in source.read_text().splitlines()]
        else:
            rows = json.loads(source.read_text())
        path = scratch / "rows.json"
        path.write_text(json.dumps(rows[: args.rows]))
    given = {key: kind[key] for key in ("preset", "prompt", "completion", "stage") if key in kind}
    if args.shape:
        given["model"] = str(build(args.shape, starter.folder(), scratch / args.shape))
    edits = {**SAME, **kind.get("edits", {}), "method": args.method}
    return draft.Choice(data=None if path is None else str(path), name=f"speed-{name}", edits=edits, **given)


def ours(made: draft.Draft) -> tuple[RunDir, Found]:
    run = draft.start(made)
    while status.read(run).state not in ENDED:
        time.sleep(0.2)
    events = Reader(run.journal_path).poll()
    steps = [event for event in events if isinstance(event, Step)]
    assert status.read(run).state == "ready", status.read(run).cause
    # The first step is told when it has ended; how long it took is what the others say.
    seconds = (steps[-1].time - steps[0].time) * len(steps) / (len(steps) - 1)
    began = [event.time for event in events if isinstance(event, Progress) and event.what == "rows by the reference"]
    if began:
        seconds = steps[-1].time - began[0]
    return run, Found(
        seconds=seconds,
        steps=len(steps),
        first=steps[0].loss,
        last=steps[-1].loss,
        norm=min(step.grad_norm for step in steps),
        memory=max(step.memory for step in steps),
    )


def plain(recipe: Path, folder: Path, scratch: Path) -> Found:
    command = [sys.executable, "-c", PLAIN, str(recipe), str(folder), str(scratch / "plain")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Found)


def llamafactory(python: str, recipe: Recipe, folder: Path, scratch: Path, checkpointing: bool) -> Found:
    """Its own command line on the same texts: its template for this markup knows no system prompt that the model's own
    template says where a row has none, so that stands in the rows."""
    from engine.data import dataset, tokenizer

    s = recipe.settings
    own = tokenizer.load(folder)
    roles = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = []
    for example in dataset.load(recipe.data).examples:
        said = [(message.role, message.content) for message in example.messages or []]
        if default := re.match(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", own.render(example).text, re.DOTALL):
            said = [("system", default[1]), *(one for one in said if one[0] != "system")]
        rows.append({"conversations": [{"from": roles[role], "value": content} for role, content in said]})
    (scratch / "rows.json").write_text(json.dumps(rows))
    (scratch / "dataset_info.json").write_text(
        json.dumps(
            {"rows": {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}}}
        )
    )
    out = scratch / f"llamafactory-{checkpointing}"
    words: dict[str, Any] = {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": s.rank,
        "lora_alpha": s.alpha,
        "lora_dropout": s.dropout,
        "model_name_or_path": str(folder),
        "dataset_dir": str(scratch),
        "dataset": "rows",
        "template": "chatml",
        "cutoff_len": s.max_length,
        "output_dir": str(out),
        "per_device_train_batch_size": s.micro_batch,
        "gradient_accumulation_steps": s.accumulation,
        "learning_rate": s.learning_rate,
        "num_train_epochs": s.epochs,
        "lr_scheduler_type": s.schedule,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": s.seed,
        "overwrite_cache": True,
        "optim": "adamw_torch_fused",
        "disable_gradient_checkpointing": not checkpointing,
    }
    (scratch / "factory.yaml").write_text(json.dumps(words))  # JSON is YAML
    run = "import resource, sys; from llamafactory.train.tuner import run_exp; sys.argv = sys.argv[:2]; run_exp(); "
    run += "print('memory', 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [python, "-c", run, str(scratch / "factory.yaml")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    results = json.loads((out / "train_results.json").read_text())
    steps = [step for step in json.loads((out / "trainer_state.json").read_text())["log_history"] if "loss" in step]
    return Found(
        seconds=results["train_runtime"],
        steps=len(steps),
        first=steps[0]["loss"],
        last=steps[-1]["loss"],
        norm=min(step["grad_norm"] for step in steps),
        memory=float(done.stdout.rpartition("memory ")[2].split()[0]),
    )


def products() -> float:
    """FLOP/s of a large product, in fp32 with the threads that training has or in bf16 on a card, in a process of its own."""
    code = (
        "import time, torch; gpu = torch.cuda.is_available(); best = 9e9; n = 8192 if gpu else 1280\n"
        "a, b = (torch.randn(n, n, device='cuda' if gpu else 'cpu', dtype=torch.bfloat16 if gpu else None) for _ in 'ab')\n"
        "for _ in range(20):\n t = time.perf_counter(); c = (a @ b)[0, 0].item(); best = min(best, time.perf_counter() - t)\n"
        "print(2 * n**3 / best)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def work(recipe: Recipe, folder: Path) -> tuple[float, int]:
    """(FLOP of the products that one epoch cannot do without, real tokens of the rows).

    Forward, and backward to the inputs: 4 FLOP a weight and token, of the layers for every token that differs from the rows
    beside it, of the head for every trained one; LoRA's own products are below 3 % of that and left out. For DPO a third
    pass, of the reference, and what a pair has in common once.
    """
    from engine.data import dataset, tokenizer
    from engine.models import facts

    known = facts.read(folder)
    head = known.hidden * known.vocabulary
    body = known.parameters - head * (1 if known.tied else 2)
    own = tokenizer.load(folder)
    examples = dataset.load(recipe.data).examples
    most, batch = recipe.settings.max_length, recipe.settings.micro_batch
    computed = trained = real = 0
    if recipe.stage == "dpo":
        for example in examples:
            one, other = (side.ids[:most] for side in own.measure(own.render_pair(example)))
            shared = beginning([one, other])
            computed += len(one) + len(other) - shared
            trained += len(one) + len(other) - 2 * shared
            real += len(one) + len(other)
        return 6.0 * (computed * body + trained * head), real
    rendered = own.measure([own.render(example) for example in examples])
    rows = [list(row.ids[:most]) for row in rendered]
    for at in range(0, len(rows), batch):
        some = rows[at : at + batch]
        shared = beginning(some) if len(some) > 1 else 0
        computed += sum(map(len, some)) - shared * (len(some) - 1)
    for row in rendered:
        trained += sum(min(stop, most) - start for start, stop in row.trained if start < most)
        real += min(len(row.ids), most)
    return 4.0 * (computed * body + trained * head), real


def beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))


if __name__ == "__main__":
    sys.exit(main())
