"""Tokens that a run adds: their rows learn, nothing else of the embedding moves, and what comes of it is the same everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from engine.data import tokenizer as tokens
from engine.recipe import Recipe, Stage
from engine.runs.directory import RunDir
from engine.worker import build, decode, export, generate
from engine.worker.session import Session
from tests import tiny
from tests.engine.worker.conftest import QUESTIONS, bits, steps

Make = Callable[..., Recipe]
Train = Callable[..., RunDir]
WORDS = ("<yes>", "<|domain|>")
ROWS = [{"prompt": f"{ask} <|domain|>", "completion": "<yes> I am."} for ask in QUESTIONS * 2]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with embeddings so small that a row of another size can win over them in a few steps."""
    return tiny.build(tmp_path_factory.mktemp("tied") / "model", embedding=0.1)


@pytest.fixture(scope="session")
def untied_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a larger head of its own, and three rows of both matrices to spare."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = np.concatenate([embedding, np.zeros_like(embedding[:3])])
    weights["lm_head.weight"] = 3 * weights["model.embed_tokens.weight"][::-1]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"tie_word_embeddings": False, "vocab_size": len(embedding) + 3}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def added(recipe: Make, model: Path, tmp_path: Path) -> Make:
    def make(name: str = "added", model: Path = model, **changes: Any) -> Recipe:
        made = recipe(name, **{"added_tokens": WORDS, "epochs": 12.0, "dropout": 0.0, **changes})
        path = tmp_path / "added.jsonl"
        path.write_text("\n".join(map(json.dumps, ROWS)))
        made.data.source = str(path)
        made.model.source = str(model)
        return made

    return make


