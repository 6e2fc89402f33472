"""What cannot be trained as set, told from the model's facts and the machine before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from engine.hardware import Hardware
from engine.models import added_tokens, shape
from engine.models.facts import ModelFacts
from engine.models.trainable import feed_forward, scaled_by_ia3
from engine.recipe import ADDING, LOW_RANK, PACKED, RL, VIRTUAL, Method, Settings, Stage

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
        *_targets(facts, settings),
        *_low_rank(facts, settings),
        *_scaled(facts, settings),
        *_virtual(facts, settings, stage),
        *_noise(settings, stage),
        *_added(facts, settings),
        *_attention(settings, hardware),
        *_positions(facts, settings),
        *_packs(facts, settings, stage),
    ]


def padded(
    facts: ModelFacts | None, method: Method, attention: str, neftune: float | None, unpadded: bool
) -> tuple[str, str]:
    """(why rows are computed with padding, the way out): then they cannot be put together. Empty where they are not.

    A model can still be of a kind that is not known here, which the worker finds out (engine/worker/unpadded.py).
    """
    if facts is not None and facts.shape != "causal":
        return "this model does not go on with a text", "leave packing out"
    if facts is not None and facts.windowed:
        return "layers of this model look back on a window only", "leave packing out"
    if method in VIRTUAL:
        return f"{method} tuning puts tokens of its own before each row", "leave packing out, or take method lora"
    if attention != "sdpa":
        return f"attention {attention} knows no rows", "leave packing out, or take attention sdpa"
    if neftune is not None:
        return "neftune's noise goes by the padded length", "leave one of the two out"
    if not unpadded:
        return "unpadded is off", "turn it on, or leave packing out"
    return "", ""


def unpadded(facts: ModelFacts | None, settings: Settings) -> bool:
    """Whether rows are computed end to end, as far as `padded` knows."""
    return not padded(facts, settings.method, settings.attention, settings.neftune, settings.unpadded)[0]


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


def _targets(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if (
        settings.method in LOW_RANK
        and settings.targets == "attention"
        and not any(one.attention for one in facts.linears)
    ):
        yield f"the attention of {facts.model_type} has no name that is known here: take targets all-linear"


def _layers(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.method == "freeze" and settings.trained_layers > facts.layers:
        yield (
            f"the model has {facts.layers} layers, {settings.trained_layers} cannot be trained: lower trained_layers, "
            "or take method full"
        )


def _feed_forward(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.method == "bottleneck" and not feed_forward(linear.name for linear in facts.linears):
        yield f"the feed-forward part of {facts.model_type} has no name that bottleneck adapters know: take method lora"


def _low_rank(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    """What only LoRA has, and what of it does not go together."""
    set_ = {
        "rslora": settings.rslora,
        "dora": settings.dora,
        "init pissa": settings.init == "pissa",
        "lora_plus": settings.lora_plus is not None,
    }
    if settings.method not in LOW_RANK:
        for name in (name for name, on in set_.items() if on):
            yield f"{name} is a setting of LoRA, and {settings.method} tuning has none: leave it out, or take method lora"
        return
    if settings.dora and settings.method == "qlora" and settings.bits == 8:
        # peft 0.21 with bitsandbytes 0.50 on a processor: the second step finds no scales to unpack with.
        yield "dora unpacks each matrix at each step, which fails with 8 bit: take bits 4, or leave dora out"
    if settings.init != "pissa":
        return
    if settings.method == "qlora":
        yield "init pissa takes matrices apart, and those of qlora are packed: take method lora, or init default"
    if settings.dora:
        yield "init pissa and dora both start from the sizes of the matrices: take one of the two"
    least = min((min(linear.inputs, linear.outputs) for linear in facts.linears), default=settings.rank)
    if settings.rank > least:
        yield (
            f"init pissa takes the {settings.rank} largest components of each matrix, and the smallest has {least}: "
            f"take a rank of {least} at most, or init default"
        )


def _scaled(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    if settings.method == "ia3" and not any(scaled_by_ia3(linear.name for linear in facts.linears)):
        yield f"the keys, values and features of {facts.model_type} have names that IA3 does not know: take method lora"


def _virtual(facts: ModelFacts, settings: Settings, stage: Stage) -> Iterator[str]:
    """Of learned tokens ahead of the text."""
    if settings.method not in VIRTUAL:
        return
    if stage == "reward":
        yield (
            f"a reward model reads its score off the last token, which is not found behind {settings.method} tuning's tokens: "
            "take method lora"
        )
    elif stage in ("grpo", "rloo"):  # PPO says it itself
        yield (
            f"{stage} fills up short prompts on the left, between the tokens of {settings.method} tuning and the text: "
            "take method lora"
        )
    if settings.method == "prefix" and settings.gradient_checkpointing:
        yield (
            "prefix tuning hands each layer keys and values, which gradient checkpointing would lose: turn it off, or take "
            "method prompt"
        )
    if settings.rope == "none" and facts.context - settings.virtual_tokens < settings.max_length <= facts.context:
        yield (
            f"{settings.max_length:,} tokens and {settings.virtual_tokens} virtual ones are more than the {facts.context:,} that "
            "the model can read: lower max_length or virtual_tokens"
        )


def _noise(settings: Settings, stage: Stage) -> Iterator[str]:
    if settings.neftune is None:
        return
    if stage in RL:
        yield f"{stage} learns from answers that the model draws, which neftune's noise would spoil: leave it out"
    if settings.method in VIRTUAL:
        yield f"neftune's noise goes with the text, not with the tokens that {settings.method} tuning learns: leave it out"


def _added(facts: ModelFacts, settings: Settings) -> Iterator[str]:
    """Of tokens that are added to the vocabulary."""
    if not settings.added_tokens:
        return
    yield from added_tokens.wrong(settings.added_tokens)
    if facts.shape != "causal":
        yield "added_tokens are for models that go on with a text, and this one fills gaps: leave them out"
    elif settings.method not in ADDING:
        yield (
            f"{settings.method} tuning leaves the embedding as it is, so that added_tokens would never learn: take method "
            "lora or full"
        )
    elif settings.method == "freeze" and settings.weight_decay:
        yield (
            "freeze tuning with added_tokens leaves the rows of all other tokens as they are, which weight_decay would "
            "shrink: take weight_decay 0"
        )


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


def _packs(facts: ModelFacts, settings: Settings, stage: Stage) -> Iterator[str]:
    if not settings.packing:
        return
    if stage not in PACKED:
        yield f"packing is for SFT and pre-training, {stage} learns from rows one by one: leave it out"
        return
    why, way = padded(facts, settings.method, settings.attention, settings.neftune, settings.unpadded)
    if why:
        yield f"packing needs rows that are computed without padding, and {why}: {way}"


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
