"""Forecast of memory against the measured peak of real runs on a processor: `python -m tests.bench.memory [WORDS …]`.

Each configuration is a run of three optimizer steps in a worker of its own, started as `ftui train` starts it; measured
is the most that the worker ever had resident (VmHWM). Three rows in four are as long as the cutoff, so that micro-batches
are padded as real ones are. WORDS choose configurations by what is in their names. Then the published figures for GPUs.
Exit code 1 if a forecast is further from the measurement than 15 %.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine import hardware
from engine.data import tokenizer
from engine.data.convert import Message
from engine.models import facts as model_facts
from engine.models import memory, sources
from engine.recipe import LOSSES, Data, Model, Recipe, Stage
from engine.runs import chat, control, directory, processes, status
from engine.runs.directory import RunDir
from engine.runs.events import ENDED
from tests.engine.models import known
from tests.engine.settings import settings

LIMIT = 0.15
STEPS = 3
# Sizes of models made of random numbers, beside the starter's tokenizer. `wide` is stored in 16 bit, as most models are.
SHAPES: dict[str, dict[str, Any]] = {
    "wide": {"hidden": 1024, "inner": 2816, "layers": 8, "heads": 16, "kv": 16, "vocabulary": 49152, "tied": False},
    "words": {"hidden": 512, "inner": 2048, "layers": 6, "heads": 8, "kv": 2, "vocabulary": 151936, "tied": True},
    "deep": {"hidden": 384, "inner": 1024, "layers": 40, "heads": 6, "kv": 2, "vocabulary": 49152, "tied": True},
}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("lora", "starter", {"micro_batch": 4, "max_length": 128, "dropout": 0.05}),
    ("lora, rank 32", "starter", {"micro_batch": 4, "max_length": 256, "rank": 32, "dropout": 0.05}),
    ("lora, row by row", "starter", {"micro_batch": 1, "max_length": 512}),
    ("lora, checkpointing", "starter", {"micro_batch": 8, "max_length": 128, "gradient_checkpointing": True}),
    ("lora, eager", "starter", {"micro_batch": 2, "max_length": 512, "attention": "eager", "targets": "attention"}),
    ("lora, bf16", "starter", {"micro_batch": 4, "max_length": 128, "precision": "bf16"}),
    ("qlora, 4 bit", "starter", {"method": "qlora", "micro_batch": 4, "max_length": 128}),
    ("qlora, 8 bit", "starter", {"method": "qlora", "bits": 8, "micro_batch": 4, "max_length": 128, "dropout": 0.05}),
    ("full", "starter", {"method": "full", "micro_batch": 1, "max_length": 128}),
    ("freeze", "starter", {"method": "freeze", "trained_layers": 4, "micro_batch": 4, "max_length": 256}),
    ("galore", "starter", {"method": "galore", "rank": 128, "micro_batch": 1, "max_length": 128}),
    ("bottleneck", "starter", {"method": "bottleneck", "rank": 32, "micro_batch": 4, "max_length": 128}),
    ("ia3", "starter", {"method": "ia3", "micro_batch": 4, "max_length": 128}),
    ("prefix", "starter", {"method": "prefix", "micro_batch": 4, "max_length": 128}),
    ("prompt", "starter", {"method": "prompt", "micro_batch": 4, "max_length": 128}),
    ("lora", "wide", {"micro_batch": 8, "max_length": 128, "dropout": 0.05}),
    ("qlora, 4 bit", "wide", {"method": "qlora", "micro_batch": 1, "max_length": 512, "double_quantization": False}),
    ("full, accumulated", "wide", {"method": "full", "micro_batch": 1, "max_length": 128, "accumulation": 2}),
    ("chat, lora", "starter", {"micro_batch": 1, "max_length": 128}),
    ("chat, full", "starter", {"method": "full", "micro_batch": 1, "max_length": 128}),
    ("lora", "words", {"micro_batch": 4, "max_length": 128}),
    ("full", "words", {"method": "full", "micro_batch": 4, "max_length": 128}),
    ("dpo, lora", "starter", {"micro_batch": 2, "max_length": 128, "dropout": 0.05}),
    ("dpo, lora, longer", "starter", {"micro_batch": 2, "max_length": 256, "accumulation": 2}),
    ("dpo, full", "starter", {"method": "full", "micro_batch": 1, "max_length": 128}),
    ("dpo, lora", "words", {"micro_batch": 2, "max_length": 256, "gradient_checkpointing": True}),
    ("kto, lora", "starter", {"micro_batch": 4, "max_length": 128, "dropout": 0.05}),
    ("kto, lora", "words", {"micro_batch": 2, "max_length": 256}),
    ("reward, lora", "starter", {"micro_batch": 2, "max_length": 128, "dropout": 0.05}),
    ("reward, lora", "words", {"micro_batch": 2, "max_length": 256}),
    (
        "full, checkpointing",
        "deep",
        {"method": "full", "micro_batch": 4, "max_length": 512, "gradient_checkpointing": True},
    ),
]


def make(folder: Path, shape: dict[str, Any], tokenizer: Path) -> Path:
    """A Llama of random numbers. Written tensor by tensor, in the order of their names."""
    from safetensors.numpy import save_file

    h, i, layers, vocabulary = shape["hidden"], shape["inner"], shape["layers"], shape["vocabulary"]
    k = h // shape["heads"] * shape["kv"]
    stored = np.float16 if shape is SHAPES["wide"] else np.float32
    number = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (number.standard_normal((rows, columns), np.float32) * 0.02).astype(stored)

    weights = {"model.embed_tokens.weight": matrix(vocabulary, h), "model.norm.weight": np.ones(h, stored)}
    if not shape["tied"]:
        weights["lm_head.weight"] = matrix(vocabulary, h)
    sizes = {"q_proj": (h, h), "k_proj": (k, h), "v_proj": (k, h), "o_proj": (h, h)}
    feed = {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}
    for layer in range(layers):
        for block, matrices in (("self_attn", sizes), ("mlp", feed)):
            for name, size in matrices.items():
                weights[f"model.layers.{layer}.{block}.{name}.weight"] = matrix(*size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = np.ones(h, stored)
    folder.mkdir()
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": h,
        "intermediate_size": i,
        "num_hidden_layers": layers,
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"],
        "head_dim": h // shape["heads"],
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": shape["tied"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": np.dtype(stored).name,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in tokenizer.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    return folder


def rows(path: Path, count: int, length: int, stage: Stage) -> None:
    """`count` rows, three in four longer than `length` tokens and so cut to it, the fourth about half as long; of pairs both sides."""
    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "says", "hello", "to", "all")
    choose = random.Random(0).choice
    with path.open("w") as file:
        for number in range(count):
            many = 3 * length if number % 4 != 3 else max(8, length // 2 - 30)
            answer, other = (" ".join(choose(words) for _ in range(many)) for _ in range(2))
            row: dict[str, Any] = {"prompt": "Tell me a story."}
            if stage in ("dpo", "reward"):
                row |= {"chosen": answer, "rejected": other}
            else:
                row |= {"completion": answer} | ({"label": number % 2 == 0} if stage == "kto" else {})
            file.write(json.dumps(row) + "\n")


def resident(run: RunDir) -> int:
    """Bytes that the worker of `run` had resident at most until now; 0 when it is gone."""
    worker = processes.parse((status.read_json(run.supervisor_path) or {}).get("worker"))
    try:
        text = Path(f"/proc/{worker.pid}/status").read_text() if worker else ""
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def trained(recipe: Recipe) -> tuple[int, RunDir]:
    """(the peak of training, the finished run)."""
    run = directory.create(recipe, {})
    control.start(run, control.Job(kind="train", run=str(run.path)))
    peak = 0
    while True:
        now = status.read(run)
        peak = max(peak, resident(run))
        if now.state in ENDED and not now.worker_alive:
            break
        time.sleep(0.1)
    if now.state != "ready":
        sys.exit(f"{recipe.name}: {now.state}: {now.cause}\n{run.log_path.read_text()[-2000:]}")
    return peak, run


def talked(run: RunDir, question: str, tokens: int) -> int:
    """The peak of a worker that answers with both models, `tokens` long at most."""
    control.serve(run)
    with chat.Chat(run) as talk:
        for which in ("tuned", "base"):
            for _ in talk.ask([{"role": "user", "content": question}], which=which, temperature=0, max_tokens=tokens):
                pass
        return resident(run)


def compare(words: list[str]) -> bool:
    """Run and print every configuration; whether all are within the limit."""
    starter = sources.resolve("starter")
    os.environ["FTUI_LINGER"] = "2"  # the worker stays long enough to be read once more when all is done
    good = True
    with tempfile.TemporaryDirectory(prefix="ftui-bench-") as place:
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = place
        models = {"starter": starter}
        data = Path(place) / "rows.jsonl"
        print(f"{'model':<8} {'run':<20} {'batch':>8}  {'forecast':>8} {'measured':>8} {'off':>6}   of the forecast")
        for name, model, changes in CASES:
            if not all(word in f"{name} {model}" for word in words):
                continue
            if model not in models:
                models[model] = make(Path(place) / model, SHAPES[model], starter)
            word = name.partition(",")[0]
            stage: Stage = word if word in ("dpo", "kto", "reward") else "sft"  # type: ignore[assignment]
            rated = {"beta": 0.1, "loss": LOSSES[stage][0]} if stage in ("dpo", "kto") else {}
            # Forecasts are for rows that share nothing and are trained in full; without padding they take less.
            chosen = settings(
                **{"unpadded": False, "save_every": 1000, "sample_every": 1000, "epochs": 1.0, **rated, **changes}
            )
            rows(data, STEPS * chosen.micro_batch * chosen.accumulation, chosen.max_length, stage)
            made = Recipe(
                name="bench",
                stage=stage,
                model=Model(source=str(models[model])),
                data=Data(source=str(data)),
                settings=chosen,
            )
            found, run = trained(made)
            phases: tuple[memory.Phase, ...] = ("train", "load")
            longest = chosen.max_length
            if name.startswith("chat"):
                question = "Tell me more. " * 300
                phases, longest = (
                    ("chat", "load"),
                    16 + len(tokenizer.load(models[model]).prompt([Message("user", question)])),
                )
                found = talked(run, question, 16)
            shutil.rmtree(run.path)
            facts = model_facts.read(models[model])
            said = [
                memory.forecast(facts, chosen, longest=longest, device="cpu", phase=phase, stage=stage)
                for phase in phases
            ]
            expected = max(said, key=lambda one: one.total)
            off = expected.total / found - 1
            good &= abs(off) <= LIMIT
            parts = "  ".join(f"{part} {count / 1e9:.2f}" for part, count in expected.parts() if count > 5e6)
            batch = f"1 x {longest}" if name.startswith("chat") else f"{chosen.micro_batch} x {longest}"
            print(
                f"{model:<8} {name:<20} {batch:>8}  {expected.total / 1e9:>5.2f} GB {found / 1e9:>5.2f} GB {off:>+6.1%}   {parts}",
                flush=True,
            )
    return good


def published() -> bool:
    llama = known.published(known.LLAMA_8B)
    good = True
    for method, peak in known.TORCHTUNE.items():
        chosen = settings(method=method, **known.TORCHTUNE_SETTINGS)
        expected = memory.forecast(llama, chosen, longest=2048, device="cuda")
        allocated = (expected.total - expected.overhead) / memory.GIB
        off = allocated / peak - 1
        good &= abs(off) <= LIMIT
        parts = "  ".join(f"{part} {count / memory.GIB:.2f}" for part, count in expected.parts())
        print(f"{'8B':<8} {method:<20} {'2 x 2048':>8} {allocated:>5.1f} GiB {peak:>5.1f} GiB {off:>+6.1%}   {parts}")
    return good


def main(words: list[str]) -> int:
    machine = hardware.read()
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory_total / 1e9:.0f} GB, {platform.libc_ver()[1]} glibc")
    return 0 if compare(words) & published() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