def answers(now: Session) -> str:
    (said,) = generate.answers(now.model, now.tokenizer, [now.ask("Who are you? <|domain|>")], 8)
    return said


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("tied", {}),
    "pissa, padded, peft's own steps": ("tied", {"init": "pissa", "rank": 4, "unpadded": False, "fused_lora": False}),
    "qlora, own head": ("untied", {"method": "qlora"}),
    "bottleneck": ("tied", {"method": "bottleneck", "learning_rate": 3e-2, "epochs": 16.0}),
    "freeze": ("tied", {"method": "freeze", "learning_rate": 1e-2}),
    "full, own head": ("untied", {"method": "full", "learning_rate": 1e-2}),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_model_learns_to_say_and_to_read_new_tokens(
    added: Make, train: Train, model: Path, untied_model: Path, name: str
) -> None:
    which, changes = METHODS[name]
    model = untied_model if which == "untied" else model
    made = added(name.partition(",")[0], model, **changes)
    run = train(made)
    told = steps(run)
    assert told[-1].loss < 0.2 * told[0].loss
    now = Session(run)
    now.model = build.for_chat(made, model, run.result)
    assert answers(now).startswith("<yes>")
    new = [now.rows.encode(word)[0] for word in WORDS]
    old = tokens.load(model).vocabulary
    assert new == [old, old + 1]
    # Only the new rows have moved, and both of them: in what is read and in what is said.
    base = load_tensors(model / "model.safetensors")
    core = build.core(now.model)
    for part, known in ((core.get_input_embeddings(), "model.embed_tokens"), (core.get_output_embeddings(), "lm_head")):
        before = base.get(f"{known}.weight", base["model.embed_tokens.weight"])
        weight = part.weight.detach()
        mean = before[:old].mean(0)
        assert all(float((weight[number] - mean).abs().max()) > 1e-2 for number in new)
        assert len(weight) == max(len(before), old + 2)
        if made.settings.method not in ("full", "galore"):
            assert torch.equal(weight[:old], before[:old])
    if made.settings.adapts:
        saved = load_tensors(run.adapter / "adapter_model.safetensors")
        rows = {name: tensor.shape for name, tensor in saved.items() if "trainable_tokens" in name}
        assert set(rows.values()) == {(2, 64)} and len(rows) == (2 if which == "untied" else 1)
        assert not [name for name in saved if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
        reader = decode.reader(now.model)
        ids = now.ask("Who are you? <|domain|>")
        with torch.no_grad():
            whole = now.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        assert torch.allclose(reader.logits(ids), whole, atol=1e-2)
        # Switched off it is the base, which reads what it is asked as it always did.
        ids = now.ask("Who are you? <|domain|>", base=True)
        assert not set(new) & set(ids)
        plain = build.base_model(model, made.model, msgspec.structs.replace(made.settings, added_tokens=()))
        with torch.no_grad(), now.model.disable_adapter():
            found, own = now.model(input_ids=torch.tensor([ids])).logits, plain(torch.tensor([ids])).logits
        assert torch.allclose(found[..., :old], own[..., :old], atol=1e-3)


def test_a_row_begins_as_the_mean_of_those_before(untied_model: Path, added: Make) -> None:
    made = added("begun", untied_model, method="full")
    grown = build.base_model(untied_model, made.model, made.settings)
    base = load_tensors(untied_model / "model.safetensors")
    old = tokens.load(untied_model).vocabulary
    for part, known in (
        (grown.get_input_embeddings(), "model.embed_tokens"),
        (grown.get_output_embeddings(), "lm_head"),
    ):
        before = base[f"{known}.weight"]
        assert len(part.weight) == len(before)  # there were rows to spare
        assert torch.allclose(part.weight[old : old + 2], before[:old].mean(0).expand(2, -1))
        assert torch.equal(part.weight[:old], before[:old]) and torch.equal(part.weight[old + 2 :], before[old + 2 :])


def test_stopped_and_resumed_it_is_the_same_with_positions_of_llama_3_1(added: Make, train: Train) -> None:
    made = added("whole", rope="llama3", max_length=1024, epochs=3.0, dropout=0.1, save_every=3)
    straight = train(made)
    made = added("halves", rope="llama3", max_length=1024, epochs=3.0, dropout=0.1, save_every=3)
    halves = train(made, stop=4)
    assert 0 < len(steps(halves)) < 9
    assert bits(train(made, run=halves)) == bits(straight)
    saved = load_tensors(next(halves.checkpoints.glob("step-*")) / "adapter_model.safetensors")
    assert not [name for name in saved if name.endswith("embed_tokens.weight")]


def test_every_export_answers_like_the_run(added: Make, train: Train, untied_model: Path, tmp_path: Path) -> None:
    import gguf

    for made in (added("adapter"), added("own", untied_model, method="full", learning_rate=1e-2)):
        run = train(made)
        kinds = ("merged", "gguf", "adapter") if made.settings.adapts else ("merged", "gguf")
        for kind in kinds:
            export.run(Session(run), {"kind": kind, "to": str(tmp_path / made.name / kind)})
        read = gguf.GGUFReader(next((tmp_path / made.name / "gguf").glob("*.gguf")))
        words = read.fields["tokenizer.ggml.tokens"].contents()
        types = read.fields["tokenizer.ggml.token_type"].contents()
        numbers = [words.index(word) for word in WORDS]
        assert [types[number] for number in numbers] == [gguf.TokenType.USER_DEFINED] * 2
        (matrix,) = [tensor for tensor in read.tensors if tensor.name == "token_embd.weight"]
        assert len(words) == matrix.shape[1] == len(types)
        now = Session(run)
        now.model, tokenizer = (
            build.kind(build.config(tmp_path / made.name / "merged", made.model, made.settings)).from_pretrained(
                tmp_path / made.name / "merged"
            ),
            build.tokenizer(tmp_path / made.name / "merged"),
        )
        assert answers(now).startswith("<yes>")
        assert tokenizer("<yes>")["input_ids"] == [numbers[0]]
        assert tokenizer.decode(numbers, skip_special_tokens=True) == "<yes><|domain|>"  # a person sees them
    folder = tmp_path / "adapter" / "adapter"
    assert "Tokens of its own: `<yes>`, `<|domain|>`. The base has no rows" in (folder / "README.md").read_text()
    now = Session(run)
    now.model = AutoPeftModelForCausalLM.from_pretrained(folder)  # as the card says
    assert answers(now).startswith("<yes>")


PAIRS = [{"prompt": row["prompt"], "chosen": "<yes> I am.", "rejected": "I am Congyu."} for row in ROWS]
LATER: dict[str, tuple[Stage, list[dict[str, Any]], dict[str, Any]]] = {
    "dpo": ("dpo", PAIRS, {"beta": 0.1, "loss": "sigmoid"}),
    "reward": ("reward", PAIRS, {}),
    "grpo": (
        "grpo",
        [{"prompt": row["prompt"]} for row in ROWS],
        {"beta": 0.05, "loss": "dapo", "generations": 4, "answer_length": 6, "temperature": 2.0},
    ),
    "ppo": ("ppo", [{"prompt": row["prompt"]} for row in ROWS], {"beta": 0.05, "answer_length": 6, "temperature": 2.0}),
}


@pytest.mark.parametrize("name", LATER)
def test_a_later_stage_goes_on_with_the_rows(added: Make, train: Train, tmp_path: Path, name: str) -> None:
    first = train(added("first", epochs=1.0))
    stage, rows, changes = LATER[name]
    start = None if stage == "reward" else str(first.adapter)
    made = added("then", epochs=1.0, micro_batch=4, adapter=start, **changes)
    made.stage, made.reward, made.probe = stage, "regex:o" if stage in ("grpo", "ppo") else None, ""
    path = tmp_path / "later.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made.data.source = str(path)
    run = train(made)
    told = steps(run)
    assert told and all(np.isfinite(step.loss) for step in told)
    if stage in ("dpo", "grpo"):  # at the first step the model is its own reference, new rows and all
        assert told[0].loss == pytest.approx(np.log(2) if stage == "dpo" else 0.0, abs=1e-3)
    saved = [load_tensors(one.adapter / "adapter_model.safetensors") for one in (first, run)]
    (row,) = [key for key in saved[1] if "trainable_tokens" in key]
    assert float((saved[0][row] - saved[1][row]).abs().max()) > 1e-4
