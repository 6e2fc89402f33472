"""How much memory a run takes, from the model's sizes alone. Arithmetic; docs/forecasts.md holds it against measurements.

In the formulas: h hidden, L layers, V vocabulary, k = kv_heads x head_dim, N parameters, T tokens in a micro-batch
(rows x longest row), c bytes a number in the compute precision. Results in bytes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine.hardware import Device
from engine.models import kept
from engine.models.facts import ModelFacts
from engine.models.trainable import trainable
from engine.recipe import ALL, LOW_RANK, VIRTUAL, Settings, Stage

GIB = 1024**3

Phase = Literal["train", "evaluate", "chat", "load"]

# Bytes a parameter packed by bitsandbytes: 4 bits and a scale for 64 of them, in 32 bits, or packed in turn into 8 with
# a scale for 256 of those (QLoRA paper, section 3); 8 bits and a scale a row, which is too little to count.
_NF4, _NF4_DOUBLE, _INT8 = 0.5 + 4 / 64, 0.5 + (1 + 4 / 256) / 64, 1.0
_MOMENTS = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "paged_adamw_8bit": 2,
}  # bytes a trained parameter, both of Adam's
_STORED = {"float64": 8, "float32": 4}  # bytes a number in the checkpoint; 2 for the rest

# The loss is computed in tiles of at most this many tokens x vocabulary entries (TRL's fused head). A GPU works in the
# tile itself; on a processor TRL computes it step by step, and so many fp32 copies of it live at once beside the tile:
# forwards logits, exponentials, their product and a mask; backwards logits twice, log-probabilities, probabilities,
# gradient, target, difference and a mask.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32768
_TILE_COPIES = {"train": 7.25, "evaluate": 3.25}

# Of the tokens of a text, those that are to be found; T5 writes a sentinel before each span of three, and an end.
_LEFT_OUT = {"masked": 0.15, "seq2seq": 0.21}

# What Python with torch, transformers, trl, peft and datasets holds before a model is loaded (measured, see the docs).
_PROCESS = 590_000_000
# glibc maps larger blocks apart and gives them back at once; smaller ones come from its heap, where what a layer drops
# leaves holes between what stays. Measured, as a part of what is kept: 0.2 to 0.3 in plain layers, and in those with an adapter
# that is a product of its own or none; 0.3 to 0.7 where peft's LoRA computes every output in three parts, whose holes stay
# even where checkpointing keeps only a layer's input. Elsewhere the next layer fills those of the one before.
_MAPPED_APART = 32 * 1024**2
_HOLES, _HOLES_OF_PARTS = 0.25, 0.35

_CONTEXT = GIB  # CUDA's context and its libraries' workspaces
_SLACK = 0.10  # what the caching allocator of a GPU cannot use


class Memory(Struct, frozen=True):
    """Bytes at the moment that takes most, by what they are for.

    weights      the model
    adapter      the adapter's own weights
    optimizer    gradients and Adam's moments
    activations  what the forward pass keeps for the backward pass; the key-value cache while chatting
    logits       the loss over the vocabulary
    overhead     the process on a processor; on a GPU its context and 10 % over all
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


