"""What a forward pass keeps for the backward pass, in bytes a token and layer: counted, not fitted.

Listed as autograd keeps it for a block like Llama's (two norms, attention, gated feed-forward); a test holds the list
against what torch really keeps. h hidden, i intermediate, a = heads x head_dim, k = kv_heads x head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models.facts import Linear, ModelFacts
from engine.models.trainable import ia3_parts
from engine.recipe import VIRTUAL, Settings


def layer(facts: ModelFacts, settings: Settings, length: int, device: str) -> float:
    """Bytes a token of one trained layer, checkpointing aside.

    length  tokens of the longest row: rows shorter than it in the same micro-batch need a mask
    """
    return sum(tensors(facts, settings, length, device))


def tensors(facts: ModelFacts, settings: Settings, length: int, device: str) -> Iterator[float]:
    """Bytes a token of each tensor that one trained layer keeps."""
    number = 4 if settings.precision == "fp32" else 2
    if facts.shape != "causal":
        yield from _with_gaps(facts, settings, length, device, number)
        return
    yield from _norms(facts, settings, number)
    yield from _attention(facts, settings, length, number)
    # A gate, its activation and what they are multiplied with; without a gate (GPT-2, Phi) the parts of a tanh GELU.
    yield from [number * facts.intermediate] * (3 if _gated(facts) else 4)
    yield from _inputs(facts, settings, number, device)


def _with_gaps(facts: ModelFacts, settings: Settings, length: int, device: str, number: int) -> Iterator[float]:
    """Of a layer of BERT's or T5's, whose own dropout keeps masks: counted with torch on a processor in fp32, all weights
    learning, where dropout in attention makes torch write the probabilities out. A decoder's layers count as its encoder's do,
    which is more than they take: they see a fifth of the tokens. Elsewhere it is an estimate by the same list.
    """
    seq2seq = facts.shape == "seq2seq"
    yield from [4 * facts.hidden] * 2  # what the norms read
    yield from [number * facts.hidden] * (10 if seq2seq else 8)
    # T5 writes a gated GELU out in seven steps; without a gate its block is as BERT's, and drops what is between.
    yield from [number * facts.intermediate] * ((8 if _gated(facts) else 3) if seq2seq else 3 if _gated(facts) else 2)
    fused = device == "cuda" and settings.attention != "eager"
    # T5's positions are added to each score, and so are kept even where attention is one kernel.
    yield from [number * facts.heads * length] * (int(seq2seq) if fused else 3)
    if settings.adapts:
        yield from _inputs(facts, settings, number, device)


def _norms(facts: ModelFacts, settings: Settings, number: int) -> Iterator[float]:
    """Both norms compute in fp32 on their input; where their weights learn, what they are multiplied with stays too."""
    yield from [4 * facts.hidden] * 2
    if not settings.adapts:
        # In mixed precision full tuning runs the residual stream in fp32, freeze tuning has it in 16 bit from below.
        yield from [(number if settings.method == "freeze" else 4) * facts.hidden] * 2


def _attention(facts: ModelFacts, settings: Settings, length: int, number: int) -> Iterator[float]:
    """Query, key, value and output; the mask of padded rows, or with eager attention the probabilities."""
    a, k = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    padded = settings.micro_batch > 1 or settings.packing
    eager = settings.attention == "eager"
    yield from [number * a] * 2
    # With a mask or in packs, and in eager attention, keys and values are repeated for every query head.
    yield from [number * (a if padded or eager else k)] * 2
    if eager:
        yield 4 * facts.heads * length
        if number == 2:
            yield 2 * facts.heads * length
    elif padded and settings.attention == "sdpa" and not settings.packing:
        yield number * length


def _inputs(facts: ModelFacts, settings: Settings, number: int, device: str) -> Iterator[float]:
    """The inputs of the matrices that learn, or that an adapter sits on."""
    if not settings.adapts:
        for linear in _different(facts.linears) if number == 4 else _but_output(facts):
            yield number * linear.inputs
        return
    if settings.method == "bottleneck":
        yield number * facts.hidden  # what the feed-forward part gives
        yield number * settings.rank  # behind the ReLU, which keeps what it gives
        return
    if settings.method == "ia3":
        keys, features = ia3_parts(facts)
        # What a learned factor is multiplied with, in fp32 as the factor is.
        yield from [4 * linear.outputs for linear in keys]
        yield from [4 * linear.inputs for linear in features]
        return
    if settings.method in VIRTUAL:
        return
    adapted = [linear for linear in facts.linears if linear.attention or settings.targets == "all-linear"]
    fused = in_one_step(settings)
    for linear in adapted:
        yield number * settings.rank
        if settings.dora:
            yield from [number * linear.outputs] * 2  # what the base and the adapter give, each to be scaled
        if fused:
            if settings.dropout > 0:
                yield linear.inputs  # what was dropped: a byte (engine/worker/fused_lora.py)
        elif settings.dropout > 0:
            # The input after dropout, one for each matrix, and what was dropped: a byte on a GPU, a number in fp32 else.
            yield (number + (1 if device == "cuda" else 4)) * linear.inputs
        elif number == 2:
            yield number * linear.inputs  # each adapter makes a copy of its own on the way from fp32 to 16 bit
    if number == 4 and (fused or settings.dropout == 0):
        for linear in _different(adapted):
            yield number * linear.inputs
    elif settings.method == "qlora" and settings.bits == 8:
        for linear in _different(facts.linears):  # bitsandbytes holds on to what it was given (MatMul8bit's ctx.A)
            yield number * linear.inputs


def in_one_step(settings: Settings) -> bool:
    """Whether a matrix and its adapter are one product (engine/worker/fused_lora.py)."""
    return settings.fused_lora and settings.method == "lora" and settings.precision == "fp32" and not settings.dora


def _different(linears: list[Linear]) -> list[Linear]:
    """One of the matrices that share an input: query, key and value do, gate and up do; attention keeps its output."""
    found: dict[tuple[bool, int], Linear] = {}
    for linear in linears:
        if not _is_output(linear):
            found.setdefault((linear.attention, linear.inputs), linear)
    return list(found.values())


def _but_output(facts: ModelFacts) -> list[Linear]:
    """In mixed precision every matrix casts its input for itself, but attention's output is in 16 bit already, and so
    is the product that the last matrix of the feed-forward block reads: kept once."""
    return [linear for linear in facts.linears if not _is_output(linear)]


def _is_output(linear: Linear) -> bool:
    """Whether the matrix reads attention's output, which attention itself keeps."""
    return linear.attention and linear.name.rsplit(".", 1)[-1] in ("o_proj", "dense", "out_proj", "c_proj")


def _gated(facts: ModelFacts) -> bool:
    """Whether the feed-forward block has three matrices' worth of weights (gate, up, down) or two."""
    inner = sum(linear.inputs * linear.outputs * linear.count for linear in facts.linears if not linear.attention)
    return inner > 2.5 * facts.hidden * facts.intermediate * facts.layers
