"""The list of what a layer keeps, held against what torch keeps for the backward pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.models import facts as model_facts
from engine.models import kept
from engine.recipe import Model
from engine.worker import build
from tests.engine.settings import settings

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, INNER, LAYERS, VOCABULARY = 6, 2, 32, 150, 448, 4, 64
ROWS, LENGTH = 3, 96


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A gated block with grouped heads, and one without a gate; all their sizes differ."""
    from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig

    shape = {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
    }
    made = {
        "llama": LlamaConfig(**shape, head_dim=HEAD_DIM),
        "phi": PhiConfig(**{**shape, "hidden_size": 192}),
    }
    folders = {}
    for name, config in made.items():
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[name])
        (folders[name] / "tokenizer.json").write_text(json.dumps({}))
    return folders


def held_by_functions(node: Any) -> Iterator[torch.Tensor]:
    """What autograd functions hold as attributes, which no hook sees (bitsandbytes' 8-bit product: `ctx.A`)."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(held := getattr(node, "A", None), torch.Tensor):
            yield held
        waiting += [following for following, _ in node.next_functions]


def measured(folder: Path, **changes: Any) -> float:
    """Bytes a token and layer that a forward pass keeps in fact, weights and their copies left out."""
    chosen = settings(max_length=LENGTH, **changes)
    model = build.trained(build.base_model(folder, Model(source=str(folder)), chosen), chosen).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    shapes = {tuple(p.shape) for p in model.parameters()} | {tuple(p.shape)[::-1] for p in model.parameters()}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no address is given out twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if chosen.dora and tensor.ndim == 2 and len(tensor) != ids.numel():
            return tensor  # of the matrices' norms, which are taken out of the graph at once
        if storage.data_ptr() not in own and tuple(tensor.shape) not in shapes:
            found[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    ids = torch.randint(0, VOCABULARY, (chosen.micro_batch, LENGTH))
    mask = torch.ones_like(ids)
    mask[1:, LENGTH // 2 :] = 0
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == "bf16"):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits
    for tensor in held_by_functions(logits.grad_fn):
        keep(tensor)
    return sum(found.values()) / ids.numel() / LAYERS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 1},
        {"dropout": 0.05},
        {"targets": "attention"},
        {"targets": "attention", "dropout": 0.05},
        {"attention": "eager"},
        {"method": "full"},
        {"method": "freeze", "trained_layers": LAYERS},
        {"method": "galore"},
        # Checkpointing, which is not done here, lets gradients into the first layer; else it keeps little below its adapter.
        {"method": "bottleneck", "gradient_checkpointing": True},
        {"method": "bottleneck", "gradient_checkpointing": True, "precision": "bf16"},
        {"method": "ia3", "gradient_checkpointing": True},
        {"method": "ia3", "gradient_checkpointing": True, "precision": "bf16"},
        {"method": "prompt", "virtual_tokens": 1},
        {"method": "prefix", "virtual_tokens": 1, "precision": "bf16"},
        {"dora": True},
        {"dora": True, "precision": "bf16"},
        {"init": "pissa"},
        {"method": "qlora"},
        {"method": "qlora", "bits": 8, "dropout": 0.05},
        {"precision": "bf16"},
        {"precision": "bf16", "dropout": 0.05},
        {"precision": "bf16", "method": "full"},
        {"precision": "bf16", "method": "freeze", "trained_layers": LAYERS},
        {"precision": "bf16", "method": "qlora"},
        {"precision": "bf16", "attention": "eager"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())) or "lora",
)
def test_a_layer_keeps_what_is_listed(models: dict[str, Path], changes: dict[str, Any]) -> None:
    chosen = {"micro_batch": ROWS, **changes}
    expected = kept.layer(model_facts.read(models["llama"]), settings(**chosen), LENGTH, "cpu")
    # The embedding and the last norm keep a little, the first layer's dropout keeps a little less.
    assert expected == pytest.approx(measured(models["llama"], **chosen), rel=0.08)


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": 0.05}, {"method": "full"}, {"precision": "bf16", "method": "qlora"}]
)
def test_another_block_keeps_no_more_than_is_listed(models: dict[str, Path], changes: dict[str, Any]) -> None:
    """Phi has one norm a layer, no gate, and attention beside the feed-forward block instead of before it."""
    chosen = {"micro_batch": ROWS, **changes}
    expected = kept.layer(model_facts.read(models["phi"]), settings(**chosen), LENGTH, "cpu")
    found = measured(models["phi"], **chosen)
    assert 0.98 * found < expected < 1.25 * found