def forecast(
    facts: ModelFacts,
    settings: Settings,
    *,
    longest: int,
    device: Device,
    phase: Phase = "train",
    stage: Stage = "sft",
) -> Memory:
    """What `settings` will take of `device`'s memory at most.

    longest  tokens of the longest row, for pairs of the longer side; of the whole conversation while chatting
    phase    train: the larger of the moment in which the backward pass begins and that of the optimizer's update
             evaluate: a micro-batch forwards, beside what training holds
             chat: the tuned model and the base, which is the same one with its adapter switched off, or a second one
             load: on a processor the stored weights too, which are mapped from their file; the system takes that
             memory back where it is scarce, so that this decides nothing
             with rewards also that in which all answers of a step are drawn. A reward model comes on top, and is not known here
    stage    dpo, reward: every row has two sides. No reference model is held: it reads the rows before the first step
    """
    number = _number(settings)
    weights = _weights(facts, settings)
    adapter = 4 * trainable(facts, settings) if settings.adapts else 0
    if phase == "chat":
        return _chat(facts, settings, longest, device)
    if phase == "load":
        return _whole(device, weights=weights, overhead=_mapped(facts, settings) if device == "cpu" else 0)
    # A pack has max_length tokens, or nearly, however short its rows are.
    longest = settings.max_length if settings.packing else max(1, min(longest, settings.max_length))
    length = _virtual(settings) + longest + (settings.answer_length or 0)
    if settings.generations and settings.beta and not settings.adapts:
        weights += number * facts.parameters  # the reference model, which reads every new answer
    tokens = settings.micro_batch * length * (2 if stage in ("dpo", "reward") else 1)
    adam = moments(facts, settings)
    if phase == "evaluate":
        return _whole(
            device,
            weights=weights,
            adapter=adapter,
            optimizer=adam,
            activations=tokens * _passing(facts, number),
            logits=_logits(facts, settings, tokens, device, "evaluate", stage),
        )
    gradients = 4 * trainable(facts, settings)
    held, lost = _activations(facts, settings, tokens, length, device)
    head = 4 * facts.vocabulary * facts.hidden if settings.method in ALL else 0
    backward = _whole(
        device,
        weights=weights + _casts(facts, settings),
        adapter=adapter,
        # Gradients of the micro-batches before; while a single one is computed there are none yet but the head's.
        optimizer=adam + (gradients if settings.accumulation > 1 else head),
        activations=held,
        logits=_answers(facts, settings)
        if stage == "ppo"
        else _logits(facts, settings, tokens, device, "train", stage),
    )
    update = _whole(
        device,
        weights=weights,
        adapter=adapter,
        optimizer=adam + gradients + _scratch(facts, settings, device),
        activations=max(0, lost - gradients),
    )
    found = [backward, update]
    if settings.answer_length:
        answers = settings.micro_batch * settings.accumulation
        cache = 2 * facts.layers * facts.kv_heads * facts.head_dim * number
        found.append(
            _whole(
                device,
                weights=weights,
                adapter=adapter,
                optimizer=adam,
                activations=answers * (length * cache + _passing(facts, number)),
                logits=answers * (number + 4) * facts.vocabulary,
            )
        )
    return max(found, key=lambda moment: moment.total)


def _whole(device: Device, *, overhead: float = 0.0, **parts: float) -> Memory:
    """The parts and what comes on top of them."""
    known = sum(parts.values())
    overhead += _PROCESS if device == "cpu" else _CONTEXT + _SLACK * (known + _CONTEXT)
    part = {name: int(parts.get(name, 0)) for name in Memory.__struct_fields__}
    return Memory(**{**part, "overhead": int(overhead)})


def _number(settings: Settings) -> int:
    """Bytes of a number in the compute precision."""
    return 4 if settings.precision == "fp32" else 2


def _weights(facts: ModelFacts, settings: Settings) -> float:
    """The base model: packed matrices for QLoRA, what is trained itself in fp32, else the compute precision.

    Embeddings and norms are never packed, so that QLoRA saves little on a small model with a large vocabulary.
    """
    number, linear = _number(settings), facts.linear_parameters
    match settings.method:
        case "qlora":
            packed = _INT8 if settings.bits == 8 else _NF4_DOUBLE if settings.double_quantization else _NF4
            return packed * linear + number * (facts.parameters - linear)
        case "full" | "galore" | "freeze":
            trained = trainable(facts, settings)
            return 4 * trained + number * (facts.parameters - trained)
        case _:
            return number * facts.parameters


def moments(facts: ModelFacts, settings: Settings) -> float:
    """Adam's two of each trained parameter. GaLore has those of a layer's matrix in a space of rank x its longer side,
    with rank x its shorter side for the directions, all in fp32 (GaLore paper, table 1)."""
    if settings.method != "galore":
        return _MOMENTS[settings.optimizer] * trainable(facts, settings)
    small = 0
    for one in facts.linears:
        short, long = sorted((one.inputs, one.outputs))
        if settings.rank < short:
            small += one.count * (2 * short * long - settings.rank * (2 * long + short))
    return 4 * (2 * facts.parameters - small)


def _virtual(settings: Settings) -> int:
    """Tokens of a row that are learned. Those of a prefix have keys and values alone, so that this is a little too much."""
    return settings.virtual_tokens if settings.method in VIRTUAL else 0


def _casts(facts: ModelFacts, settings: Settings) -> float:
    """In mixed precision, 16-bit copies of the matrices that are trained in fp32, made anew for each micro-batch."""
    if settings.adapts or settings.precision == "fp32":
        return 0
    return 2 * facts.linear_parameters * min(1.0, trainable(facts, settings) / facts.layer_parameters)


