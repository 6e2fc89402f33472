"""A GGUF file for llama.cpp and what is built on it, and reading it back through transformers.

The names of tensors are gguf-py's own table. What llama.cpp wants changed in the weights themselves is little:

    llama, mistral   rows of q and k reordered: the two halves of each head's rotation are interleaved
    gemma            norms written as 1 + weight, which is how they multiply
    all              a tied output matrix is left out; vectors stay in fp32, matrices are f16 or q8_0

Only architectures that transformers reads back are written, since an export counts once it was loaded back and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.errors import Exit, FtuiError
from engine.worker import build
from engine.worker.exports.vocabulary import Vocabulary

Format = Literal["f16", "q8_0"]
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
_BLOCK = 32  # weights that share a scale in q8_0
_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
# Gemma's largest models divide attention by hidden/heads; llama.cpp tells them by their number of layers.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3_text": 62}
_GEMMA_PATTERN = {"gemma2": 2, "gemma3_text": 6}  # every such layer sees everything, the others a window


def refuse(config: Any) -> None:
    """FtuiError(EXPORT_FAILED) with the reason where a model of this config cannot be written; nothing is loaded."""
    reason = _reason(config)
    if reason:
        raise FtuiError(
            Exit.EXPORT_FAILED, f"no GGUF of this model: {reason}", config.model_type, "export it merged instead"
        )


def _reason(config: Any) -> str:
    family = config.model_type
    if family not in ARCHITECTURES:
        known = ", ".join(name.removesuffix("_text") for name in ARCHITECTURES)
        return f"the architecture {family} is not one of those written here ({known})"
    gemma = family.startswith("gemma")
    act = getattr(config, "hidden_activation", None) if gemma else config.hidden_act
    if act != ("gelu_pytorch_tanh" if gemma else "silu"):
        return f"its activation is {act}, which llama.cpp does not compute for {family}"
    for name, rope in _ropes(config).items():
        kind = rope.get("rope_type", "default")
        # llama.cpp takes the factors of llama3 for llama's build alone; elsewhere their tensor is one too many.
        own = ("yarn", "llama3") if family in ("llama", "mistral") else () if gemma else ("yarn",)
        if kind not in ("default", "linear", *own):
            return f"its positions are scaled by {kind}, which is not written for {family}"
        if name == "sliding_attention" and (kind != "default" or rope["rope_theta"] != 10_000.0):
            return "llama.cpp computes the positions of its windowed layers another way"
    if gemma:
        wide = config.hidden_size // config.num_attention_heads
        big = config.num_hidden_layers == _GEMMA_27B_LAYERS[family]
        if config.query_pre_attn_scalar != (wide if big else config.head_dim):
            return "it scales attention in a way that llama.cpp does not know for this number of layers"
        every = _GEMMA_PATTERN[family]
        pattern = [
            "sliding_attention" if (number + 1) % every else "full_attention"
            for number in range(config.num_hidden_layers)
        ]
        if list(config.layer_types) != pattern:
            return f"its windowed layers do not come in llama.cpp's order (every {every}th sees everything)"
    if getattr(config, "attention_bias", False) and family not in ("llama", "mistral"):
        return f"llama.cpp knows no biases in the attention of {family}"
    if getattr(config, "use_sliding_window", False):
        return "its attention has a window, which llama.cpp does not compute for it"
    return ""


def _ropes(config: Any) -> dict[str, dict[str, Any]]:
    """Kind of layer -> its rotary parameters; "" for all layers alike."""
    found = config.rope_parameters
    if any(isinstance(value, dict) for value in found.values()):
        return {name: value for name, value in found.items() if isinstance(value, dict)}
    return {"": found}


def size(weights: int, form: Format) -> int:
    """Bytes of a file of so many weights: 16 bits each, or 34 bytes for a block of 32 with its scale."""
    return weights * 2 if form == "f16" else weights * 34 // _BLOCK


def write(
    model: Any,
    vocabulary: Vocabulary,
    path: Path,
    form: Format,
    about: dict[str, str],
    step: Callable[[int, int], None],
) -> None:
    """Write the merged `model` to `path`, one tensor in memory at a time.

    about  values for `general.*` (name, license, …) and `chat_template`
    step   told of (bytes written, bytes in all); it may raise to end the writing
    """
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    try:
        _metadata(writer, config, form, about)
        _tokenizer(writer, vocabulary, about.get("chat_template", ""))
        plan = list(_plan(model, arch, form))
        for name, tensor, kind in plan:
            shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind) if kind == Kind.Q8_0 else tuple(tensor.shape)
            dtype = np.dtype({Kind.F32: np.float32, Kind.F16: np.float16}.get(kind, np.uint8))
            writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        whole = sum(_bytes(tensor.numel(), kind) for _, tensor, kind in plan)
        done = 0
        for name, tensor, kind in plan:
            writer.write_tensor_data(_values(name, tensor, kind, config))
            done += _bytes(tensor.numel(), kind)
            step(done, whole)
    finally:
        writer.close()


def _bytes(weights: int, kind: Kind) -> int:
    return weights * 4 if kind == Kind.F32 else size(weights, "q8_0" if kind == Kind.Q8_0 else "f16")


def _plan(model: Any, arch: gguf.MODEL_ARCH, form: Format) -> Iterator[tuple[str, torch.Tensor, Kind]]:
    """Each tensor of the file: its name there, its values here, and how it is stored."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    factors = _rope_factors(config)
    if factors is not None:
        yield "rope_freqs.weight", factors, Kind.F32
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, end = name.rpartition(".")
        known = names.get_name(stem)
        if known is None or end not in ("weight", "bias"):
            raise FtuiError(Exit.EXPORT_FAILED, "no GGUF of this model: llama.cpp has no place for a tensor", name)
        kind = Kind.F16 if form == "f16" or tensor.shape[-1] % _BLOCK else Kind.Q8_0
        yield f"{known}.{end}", tensor, Kind.F32 if tensor.ndim == 1 else kind


