from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Exit, FtuiError
from engine.models import facts
from engine.models.trainable import scaled_by_ia3, trainable
from tests.engine.models import known
from tests.engine.settings import settings


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (known.QWEN3_06B, 596_049_920),
        (known.LLAMA_8B, 8_030_261_248),
        (known.SMOLLM2_135M, 134_515_008),
        (known.MISTRAL_7B, 7_241_732_096),
        (known.QWEN2_05B, 494_032_768),
        (known.GEMMA_2B, 2_506_172_416),
    ],
)
def test_parameters_are_the_published_ones(config: dict[str, Any], parameters: int) -> None:
    assert known.published(config).parameters == parameters


def test_reads_a_real_folder(tiny_model: Path) -> None:
    found = facts.read(tiny_model)
    by_shapes = known.published(json.loads((tiny_model / "config.json").read_text()))
    assert found.parameters == by_shapes.parameters
    assert found.linear_parameters == by_shapes.linear_parameters
    assert (found.layers, found.heads, found.kv_heads, found.head_dim) == (2, 4, 2, 16)
    assert (found.tied, found.dtype, found.context) == (True, "float32", 512)
    assert (found.eos, found.pad, found.has_template, found.has_tokenizer) == (
        "<|im_end|>",
        "<|endoftext|>",
        True,
        True,
    )


def test_gpt2_is_counted_without_its_masks_and_tied(tmp_path: Path) -> None:
    found = facts.read(known.write_model(tmp_path / "gpt2", known.GPT2, known.gpt2_weights()))
    assert found.parameters == 124_439_808
    assert (found.tied, found.intermediate, found.head_dim, found.context) == (True, 3072, 64, 1024)
    assert trainable(found, settings(rank=8)) == 8 * 12 * (768 + 2304 + 768 + 768 + 2 * (768 + 3072))
    assert trainable(found, settings(rank=8, targets="attention")) == 8 * 12 * (768 + 2304 + 768 + 768)


def test_shards_count_like_one_file(tmp_path: Path) -> None:
    whole = facts.read(known.write_model(tmp_path / "whole", known.PHI2, known.phi2_weights()))
    parts = facts.read(known.write_model(tmp_path / "parts", known.PHI2, known.phi2_weights(), shards=3))
    assert whole.parameters == parts.parameters == 2_779_683_840
    assert whole.linear_parameters == parts.linear_parameters == 32 * (4 * 2560 * 2560 + 2 * 2560 * 10240)
    assert not parts.tied


def test_a_stored_copy_of_a_tied_head_counts_once(tmp_path: Path) -> None:
    config = {**known.SMOLLM2_135M, "num_hidden_layers": 1}
    shapes = {"model.embed_tokens.weight": (49152, 576), "lm_head.weight": (49152, 576)}
    found = facts.read(known.write_model(tmp_path / "copy", config, shapes))
    assert found.tied
    assert found.parameters == 49152 * 576


def test_trainable(tmp_path: Path) -> None:
    smol = known.published(known.SMOLLM2_135M)
    # What PEFT prints for rank 8 on all linear layers of this model.
    assert trainable(smol, settings(rank=8)) == 2_442_240
    assert trainable(smol, settings(method="full")) == smol.parameters
    # A layer: 2 (h a + h k) + 3 h i + 2 h with h 576, a 576, k 192, i 1536.
    layer = 2 * (576 * 576 + 576 * 192) + 3 * 576 * 1536 + 2 * 576
    assert trainable(smol, settings(method="freeze", trained_layers=2)) == 2 * layer
    assert trainable(smol, settings(method="freeze", trained_layers=99)) == 30 * layer
    phi = facts.read(known.write_model(tmp_path / "phi", known.PHI2, known.phi2_weights()))
    attention, mlp = 4 * (2560 * 2560 + 2560), 2 * 2560 * 10240 + 2560 + 10240
    assert trainable(phi, settings(method="freeze", trained_layers=1)) == attention + mlp + 2 * 2560
    # What peft itself counts is in tests/engine/worker/test_adapters.py; here against the papers' formulas.
    assert trainable(smol, settings(method="ia3")) == 30 * (192 + 192 + 1536)
    assert trainable(smol, settings(method="prompt", virtual_tokens=10)) == 10 * 576
    assert trainable(smol, settings(method="prefix", virtual_tokens=10)) == 10 * 30 * 2 * 3 * 64
    magnitudes = 30 * (576 + 192 + 192 + 576 + 1536 + 1536 + 576)
    assert trainable(smol, settings(rank=8, dora=True)) == 2_442_240 + magnitudes


def test_what_ia3_scales_is_known_by_name() -> None:
    assert scaled_by_ia3(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]) == (["c_attn"], ["mlp.c_proj"])
    assert scaled_by_ia3(["attention.query_key_value", "mlp.dense_4h_to_h"]) == (["query_key_value"], ["dense_4h_to_h"])
    assert scaled_by_ia3(["mixer.in_proj", "mixer.down_proj"]) == ([], [])