def _scratch(facts: ModelFacts, settings: Settings, device: Device) -> float:
    """What plain AdamW computes beside the moments: two temporaries, of one parameter at a time on a processor, and of
    all of them in turn on a GPU."""
    if settings.optimizer != "adamw_torch":
        return 0
    if device == "cuda" and settings.method != "galore":  # which updates one matrix after the other
        return 4 * trainable(facts, settings)
    largest = max((linear.inputs * linear.outputs for linear in facts.linears), default=0)
    if settings.adapts:
        largest = settings.rank * max((max(linear.inputs, linear.outputs) for linear in facts.linears), default=0)
    elif settings.method in ALL:
        largest = max(largest, facts.vocabulary * facts.hidden)
    return 2 * 4 * largest


def _activations(
    facts: ModelFacts, settings: Settings, tokens: int, length: int, device: Device
) -> tuple[float, float]:
    """(what is held when the backward pass begins, what of it a processor's heap does not give back afterwards).

    All trained layers keep theirs; with checkpointing each keeps its input, and one layer at a time is whole.
    """
    each = list(kept.tensors(facts, settings, length, device))
    layers = min(settings.trained_layers, facts.layers) if settings.method == "freeze" else facts.layers
    between = (4 if settings.method in ALL else _number(settings)) * facts.hidden  # from layer to layer
    heap = [size for size in each if tokens * size < _MAPPED_APART]
    held, small = layers * sum(each), layers * sum(heap)
    holes = _HOLES_OF_PARTS * small
    if settings.gradient_checkpointing:
        held, small = layers * between + sum(each), layers * between + sum(heap)
    if settings.method not in LOW_RANK or kept.in_one_step(settings):
        holes = _HOLES * small
    # A packed matrix is unpacked for the moment in which it is needed; DoRA adds the adapter to each, for its norm.
    copies = (settings.method == "qlora") + 2 * settings.dora
    unpacked = copies * _number(settings) * max((linear.inputs * linear.outputs for linear in facts.linears), default=0)
    if device == "cuda":
        return tokens * held + unpacked, 0
    return tokens * (held + holes) + unpacked, tokens * (small + holes)


def _passing(facts: ModelFacts, number: int) -> int:
    """Bytes a token of one layer's tensors while nothing is kept: the stream, its norm, and the widest of what follows."""
    a = facts.heads * facts.head_dim
    return number * (2 * facts.hidden + max(4 * a, 3 * facts.intermediate)) + 4 * facts.hidden


def _logits(
    facts: ModelFacts,
    settings: Settings,
    tokens: int,
    device: Device,
    phase: Literal["train", "evaluate"],
    stage: Stage,
) -> float:
    """One tile of logits with its copies; the last hidden states, before and after their norm and as the head takes
    them, and their gradient in fp32.

    A reward model gives one score instead, which is too small to count.
    Where gaps are filled, the logits of what was left out, all at once: in fp32, their logarithms and the gradient.
    """
    number = _number(settings)
    if stage == "reward":
        return tokens * facts.hidden * (3 * number + 4)
    if facts.shape != "causal":
        written = _LEFT_OUT[facts.shape] * tokens * facts.vocabulary
        return written * (8 if number == 4 else 10) + tokens * facts.hidden * (3 * number + 4)
    tile = min(tokens, _TILE_TOKENS) * min(facts.vocabulary, _TILE_VOCABULARY)
    copies = 4 * _TILE_COPIES[phase] if device == "cpu" else 0.0
    return tile * (number + copies) + tokens * facts.hidden * (3 * number + 4)


def _answers(facts: ModelFacts, settings: Settings) -> float:
    """PPO reads the whole distribution of each token of the answers: in fp32 the logits, the gradient of what was drawn,
    the probabilities and their gradient (measured). The value head and the round that is kept are too small to count."""
    return 4 * 4 * settings.micro_batch * (settings.answer_length or 0) * facts.vocabulary


def _chat(facts: ModelFacts, settings: Settings, longest: int, device: Device) -> Memory:
    """Keys and values of every token, 2 L k numbers, beside the model and one layer's passing tensors."""
    number = 4 if settings.method in ALL else _number(settings)
    weights = _weights(facts, settings) if settings.adapts else 2 * number * facts.parameters
    return _whole(
        device,
        weights=weights,
        adapter=4 * trainable(facts, settings) if settings.adapts else 0,
        activations=(_virtual(settings) + longest)
        * (2 * facts.layers * facts.kv_heads * facts.head_dim * number + _passing(facts, number)),
        logits=(number + 4) * facts.vocabulary,
    )


def _mapped(facts: ModelFacts, settings: Settings) -> int:
    """Bytes of the stored weights that are mapped while they are converted or packed."""
    stored = _STORED.get(facts.dtype, 2)
    wanted = 4 if settings.method in ALL else _number(settings)
    return 0 if stored == wanted and settings.method != "qlora" else stored * facts.parameters