def _values(name: str, tensor: torch.Tensor, kind: Kind, config: Any) -> np.ndarray:
    values: np.ndarray = tensor.detach().to("cpu", torch.float32).numpy()
    if config.model_type in ("llama", "mistral"):
        if ".attn_q." in name:
            values = _interleaved(values, config.num_attention_heads)
        elif ".attn_k." in name:
            values = _interleaved(values, config.num_key_value_heads)
    elif config.model_type.startswith("gemma") and "norm" in name:
        values = values + 1
    if kind == Kind.F16:
        half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise FtuiError(
                Exit.EXPORT_FAILED, "a weight is too large for f16 (above 65504)", name, "export it as q8_0, or merged"
            )
        return half
    return gguf.quantize(np.ascontiguousarray(values), kind) if kind == Kind.Q8_0 else values


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (first half, second half) to pairs: transformers rotates halves, llama.cpp neighbours."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _rope_factors(config: Any) -> torch.Tensor | None:
    """What llama3 scaling divides each frequency by, [head_dim / 2]; None for other kinds of positions."""
    rope = _ropes(config).get("", {})
    if rope.get("rope_type") != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    pairs = torch.arange(0, len(scaled) * 2, 2, dtype=torch.float32) / (len(scaled) * 2)
    return 1.0 / rope["rope_theta"] ** pairs / scaled


def _metadata(writer: gguf.GGUFWriter, config: Any, form: Format, about: dict[str, str]) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about["name"])
    if about.get("license"):
        writer.add_license(about["license"])
    writer.add_file_type(_FILE_TYPES[form])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    ropes = _ropes(config)
    rope = ropes.get("", ropes.get("full_attention", {}))
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    _rope_scaling(writer, rope)
    window = getattr(config, "sliding_window", None)
    if window and config.model_type in ("phi3", "gemma2", "gemma3_text"):
        writer.add_sliding_window(window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _context(config: Any) -> int:
    """Tokens that llama.cpp may look back on: Mistral's window, which it does not compute, changes nothing up to its size."""
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _rope_scaling(writer: gguf.GGUFWriter, rope: dict[str, Any]) -> None:
    """linear and YaRN by their keys; llama3 by its tensor of factors."""
    kind = rope.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))


def _tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary, template: str) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for name in ("bos", "eos", "unk", "pad", "eot"):
        number = getattr(vocabulary, name)
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if template:
        writer.add_chat_template(template)


# What transformers reads from a file's metadata, under its own names; the rest of a config it leaves at defaults.
_READ_BACK = (
    "max_position_embeddings",
    "num_hidden_layers",
    "intermediate_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
    "eos_token_id",
)


def load(path: Path, config: Any, dtype: torch.dtype, eos: int | None) -> Any:
    """The file as transformers reads it, its tensors unpacked into `dtype`.

    The file's own metadata must say what `config` says; what transformers does not read from it (scaled positions,
    windows) comes from `config`. Raises FtuiError(EXPORT_FAILED).
    """
    told = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    for name in _READ_BACK:
        wanted = eos if name == "eos_token_id" else getattr(config, name)
        if name == "max_position_embeddings":
            wanted = _context(config)
        if getattr(told, name) != wanted:
            cause = f"the file says {name} {getattr(told, name)}, the model {wanted}"
            raise FtuiError(Exit.EXPORT_FAILED, cause, str(path))
    if config.model_type == "mistral":  # one architecture in GGUF
        config = LlamaConfig(**{k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")})
    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        config=config,
        dtype=dtype,
        device_map={"": build.device()},
        trust_remote_code=False,
    ).eval()
