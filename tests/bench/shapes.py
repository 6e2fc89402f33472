"""Models of real shapes with random weights: what they say is nothing, how long they take is what the real ones take.

The numbers are those of the Qwen3 models' published configurations.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "layers": 2, "heads": 4, "keys": 2, "size": 16, "tied": True},
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "layers": 28, "heads": 16, "keys": 8, "tied": True},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "layers": 28, "heads": 16, "keys": 8, "tied": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "layers": 36, "heads": 32, "keys": 8, "tied": False},
}
VOCABULARY = 151_936


def config(name: str) -> Any:
    """The transformers configuration of the shape `name`."""
    from transformers import Qwen3Config

    one = SHAPES[name]
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=one["hidden_size"],
        intermediate_size=one["intermediate_size"],
        num_hidden_layers=one["layers"],
        num_attention_heads=one["heads"],
        num_key_value_heads=one["keys"],
        head_dim=one.get("size", 128),
        tie_word_embeddings=one["tied"],
        max_position_embeddings=40_960,
    )


def build(name: str, words: Path, folder: Path) -> Path:
    """A model folder of the shape `name` in bf16, with the tokenizer of the model folder `words`; weights of seed 0."""
    import torch
    from transformers import AutoModelForCausalLM

    known = config(name)
    for key, value in json.loads((words / "config.json").read_text()).items():
        if key.endswith("_token_id"):
            setattr(known, key, value)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        made = AutoModelForCausalLM.from_config(known, dtype=torch.bfloat16)
    made.save_pretrained(folder)
    for path in words.iterdir():
        if path.suffix in (".json", ".jinja", ".txt") and not path.name.startswith(("config", "model", "generation")):
            shutil.copy(path, folder)
    return folder
