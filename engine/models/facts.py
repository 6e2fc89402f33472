"""What a model is, read from config.json, the tokenizer's files and the headers of its weights; no weight is loaded.

Parameters are summed from the safetensors headers, which is exact for every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.errors import Exit, FtuiError
from engine.models import shape as shapes
from engine.models import special_tokens, weights
from engine.models.files import json_object
from engine.models.shape import Shape
from engine.models.weights import Tensor

# Families whose positions are rotary though their config may not say so.
_ROTARY = ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3")
_DEFAULT_CONTEXT = 1024  # where a config names none: the Phi-2 QLoRA tutorial's choice
_TURNED = ("gpt2", "openai-gpt")
ATTENTION_WORDS = ("attn", "attention")


class Linear(Struct, frozen=True):
    """`count` weight matrices of one shape that an adapter can sit on. `inputs` x `outputs` features."""

    name: str
    inputs: int
    outputs: int
    count: int
    attention: bool


class ModelFacts(Struct, frozen=True):
    """Sizes in features, layers, heads or tokens.

    parameters        all of them, tied ones once
    context           tokens the model can look back on
    dtype             what the weights are stored in ("bfloat16")
    eos, pad          the tokens themselves, None where the tokenizer names none
    linears           the matrices inside the layers, which adapters sit on and 4-bit loading packs
    layer_parameters  all parameters inside the layers; of an encoder-decoder those of both sides
    rope              how rotary positions are stretched already ("default": not at all); None where there are none
    shape             what it does with a text
    added, grown      tokens that a run adds to the vocabulary, and for how many of them the matrices get rows beyond the
                      `vocabulary` that they have; `parameters` counts these, too
    gaps              tokens that can stand for a gap in a text: 1 for a mask token, else how many sentinels there are
    windowed          whether some layers look back on a window of tokens only
    """

    folder: str
    name: str
    architecture: str
    model_type: str
    parameters: int
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
    shape: Shape = "causal"
    gaps: int = 0
    windowed: bool = False
    added: int = 0
    grown: int = 0

    def with_added(self, numbers: Sequence[int]) -> ModelFacts:
        """The same model with tokens of these ids added."""
        grown = max(0, max(numbers, default=-1) + 1 - self.vocabulary)
        parameters = self.parameters + (grown - self.grown) * self.features_of_a_token
        return msgspec.structs.replace(self, added=len(numbers), grown=grown, parameters=parameters)

    @property
    def features_of_a_token(self) -> int:
        """Parameters of one token: a row of the embedding, and of the head where that is another matrix."""
        return self.hidden * (1 if self.tied else 2)

    @property
    def linear_parameters(self) -> int:
        """Parameters in the layers' matrices: what 4-bit loading packs. Embeddings and norms stay as they are."""
        return sum(linear.inputs * linear.outputs * linear.count for linear in self.linears)


