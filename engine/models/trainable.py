"""How many parameters learn, by method, from the model's sizes alone. Tests hold the counts against peft's own."""

from __future__ import annotations

from collections.abc import Iterable

from engine.models.facts import Linear, ModelFacts
from engine.recipe import ALL, Settings

# What IA3 scales (its paper, section 3.3), by the names that the families in use give them: keys and values, in one
# matrix with the queries where a family keeps them so; and what reads the features of the feed-forward block.
_KEYS_AND_VALUES = (".k_proj", ".v_proj", ".qkv_proj", ".query_key_value", ".c_attn", ".Wqkv")
_FEATURES = (".down_proj", ".fc2", ".fc_out", ".dense_4h_to_h", ".mlp.c_proj")

FEED_FORWARD = ("mlp", "feed_forward")  # what the families in use call that part of a layer


def trainable(facts: ModelFacts, settings: Settings) -> int:
    """Parameters that learn: the method's own, and the rows of added tokens.

    Adapters train those rows alone. Freeze tuning keeps gradients for the whole matrix, of which the same rows move.
    """
    rows = 0
    if facts.added and settings.method not in ALL:
        rows = facts.vocabulary + facts.grown if settings.method == "freeze" else facts.added
    return _own(facts, settings) + rows * facts.features_of_a_token


def _own(facts: ModelFacts, settings: Settings) -> int:
    """
    LoRA       rank x (inputs + outputs) of each targeted matrix; with DoRA its outputs once more
    IA3        a factor for each key, value and feature
    bottleneck in each layer a matrix down to the rank and one up again, with their biases
    prompt     virtual tokens x hidden
    prefix     virtual tokens x a key and a value in each layer
    """
    match settings.method:
        case "full" | "galore":
            return facts.parameters
        case "freeze":
            return facts.layer_parameters * min(settings.trained_layers, facts.layers) // facts.layers
        case "ia3":
            keys, features = ia3_parts(facts)
            return sum(one.count * one.outputs for one in keys) + sum(one.count * one.inputs for one in features)
        case "bottleneck":
            return facts.layers * (2 * facts.hidden * settings.rank + settings.rank + facts.hidden)
        case "prompt":
            return settings.virtual_tokens * facts.hidden
        case "prefix":
            return settings.virtual_tokens * facts.layers * 2 * facts.kv_heads * facts.head_dim
        case _:
            return sum(
                (settings.rank * (linear.inputs + linear.outputs) + linear.outputs * settings.dora) * linear.count
                for linear in facts.linears
                if linear.attention or settings.targets == "all-linear"
            )


def scaled_by_ia3(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(keys and values, features): those of the names known here that end one of `names`, dotted names of matrices.

    Both are empty where a family's names are not known, which `support` refuses.
    """
    dotted = [f".{name}" for name in names]
    keys, features = (
        [word[1:] for word in known if any(name.endswith(word) for name in dotted)]
        for known in (_KEYS_AND_VALUES, _FEATURES)
    )
    return (keys, features) if keys and features else ([], [])


def ia3_parts(facts: ModelFacts) -> tuple[list[Linear], list[Linear]]:
    """The matrices that IA3 sits on: those whose outputs it scales, and those whose inputs."""
    keys, features = (
        [linear for linear in facts.linears if f".{linear.name}".endswith(known)]
        for known in (_KEYS_AND_VALUES, _FEATURES)
    )
    return (keys, features) if keys and features else ([], [])


def feed_forward(names: Iterable[str]) -> list[str]:
    """What the feed-forward part of a layer is called, by the dotted names of its modules or matrices; else empty.

    Names without a dot are those of families that are built like Llama.
    """
    found = {part for name in names for part in name.split(".")}
    return [word for word in FEED_FORWARD if word in found] or [FEED_FORWARD[0]] * ("gate_proj" in found)
