"""What a model is, read from config.json, the tokenizer's files and the headers of its weights; no weight is loaded.

Parameters are summed from the safetensors headers, which is exact for every architecture. Where the weights are not
here yet, `from_config` counts them by formula for the families that are built like Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.errors import Exit, FtuiError
from engine.models import weights
from engine.models.files import JSON_LIMIT, json_object
from engine.models.weights import Tensor
from engine.recipe import Settings

# Families that share Llama's block: (attention has biases on q, k, v; norms on q and k; tied when config is silent).
_LLAMA_LIKE: dict[str, tuple[bool, bool, bool]] = {
    "llama": (False, False, False),
    "mistral": (False, False, False),
    "qwen2": (True, False, False),
    "qwen3": (False, True, False),
    "gemma": (False, False, True),
    "smollm3": (False, False, True),
}
_DEFAULT_CONTEXT = 1024  # where a config names none: the Phi-2 QLoRA tutorial's choice
_ATTENTION_WORDS = ("attn", "attention")


class Linear(Struct, frozen=True):
    """`count` weight matrices of one shape that an adapter can sit on. `inputs` x `outputs` features."""

    name: str
    inputs: int
    outputs: int
    count: int
    attention: bool


class ModelFacts(Struct, frozen=True):
    """Sizes in features, layers, heads or tokens.

    parameters        all of them, tied ones once; `parameters_exact` tells counting from a formula
    context           tokens the model can look back on
    dtype             what the weights are stored in ("bfloat16")
    eos, pad          the tokens themselves, None where the tokenizer names none
    linears           the matrices inside the layers, which adapters sit on and 4-bit loading packs
    layer_parameters  all parameters inside the layers
    rope              how rotary positions are stretched already ("default": not at all); None where there are none
    """

    folder: str
    name: str
    architecture: str
    model_type: str
    parameters: int
    parameters_exact: bool
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    context: int
    dtype: str
    has_template: bool
    eos: str | None
    pad: str | None
    has_tokenizer: bool = True
    linears: list[Linear] = field(default_factory=list)
    layer_parameters: int = 0
    rope: str | None = None

    @property
    def linear_parameters(self) -> int:
        """Parameters in the layers' matrices: what 4-bit loading packs. Embeddings and norms stay as they are."""
        return sum(linear.inputs * linear.outputs * linear.count for linear in self.linears)


def read(folder: Path) -> ModelFacts:
    """The facts of the model in `folder`.

    Raises FtuiError: MODEL_MISSING (no folder, no or broken config.json), MODEL_NO_WEIGHTS (no complete safetensors
    weights), MODEL_UNSUPPORTED (not a plain text-generating model).
    """
    if not folder.is_dir():
        raise FtuiError(
            Exit.MODEL_MISSING,
            "there is no such model folder",
            str(folder),
            "pick another, or take the starter: starter",
        )
    config = json_object(folder / "config.json")
    if config is None:
        raise _no_config(folder)
    shape = _Shape.of(config, str(folder))
    tensors = weights.tensors(folder)
    linears = _linears_in(tensors, shape.layers)
    tied = not any(weights.is_head(tensor.name) for tensor in tensors)
    # A tied head is stored once by rights; where a checkpoint keeps a copy all the same, the config says so.
    if not tied and config.get("tie_word_embeddings") is True:
        tied = True
        tensors = [tensor for tensor in tensors if not weights.is_head(tensor.name)]
    eos, pad, template = _tokenizer(folder, config)
    return shape.facts(
        folder=str(folder),
        name=folder.name,
        parameters=sum(tensor.size for tensor in tensors),
        exact=True,
        tied=tied,
        dtype=weights.main_dtype(tensors),
        linears=linears,
        layer_parameters=sum(tensor.size for tensor in tensors if _layer(tensor.name, shape.layers) is not None),
        rope=_rope(config),
        eos=eos,
        pad=pad,
        template=template,
        has_tokenizer=any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")),
    )


