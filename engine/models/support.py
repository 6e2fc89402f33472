"""What cannot be trained as set, told from the model's facts and the machine before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from engine.hardware import Hardware
from engine.models import shape
from engine.models.facts import ModelFacts
from engine.models.trainable import feed_forward
from engine.recipe import Method, Settings, Stage

# What learns in models that do not go on with a text. A prompt or prefix of learned tokens, and what is built for
# decoders only, is not offered for them; an encoder-decoder has two stacks, so that "the last layers" mean nothing.
_METHODS: dict[shape.Shape, tuple[Method, ...]] = {
    "masked": ("lora", "qlora", "freeze", "full"),
    "seq2seq": ("lora", "qlora", "full"),
}


def reasons(facts: ModelFacts, settings: Settings, hardware: Hardware, stage: Stage) -> list[str]:
    """Why `settings` cannot be carried out with this model on this machine, each with its way out; empty if they can."""
    return [
        *_shape(facts, settings, stage),
        *_layers(facts, settings),
        *_feed_forward(facts, settings),
        *_attention(settings, hardware),
        *_positions(facts, settings),
    ]


def _shape(facts: ModelFacts, settings: Settings, stage: Stage) -> Iterator[str]:
    if facts.shape == "causal":
        return
    kind = "fills in masked words" if facts.shape == "masked" else "is an encoder-decoder"
    if stage != "pretraining":
        yield (
            f"{stage} needs a model that goes on with a text, and this one {kind}: take another model, or go on "
            "pre-training it on bare text (stage pretraining)"
        )
    if settings.method not in _METHODS[facts.shape]:
        yield f"{settings.method} does not work here with a model that {kind}: take method lora or full"
    if settings.neftune is not None:
        yield f"neftune is made for tuning on answers, and this model {kind}: turn it off"
    if facts.has_tokenizer and not facts.gaps:
        missing = "mask token" if facts.shape == "masked" else "sentinels (<extra_id_0>, …)"
        yield f"its tokenizer has no {missing} to stand for what is left out: take the tokenizer it was pre-trained with"


def _layers(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.method == "freeze" and settings.trained_layers > facts.layers:
        yield (
            f"the model has {facts.layers} layers, {settings.trained_layers} cannot be trained: lower trained_layers, "
            "or take method full"
        )


def _feed_forward(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.method == "bottleneck" and not feed_forward(linear.name for linear in facts.linears):
        yield f"the feed-forward part of {facts.model_type} has no name that bottleneck adapters know: take method lora"


def _attention(settings: Settings, hardware: Hardware) -> Iterator[str]:
    if settings.attention != "flash_attention_2":
        return
    if hardware.device != "cuda":
        yield "flash_attention_2 needs a GPU: take attention sdpa"
    elif not hardware.bf16:
        yield f"flash_attention_2 needs a card from Ampere on, {hardware.device_name} is older: take attention sdpa"
    elif importlib.util.find_spec("flash_attn") is None:  # found, not imported
        yield "flash_attention_2 needs the package flash-attn, which is not installed: take attention sdpa"
    elif settings.precision == "fp32":
        yield "flash_attention_2 computes in 16 bit only: take precision bf16, or attention sdpa"


def _positions(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.rope == "none" or settings.max_length <= facts.context:
        return
    if facts.rope is None:
        yield f"{facts.model_type} has no rotary positions that rope {settings.rope} could stretch: lower max_length"
    elif facts.rope != "default":
        yield (
            f"this model's positions are stretched already ({facts.rope}), which rope {settings.rope} would undo: "
            "lower max_length"
        )