@pytest.mark.parametrize(
    ("config", "rope"),
    [
        ({}, "default"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "default"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_scaling": None}, "default"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "per layer"),
    ],
)
def test_how_positions_are_stretched_already(config: dict[str, Any], rope: str) -> None:
    assert known.published({**known.LLAMA_8B, **config}).rope == rope


def test_learned_positions_are_not_rotary(tmp_path: Path) -> None:
    assert facts.read(known.write_model(tmp_path / "gpt2", known.GPT2, known.gpt2_weights())).rope is None


def refusal(folder: Path) -> FtuiError:
    with pytest.raises(FtuiError) as caught:
        facts.read(folder)
    assert 1 <= len(caught.value.lines()) <= 3
    assert caught.value.next_step
    return caught.value


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").code == Exit.MODEL_MISSING


def test_folder_without_config(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == Exit.MODEL_MISSING


def test_adapter_folder_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    error = refusal(tmp_path)
    assert "adapter" in error.cause
    assert "some/base" in error.next_step


@pytest.mark.parametrize(
    "text",
    ["{", '"words"', "[" * 100_000, "", '{"hidden_size": "\xff"', "\x00"],
    ids=["open", "string", "deep", "empty", "latin-1", "nul"],
)
def test_broken_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    error = refusal(tmp_path)
    assert error.code == Exit.MODEL_MISSING
    assert "config.json" in error.where


@pytest.mark.parametrize("value", [None, -1, 0, "64", True, 1 << 40, [64]])
def test_sizes_that_are_none(tmp_path: Path, value: object) -> None:
    config = {**known.SMOLLM2_135M, "hidden_size": value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    error = refusal(tmp_path)
    assert error.code == Exit.MODEL_MISSING
    assert "hidden_size" in error.cause


def test_config_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(known.SMOLLM2_135M))
    error = refusal(tmp_path)
    assert error.code == Exit.MODEL_NO_WEIGHTS
    assert "model.safetensors" in error.where


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(known.SMOLLM2_135M))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    error = refusal(tmp_path)
    assert error.code == Exit.MODEL_NO_WEIGHTS
    assert "any code" in error.cause


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "m", known.GPT2, known.gpt2_weights(), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    error = refusal(folder)
    assert error.code == Exit.MODEL_NO_WEIGHTS
    assert "1 of 3" in error.cause
    assert "model-00002-of-00003.safetensors" in error.cause


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", "..\\x.safetensors"]
)
def test_an_index_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    folder = known.write_model(tmp_path / "m", known.GPT2, known.gpt2_weights(), shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    assert refusal(folder).code == Exit.MODEL_NO_WEIGHTS


def test_damaged_weights(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "m", known.GPT2, known.gpt2_weights())
    path = folder / "model.safetensors"
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 1)
    assert "cut off" in refusal(folder).cause
    for raw in (
        b"",
        b"\x05",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b"{}\xff",
        (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[-1],"data_o',
    ):
        path.write_bytes(raw)
        assert refusal(folder).code == Exit.MODEL_NO_WEIGHTS
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    error = refusal(folder)
    assert "LFS" in error.cause
    assert error.next_step == "git lfs pull"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"vision_config": {}}, "images"),
        ({"num_local_experts": 8}, "experts"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"architectures": ["LlamaModel"]}, "LlamaModel"),
        ({"architectures": ["ElectraForMaskedLM"], "model_type": "electra"}, "bert, roberta"),
        ({"is_encoder_decoder": True, "model_type": "bart"}, "t5, mt5, umt5 only, not bart"),
        ({"is_encoder_decoder": True, "model_type": "t5", "architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
    ],
)
def test_other_kinds_of_models_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**known.SMOLLM2_135M, **change}))
    error = refusal(tmp_path)
    assert error.code == Exit.MODEL_UNSUPPORTED
    assert word in error.cause


def test_a_model_without_tokenizer_is_told(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "m", known.GPT2, known.gpt2_weights())
    (folder / "tokenizer.json").unlink()
    found = facts.read(folder)
    assert (found.has_tokenizer, found.eos, found.pad, found.has_template) == (False, None, None, False)


def test_end_token_from_wherever_it_is_kept(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "m", {**known.GPT2, "eos_token_id": [7, 9]}, known.gpt2_weights())
    (folder / "tokenizer.json").write_text(json.dumps({"model": {}, "added_tokens": [{"id": 7, "content": "<end>"}]}))
    assert facts.read(folder).eos == "<end>"
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<special>"}}))
    assert facts.read(folder).eos == "<special>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<configured>", "chat_template": "{{ 1 }}"}))
    assert (facts.read(folder).eos, facts.read(folder).has_template) == ("<configured>", True)