def from_config(config: Mapping[str, Any], name: str = "") -> ModelFacts:
    """The facts that a config alone gives, for a model whose weights are not here. Families built like Llama only.

    Parameters: L(2ha + 2hk + 3hi + 2h [+ 2 head_dim with norms on q and k] [+ biases]) + h + Vh, twice Vh when the
    head is not tied; h hidden, i intermediate, a = heads x head_dim, k = kv_heads x head_dim.
    Raises FtuiError(MODEL_UNSUPPORTED) for other families: their weights have to be counted.
    """
    shape = _Shape.of(config, name)
    if shape.model_type not in _LLAMA_LIKE:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            f"the size of a {shape.model_type or 'nameless'} model cannot be told from its config alone",
            name,
            "get its weights first",
        )
    bias, query_norm, tied_default = _LLAMA_LIKE[shape.model_type]
    tied = bool(config.get("tie_word_embeddings", tied_default))
    h, i, layers = shape.hidden, shape.intermediate, shape.layers
    a, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = 2 * h * a + 2 * h * k + 3 * h * i + 2 * h
    if query_norm:
        layer += 2 * shape.head_dim
    if bias:
        layer += a + 2 * k
    elif config.get("attention_bias"):
        layer += a + 2 * k + h
    if config.get("mlp_bias"):
        layer += 2 * i + h
    total = layers * layer + h + shape.vocabulary * h * (1 if tied else 2)
    linears = [
        Linear("q_proj", h, a, layers, True),
        Linear("k_proj", h, k, layers, True),
        Linear("v_proj", h, k, layers, True),
        Linear("o_proj", a, h, layers, True),
        Linear("gate_proj", h, i, layers, False),
        Linear("up_proj", h, i, layers, False),
        Linear("down_proj", i, h, layers, False),
    ]
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return shape.facts(
        folder="",
        name=name,
        parameters=total,
        exact=False,
        tied=tied,
        dtype=dtype,
        linears=linears,
        layer_parameters=layers * layer,
        rope=_rope(config),
    )


def trainable(facts: ModelFacts, settings: Settings) -> int:
    """Parameters that learn: all of them for full tuning, those of the last `trained_layers` layers for freeze tuning,
    else rank x (inputs + outputs) of each targeted matrix."""
    if settings.method == "full":
        return facts.parameters
    if settings.method == "freeze":
        return facts.layer_parameters * min(settings.trained_layers, facts.layers) // facts.layers
    return sum(
        settings.rank * (linear.inputs + linear.outputs) * linear.count
        for linear in facts.linears
        if linear.attention or settings.targets == "all-linear"
    )


