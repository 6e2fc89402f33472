"""How much memory a run takes, from the model's sizes alone. Arithmetic, no measurement; a probe step may correct it.

In the formulas: h hidden, i intermediate, L layers, V vocabulary, a = heads x head_dim, k = kv_heads x head_dim,
N parameters, T tokens in a micro-batch (rows x longest row). Results in bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from engine.hardware import Hardware
from engine.models.facts import ModelFacts, trainable
from engine.recipe import Method, Settings

GIB = 1024**3

# nf4 with double quantisation: 4 bits, and 0.127 bit for the scales (QLoRA paper, section 3).
_NF4_BYTES = 0.516
# Bytes a trained parameter costs beside itself: its gradient, and Adam's two moments.
_MOMENTS = {"adamw_torch": 2.0, "adamw_torch_fused": 2.0}  # numbers in the parameter's own precision
_MOMENTS_8BIT = 2.0  # bytes
# What a layer keeps for the backward pass, in units of f = 2(6h + 2a + 2k + 4i) bytes a token, by (adapter?, fp32?).
# Measured with saved-tensor hooks on a 135 M Llama-like model without dropout: 2.0, 1.4, 1.8, 1.2.
_KEPT: dict[tuple[bool, bool], float] = {
    (False, True): 2.0,
    (False, False): 1.4,
    (True, True): 1.8,
    (True, False): 1.25,
}
# Dropout before each adapted matrix keeps that matrix's input once more, and a mask: bytes a feature (same measurement).
_DROPOUT_BYTES = {True: 6.0, False: 4.0}
# The loss is computed in tiles of at most this many tokens x vocabulary entries (TRL's fused head).
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32768
_METHODS: tuple[tuple[Method, int, str], ...] = (
    ("full", 0, "full"),
    ("freeze", 0, "freeze"),
    ("lora", 0, "LoRA"),
    ("qlora", 8, "QLoRA 8 bit"),
    ("qlora", 4, "QLoRA 4 bit"),
)
_MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
_CONTEXT = GIB  # the CUDA context, or Python with its libraries
_SLACK = 0.10  # fragmentation, temporary buffers


class Memory(Struct, frozen=True):
    """Bytes, by what they are for.

    weights      the base model
    adapter      the adapter's own weights
    optimizer    gradients and Adam's moments
    activations  what the forward pass keeps for the backward pass; the key-value cache while chatting
    logits       the loss over the vocabulary
    overhead     the device's context and 10 % over all
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(amount for _, amount in self.parts())

    def parts(self) -> list[tuple[str, int]]:
        """(name, bytes) in the order they are drawn in."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__]


class Fit(Struct, frozen=True):
    """What one method takes at one micro-batch. `label` is the method in words; `bits` the base is packed into, or 0."""

    method: Method
    bits: int
    label: str
    micro_batch: int
    memory: Memory
    fits: bool


def table(facts: ModelFacts, settings: Settings, hardware: Hardware, longest: int) -> list[Fit]:
    """Every method at every micro-batch up to 32, the other settings as they are: what fits and what does not.

    longest  tokens of the longest row
    """
    found = []
    for method, bits, label in _METHODS:
        for micro_batch in _MICRO_BATCHES:
            packed = {"bits": bits} if method == "qlora" else {}
            changed = msgspec.structs.replace(settings, method=method, micro_batch=micro_batch, **packed)
            needed = forecast(facts, changed, longest=longest, device=hardware.device)
            found.append(Fit(method, bits, label, micro_batch, needed, needed.total <= hardware.budget))
    return found


def forecast(
    facts: ModelFacts,
    settings: Settings,
    *,
    longest: int,
    device: Literal["cuda", "cpu"],
    phase: Literal["train", "chat"] = "train",
) -> Memory:
    """What `settings` will take of `device`'s memory.

    longest  tokens of the longest row (training), or of the whole conversation (chat)
    """
    weights = _weights(facts, settings)
    trained = trainable(facts, settings)
    size = _trained_bytes(settings, device)
    adapter = 0 if settings.method == "full" else trained * size
    optimizer = activations = logits = 0
    if phase == "train":
        tokens = settings.micro_batch * max(1, min(longest, settings.max_length))
        optimizer = _optimizer(trained, settings, size)
        activations = _activations(facts, settings, tokens)
        logits = _logits(facts, settings, tokens, device)
    else:
        # Keys and values: 2 x L x k numbers a token.
        activations = 2 * facts.layers * facts.kv_heads * facts.head_dim * _compute_bytes(settings) * longest
    known = weights + adapter + optimizer + activations + logits
    overhead = _CONTEXT + _SLACK * (known + _CONTEXT)
    return Memory(weights, adapter, optimizer, activations, logits, int(overhead))


def _compute_bytes(settings: Settings) -> int:
    return 4 if settings.precision == "fp32" else 2


def _weights(facts: ModelFacts, settings: Settings) -> int:
    """The base model: 4 bits for QLoRA's matrices, else the compute precision; full tuning keeps fp32 throughout.

    Embeddings and norms are never packed, so that QLoRA saves little on a small model with a large vocabulary.
    Full tuning in 16 bit also holds 16-bit copies of the matrices, made anew at each step.
    """
    compute = _compute_bytes(settings)
    linear = facts.linear_parameters
    if settings.method == "qlora":
        return int(_NF4_BYTES * linear + compute * (facts.parameters - linear))
    if settings.method == "full":
        return 4 * facts.parameters + (2 * linear if compute == 2 else 0)
    return compute * facts.parameters


def _trained_bytes(settings: Settings, device: str) -> int:
    """Bytes of one trained parameter: adapters are kept in fp32, except that TRL puts QLoRA's into bf16 on a GPU."""
    return 2 if settings.method == "qlora" and settings.precision == "bf16" and device == "cuda" else 4


def _optimizer(trained: int, settings: Settings, size: int) -> int:
    """A gradient and two moments for each trained parameter."""
    moments = _MOMENTS[settings.optimizer] * size if settings.optimizer in _MOMENTS else _MOMENTS_8BIT
    return int(trained * (size + moments))


def _activations(facts: ModelFacts, settings: Settings, tokens: int) -> int:
    """All layers keep theirs, c f L T; with checkpointing each keeps its input and one layer at a time is whole."""
    adapter, fp32 = settings.method != "full", settings.precision == "fp32"
    a, k = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    layer = _KEPT[adapter, fp32] * 2 * (6 * facts.hidden + 2 * a + 2 * k + 4 * facts.intermediate)
    if adapter and settings.dropout > 0:
        adapted = (linear for linear in facts.linears if linear.attention or settings.targets == "all-linear")
        layer += _DROPOUT_BYTES[fp32] * sum(linear.inputs * linear.count for linear in adapted) / facts.layers
    if settings.gradient_checkpointing:
        return int(tokens * (_compute_bytes(settings) * facts.hidden * facts.layers + layer))
    return int(tokens * facts.layers * layer)


def _logits(facts: ModelFacts, settings: Settings, tokens: int, device: str) -> int:
    """One tile of logits, and the last hidden states with their gradient in fp32.

    On a processor the tile counts three times (logits, probabilities, gradient): fitted to one measured run.
    """
    copies = 1 if device == "cuda" else 3
    tile = min(tokens, _TILE_TOKENS) * min(facts.vocabulary, _TILE_VOCABULARY) * _compute_bytes(settings)
    return copies * tile + 6 * facts.hidden * tokens