def read(folder: Path) -> ModelFacts:
    """The facts of the model in `folder`.

    Raises FtuiError: MODEL_MISSING (no folder, no or broken config.json), MODEL_NO_WEIGHTS (no complete safetensors
    weights), MODEL_UNSUPPORTED (not a plain model of text).
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
    sizes = _Sizes.of(config, str(folder))
    tensors = weights.tensors(folder, masked=sizes.shape == "masked")
    linears = _linears_in(tensors, sizes.layers, turned=sizes.model_type in _TURNED)
    tied = not any(weights.is_head(tensor.name) for tensor in tensors)
    # A tied head is stored once by rights; where a checkpoint keeps a copy all the same, the config says so.
    if not tied and config.get("tie_word_embeddings", sizes.shape != "causal") is True:
        tied = True
        tensors = [tensor for tensor in tensors if not weights.is_head(tensor.name)]
    eos, pad, template = special_tokens.ends(folder, config)
    return sizes.facts(
        folder=str(folder),
        name=folder.name,
        parameters=sum(tensor.size for tensor in tensors),
        tied=tied,
        dtype=weights.main_dtype(tensors),
        linears=linears,
        layer_parameters=sum(tensor.size for tensor in tensors if _layer(tensor.name, sizes.layers) is not None),
        rope=_rope(config),
        eos=eos,
        pad=pad,
        template=template,
        has_tokenizer=any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")),
        gaps=special_tokens.gaps(folder, sizes.shape),
    )


class _Sizes(Struct):
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
    shape: Shape
    windowed: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> _Sizes:
        """Read and check. Raises FtuiError(MODEL_UNSUPPORTED | MODEL_MISSING) with the reason."""
        shapes.check(config, where)
        shape = shapes.of(config)

        def known(*names: str) -> int | None:
            for name in names:
                value = config.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31:
                    return value
            return None

        def number(*names: str, default: int | None = None) -> int:
            found = known(*names)
            if found is not None:
                return found
            if default is None:
                raise FtuiError(
                    Exit.MODEL_MISSING, f"config.json names no usable {names[0]}", where, "get the model's files again"
                )
            return default

        hidden = number("hidden_size", "n_embd", "d_model", "dim")
        heads = number("num_attention_heads", "n_head", "n_heads", "num_heads")
        layers = number("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        if shape == "seq2seq":
            layers += number("num_decoder_layers", default=layers)
        positions = known("max_position_embeddings", "n_positions", "max_sequence_length")
        return cls(
            architecture=shapes.architecture(config),
            model_type=str(config.get("model_type") or ""),
            hidden=hidden,
            intermediate=number("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim", default=4 * hidden),
            layers=layers,
            heads=heads,
            kv_heads=number("num_key_value_heads", "num_kv_heads", default=heads),
            head_dim=number("head_dim", "d_kv", default=max(1, hidden // heads)),
            vocabulary=number("vocab_size"),
            context=shapes.context(config, positions) or _DEFAULT_CONTEXT,
            shape=shape,
            windowed=windowed(config),
        )

    def facts(
        self,
        *,
        folder: str,
        name: str,
        parameters: int,
        tied: bool,
        dtype: str,
        linears: list[Linear],
        layer_parameters: int,
        rope: str | None,
        eos: str | None = None,
        pad: str | None = None,
        template: bool = False,
        has_tokenizer: bool = True,
        gaps: int = 0,
    ) -> ModelFacts:
        return ModelFacts(
            folder=folder,
            name=name,
            architecture=self.architecture,
            model_type=self.model_type,
            parameters=parameters,
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
            shape=self.shape,
            gaps=gaps,
            windowed=self.windowed,
        )


def _linears_in(tensors: list[Tensor], layers: int, *, turned: bool) -> list[Linear]:
    """The matrices inside the layers: two-dimensional weights whose name holds a layer number.

    turned  they are stored with their inputs first
    """
    groups: dict[tuple[str, int, int], int] = {}
    for tensor in tensors:
        parts, at = tensor.name.split("."), _layer(tensor.name, layers)
        if len(tensor.shape) != 2 or at is None or parts[-1] != "weight" or parts[-2] == "relative_attention_bias":
            continue
        outputs, inputs = reversed(tensor.shape) if turned else tensor.shape
        key = (".".join(parts[at + 1 : -1]), inputs, outputs)
        groups[key] = groups.get(key, 0) + 1
    return [
        Linear(name, inputs, outputs, count, any(word in name.lower() for word in ATTENTION_WORDS))
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
    rotary = config.get("model_type") in _ROTARY or any(
        key in config for key in ("rope_theta", "partial_rotary_factor", "rotary_pct", "rotary_emb_base")
    )
    return "default" if rotary else None


def windowed(config: Mapping[str, Any]) -> bool:
    """Whether some layers look back on a window of tokens only."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return any(kind != "full_attention" for kind in kinds)
    return bool(config.get("sliding_window")) and config.get("use_sliding_window", True) is not False


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