class _Shape(Struct):
    """The numbers that a config names, under whichever of their names."""

    architecture: str
    model_type: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> _Shape:
        """Read and check. Raises FtuiError(MODEL_UNSUPPORTED | MODEL_MISSING) with the reason."""
        architectures = config.get("architectures")
        architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
        model_type = str(config.get("model_type") or "")
        _refuse_other_kinds(config, architecture, where)

        def number(*names: str, default: int | None = None) -> int:
            for name in names:
                value = config.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31:
                    return value
            if default is None:
                raise FtuiError(
                    Exit.MODEL_MISSING, f"config.json names no usable {names[0]}", where, "get the model's files again"
                )
            return default

        hidden = number("hidden_size", "n_embd", "d_model")
        heads = number("num_attention_heads", "n_head", "n_heads")
        return cls(
            architecture=architecture,
            model_type=model_type,
            hidden=hidden,
            intermediate=number("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden),
            layers=number("num_hidden_layers", "n_layer", "n_layers"),
            heads=heads,
            kv_heads=number("num_key_value_heads", "num_kv_heads", default=heads),
            head_dim=number("head_dim", default=max(1, hidden // heads)),
            vocabulary=number("vocab_size"),
            context=number("max_position_embeddings", "n_positions", "max_sequence_length", default=_DEFAULT_CONTEXT),
        )

    def facts(
        self,
        *,
        folder: str,
        name: str,
        parameters: int,
        exact: bool,
        tied: bool,
        dtype: str,
        linears: list[Linear],
        layer_parameters: int,
        rope: str | None,
        eos: str | None = None,
        pad: str | None = None,
        template: bool = False,
        has_tokenizer: bool = True,
    ) -> ModelFacts:
        return ModelFacts(
            folder=folder,
            name=name,
            architecture=self.architecture,
            model_type=self.model_type,
            parameters=parameters,
            parameters_exact=exact,
            hidden=self.hidden,
            intermediate=self.intermediate,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocabulary=self.vocabulary,
            tied=tied,
            context=self.context,
            dtype=dtype,
            has_template=template,
            eos=eos,
            pad=pad,
            has_tokenizer=has_tokenizer,
            linears=linears,
            layer_parameters=layer_parameters,
            rope=rope,
        )


def _refuse_other_kinds(config: Mapping[str, Any], architecture: str, where: str) -> None:
    """Raise FtuiError(MODEL_UNSUPPORTED) for what cannot be tuned here as a text model."""
    reason = ""
    quantized = config.get("quantization_config")
    if config.get("is_encoder_decoder"):
        reason = "it is an encoder-decoder model; ftui tunes decoders that continue a text"
    elif any(key in config for key in ("vision_config", "audio_config", "text_config")):
        reason = "it is a model of text with images or sound; ftui tunes text models"
    elif any(config.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        reason = "it is a mixture of experts, which ftui does not tune yet"
    elif isinstance(quantized, Mapping):
        reason = (
            f"its weights are packed already ({quantized.get('quant_method', 'quantised')}), so they cannot be tuned"
        )
    elif architecture and not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        reason = f"{architecture} is not a model that continues a text"
    if reason:
        step = (
            "take the original weights; QLoRA packs them itself"
            if isinstance(quantized, Mapping)
            else "take another model"
        )
        raise FtuiError(Exit.MODEL_UNSUPPORTED, f"this model cannot be tuned: {reason}", where, step)


def _linears_in(tensors: list[Tensor], layers: int) -> list[Linear]:
    """The matrices inside the layers: two-dimensional weights whose name holds a layer number."""
    groups: dict[tuple[str, int, int], int] = {}
    for tensor in tensors:
        parts, at = tensor.name.split("."), _layer(tensor.name, layers)
        if len(tensor.shape) != 2 or at is None or parts[-1] != "weight":
            continue
        outputs, inputs = tensor.shape
        key = (".".join(parts[at + 1 : -1]), inputs, outputs)
        groups[key] = groups.get(key, 0) + 1
    return [
        Linear(name, inputs, outputs, count, any(word in name for word in _ATTENTION_WORDS))
        for (name, inputs, outputs), count in groups.items()
    ]


def _layer(name: str, layers: int) -> int | None:
    """Which part of a tensor's dotted name is the number of one of the layers; None for tensors outside of them."""
    parts = name.split(".")
    at = next((position for position, part in enumerate(parts) if part.isdecimal()), None)
    return at if at is not None and int(parts[at]) < layers else None


def _rope(config: Mapping[str, Any]) -> str | None:
    """The kind of rotary positions, under the names of transformers 5 and of those before it."""
    for key in ("rope_parameters", "rope_scaling"):
        given = config.get(key)
        if isinstance(given, Mapping) and given:
            if any(isinstance(value, Mapping) for value in given.values()):
                return "per layer"
            return str(given.get("rope_type") or given.get("type") or "default")
    rotary = config.get("model_type") in _LLAMA_LIKE or any(
        key in config for key in ("rope_theta", "partial_rotary_factor", "rotary_pct", "rotary_emb_base")
    )
    return "default" if rotary else None


def _no_config(folder: Path) -> FtuiError:
    adapter = json_object(folder / "adapter_config.json")
    if adapter is not None:
        base = str(adapter.get("base_model_name_or_path") or "its base model")
        return FtuiError(
            Exit.MODEL_MISSING,
            "this folder holds an adapter, not a model",
            str(folder),
            f"pick {base}, and give this as the adapter",
        )
    packed = sorted(path.name for path in folder.glob("*.gguf"))
    if packed:
        return FtuiError(
            Exit.MODEL_MISSING,
            "this folder has no config.json",
            str(folder),
            f"pick the file in it: {folder / packed[0]}",
        )
    return FtuiError(
        Exit.MODEL_MISSING,
        "this folder has no config.json, so it is no model",
        str(folder),
        "pick the folder that holds one",
    )


class _AddedToken(Struct):
    id: int
    content: str


class _TokenizerFile(Struct):
    """The one part of tokenizer.json that is needed here; the rest is skipped while parsing."""

    added_tokens: list[_AddedToken] = field(default_factory=list)


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None, bool]:
    """(end token, pad token, has a chat template), each from wherever this model keeps it."""
    settings = json_object(folder / "tokenizer_config.json") or {}
    special = json_object(folder / "special_tokens_map.json") or {}
    template = bool(settings.get("chat_template")) or any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")
    )
    added: dict[int, str] | None = None
    found: list[str | None] = []
    for key in ("eos_token", "pad_token"):
        token = settings.get(key) or special.get(key)
        if isinstance(token, Mapping):  # an AddedToken written out
            token = token.get("content")
        number = config.get(f"{key}_id")
        if isinstance(number, list):  # several ways to end; the first is the one that training teaches
            number = number[0] if number else None
        if not isinstance(token, str) and isinstance(number, int):
            if added is None:
                added = _added_tokens(folder / "tokenizer.json")
            token = added.get(number)
        found.append(token if isinstance(token, str) else None)
    return found[0], found[1], template


def _added_tokens(path: Path) -> dict[int, str]:
    try:
        with path.open("rb") as file:
            parsed = msgspec.json.decode(file.read(JSON_LIMIT), type=_TokenizerFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # the tokenizer itself will say what is wrong with its file, when it is loaded
    return {token.id: token.content for token in parsed.added_tokens}
