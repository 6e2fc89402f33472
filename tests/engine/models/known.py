"""Published models by their configs, for tests that need no weights."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from engine.models import facts
from engine.models.facts import ModelFacts


def _llama(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        **more,
    }


LLAMA_8B = _llama(4096, 14336, 32, 32, 8, 128256, max_position_embeddings=131072, torch_dtype="bfloat16")
SMOLLM2_135M = _llama(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True, head_dim=64)
MISTRAL_7B = _llama(4096, 14336, 32, 32, 8, 32000, model_type="mistral", architectures=["MistralForCausalLM"])
QWEN2_05B = _llama(896, 4864, 24, 14, 2, 151936, model_type="qwen2", tie_word_embeddings=True)
QWEN3_06B = _llama(1024, 3072, 28, 16, 8, 151936, model_type="qwen3", head_dim=128, tie_word_embeddings=True)
GEMMA_2B = _llama(2048, 16384, 18, 8, 1, 256000, model_type="gemma", head_dim=256)

# Peaks of allocated memory, GiB, that torchtune publishes for its recipes of Llama-3.1-8B on one RTX 4090, with these settings.
TORCHTUNE = {"lora": 16.2, "qlora": 7.4}
TORCHTUNE_SETTINGS: dict[str, Any] = {
    "precision": "bf16",
    "micro_batch": 2,
    "max_length": 2048,
    "gradient_checkpointing": True,
    "optimizer": "adamw_torch_fused",
}

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
PHI2 = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 51200,
    "max_position_embeddings": 2048,
}

Shapes = dict[str, tuple[int, ...]]


def gpt2_weights() -> Shapes:
    """GPT-2's tensors as its hub repository stores them, with the causal masks that are no parameters."""
    shapes: Shapes = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    for layer in range(12):
        for name, shape in {
            "attn.bias": (1, 1, 1024, 1024),
            "attn.c_attn.weight": (768, 2304),
            "attn.c_attn.bias": (2304,),
            "attn.c_proj.weight": (768, 768),
            "attn.c_proj.bias": (768,),
            "mlp.c_fc.weight": (768, 3072),
            "mlp.c_fc.bias": (3072,),
            "mlp.c_proj.weight": (3072, 768),
            "mlp.c_proj.bias": (768,),
            "ln_1.weight": (768,),
            "ln_1.bias": (768,),
            "ln_2.weight": (768,),
            "ln_2.bias": (768,),
        }.items():
            shapes[f"h.{layer}.{name}"] = shape
    return shapes


def phi2_weights() -> Shapes:
    shapes: Shapes = {
        "model.embed_tokens.weight": (51200, 2560),
        "model.final_layernorm.weight": (2560,),
        "model.final_layernorm.bias": (2560,),
        "lm_head.weight": (51200, 2560),
        "lm_head.bias": (51200,),
    }
    for layer in range(32):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            shapes[f"{prefix}.self_attn.{name}.weight"] = (2560, 2560)
            shapes[f"{prefix}.self_attn.{name}.bias"] = (2560,)
        shapes |= {
            f"{prefix}.mlp.fc1.weight": (10240, 2560),
            f"{prefix}.mlp.fc1.bias": (10240,),
            f"{prefix}.mlp.fc2.weight": (2560, 10240),
            f"{prefix}.mlp.fc2.bias": (2560,),
            f"{prefix}.input_layernorm.weight": (2560,),
            f"{prefix}.input_layernorm.bias": (2560,),
        }
    return shapes


def llama_weights(config: dict[str, Any]) -> Shapes:
    """The tensors of a model that is built like Llama: Qwen2 has biases on q, k and v, Qwen3 norms on q and k."""
    h, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim", h // config["num_attention_heads"])
    a, k = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    if not config.get("tie_word_embeddings", config["model_type"] == "gemma"):
        shapes["lm_head.weight"] = (v, h)
    matrices = {"q_proj": (a, h), "k_proj": (k, h), "v_proj": (k, h), "o_proj": (h, a)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, shape in matrices.items():
            shapes[f"{prefix}.self_attn.{name}.weight"] = shape
            if config["model_type"] == "qwen2" and name != "o_proj":
                shapes[f"{prefix}.self_attn.{name}.bias"] = shape[:1]
        if config["model_type"] == "qwen3":
            shapes |= {f"{prefix}.self_attn.{name}.weight": (size,) for name in ("q_norm", "k_norm")}
        for name, shape in {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}.items():
            shapes[f"{prefix}.mlp.{name}.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (h,)
    return shapes


def published(config: dict[str, Any]) -> ModelFacts:
    """The facts of a model that is built like Llama, read from headers as its weights have them."""
    with tempfile.TemporaryDirectory(prefix="ftui-known-") as place:
        return facts.read(write_model(Path(place) / "model", config, llama_weights(config)))


def write_model(folder: Path, config: dict[str, Any], shapes: Shapes, *, shards: int = 1) -> Path:
    """A model folder whose weights have true headers and empty (sparse) bodies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    names = list(shapes)
    if shards == 1:
        write_weights(folder / "model.safetensors", shapes)
        return folder
    placed: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: shapes[name] for name in names[shard::shards]}
        write_weights(folder / file, part)
        placed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def write_weights(path: Path, shapes: Shapes, dtype: str = "BF16") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        count = 2
        for dimension in shape:
            count *= dimension
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
