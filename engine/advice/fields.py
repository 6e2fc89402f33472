"""Which settings count for a stage and a method, which of them most people look at, and what each is in one line.

A setting that does not count is in neither list: nothing in the run would look at it. Where its default comes from is
told by its advice.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.models.facts import ModelFacts
from engine.models.support import padded, unpadded
from engine.recipe import RL, SETTING_FIELDS, VIRTUAL, Method, Settings, Stage

# One line for each setting, for the stage and for the reward, at most 72 cells.
HELP: dict[str, str] = {
    "stage": "what kind of training it is; the rows say what they are fit for",
    "reward": "what a drawn answer is worth",
    "method": "what learns: an adapter, some of the layers, or all weights",
    "learning_rate": "how far one optimizer step moves the weights, at its highest",
    "epochs": "passes over the rows",
    "micro_batch": "rows, or packs, that go through the model at once; decides the memory",
    "accumulation": "micro-batches whose gradients are added up for one optimizer step",
    "max_length": "tokens of a row at most; longer rows are cut, bare texts divided",
    "rank": "how much is learned: LoRA's rank, a bottleneck's width, GaLore's space",
    "alpha": "weight of the adapter: its output is scaled by alpha / rank",
    "dropout": "share of the adapter's inputs that is left out at random while it trains",
    "targets": "which matrices get an adapter: all linear ones, or attention's alone",
    "precision": "number format that is computed in: fp32, bf16 or fp16",
    "optimizer": "what turns gradients into steps; the paged 8-bit one saves memory",
    "schedule": "how the learning rate falls from its highest until the end",
    "warmup": "share of the optimizer steps in which the learning rate rises",
    "weight_decay": "how strongly weights are pulled towards 0 (AdamW)",
    "max_grad_norm": "longest gradient that is taken whole; a longer one is shortened to it",
    "gradient_checkpointing": "compute activations twice instead of keeping them: less memory, slower",
    "eval_fraction": "share of the rows that is held out, to evaluate on",
    "stop_on_plateau": "end when the training loss is flat and low",
    "save_every": "optimizer steps between two checkpoints and two evaluations",
    "sample_every": "optimizer steps between two answers to the probe prompt",
    "seed": "of everything that is random: the same seed repeats the run",
    "bits": "bits of a weight that the frozen base is packed into",
    "double_quantization": "pack the scales of the 4-bit weights, too",
    "trained_layers": "how many of the last layers learn",
    "rope": "how positions are stretched for rows beyond the model's context",
    "attention": "which code computes attention",
    "beta": "how close the model is kept to the reference model; higher is closer",
    "loss": "which of the stage's losses is minimised",
    "generations": "answers drawn to each prompt, which are compared with each other",
    "answer_length": "tokens of a drawn answer at most",
    "temperature": "that answers are drawn at; higher makes them differ more",
    "rslora": "scale the adapter by alpha / sqrt(rank), which large ranks need",
    "dora": "learn direction and size of each matrix apart (DoRA); slower",
    "init": "what the adapter starts from: nothing, or the largest components",
    "lora_plus": "times the learning rate at which the adapter's B learns; none: 1",
    "neftune": "strength of the noise on the embeddings; none: no noise",
    "virtual_tokens": "learned tokens ahead of every text; they take room of the context",
    "added_tokens": "words that become one token each, with rows of their own that learn",
    "fused_lora": "LoRA's products in one step, where weights are fp32; off: peft's own",
    "unpadded": "rows end to end without padding, what they begin with computed once",
    "packing": "put rows together up to max_length; none of them sees another",
}
# What a value does, where the values are few and the choice among them is the first that a person makes.
DOES: dict[str, dict[str, str]] = {
    "stage": {
        "sft": "learns to give the answers of the rows",
        "pretraining": "goes on reading plain text",
        "dpo": "makes the better of two answers likelier than the worse one",
        "kto": "makes answers that are rated good likelier, bad ones less so",
        "reward": "learns to score answers, the better of two higher",
        "grpo": "draws answers; those that earn more than the others become likelier",
        "rloo": "as GRPO, without scaling by how far the answers differ",
        "ppo": "draws answers, and learns what each token is worth beside them",
    },
    "method": {
        "lora": "two small matrices beside each large one learn; the base stays",
        "qlora": "as LoRA, on a base that is packed into 4 or 8 bit",
        "ia3": "factors for keys, values and features learn: a tiny adapter",
        "prompt": "learned tokens ahead of the text",
        "prefix": "learned keys and values ahead of the text, in every layer",
        "bottleneck": "a small network behind each feed-forward part learns; the base stays",
        "freeze": "the last layers learn, whole; the others stay",
        "galore": "all weights learn; Adam's moments are kept in a small space",
        "full": "all weights learn",
    },
}
# In one word, as a list of runs has room for.
METHODS: dict[Method, str] = {
    "lora": "LoRA",
    "qlora": "QLoRA",
    "ia3": "IA3",
    "prompt": "prompt",
    "prefix": "prefix",
    "bottleneck": "bottleneck",
    "freeze": "freeze",
    "galore": "GaLore",
    "full": "full",
}
_FIRST = ("method", "learning_rate", "epochs", "micro_batch", "accumulation", "max_length")


class _Own(NamedTuple):
    """Settings that only some methods, or some stages, look at: those that most people look at, and the rest."""

    few: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


_LOW_RANK = ("alpha", "dropout", "targets", "rslora", "dora", "init", "lora_plus")
_ADDED = ("added_tokens",)
_METHODS: dict[Method, _Own] = {
    "full": _Own(rest=_ADDED),
    "galore": _Own(("rank",), _ADDED),
    "freeze": _Own(("trained_layers",), _ADDED),
    "lora": _Own(("rank",), (*_LOW_RANK, "fused_lora", *_ADDED)),
    "qlora": _Own(("rank", "bits"), ("double_quantization", *_LOW_RANK, *_ADDED)),
    "ia3": _Own(),
    "bottleneck": _Own(("rank",), _ADDED),
    "prompt": _Own(("virtual_tokens",)),
    "prefix": _Own(("virtual_tokens",)),
}
_HELD_OUT = ("eval_fraction", "stop_on_plateau")  # what learns from rewards has no loss to look at
_LEARNT = (*_HELD_OUT, "unpadded")
_STAGES: dict[Stage, _Own] = {
    "sft": _Own(rest=(*_LEARNT, "packing")),
    "pretraining": _Own(rest=(*_LEARNT, "packing")),
    "dpo": _Own(("beta", "loss"), _LEARNT),
    "kto": _Own(("beta", "loss"), _LEARNT),
    "reward": _Own(rest=_LEARNT),
    "grpo": _Own(("generations", "answer_length"), ("temperature", "beta", "loss", "unpadded")),
    "rloo": _Own(("generations", "answer_length"), ("temperature", "beta", "unpadded")),
    "ppo": _Own(("answer_length", "beta"), ("temperature",)),
}
_OWNED = {name for own in (*_METHODS.values(), *_STAGES.values()) for name in (*own.few, *own.rest)}


def trains(settings: Settings) -> str:
    """What learns, in a few words with the number that tells most: "LoRA r8", "all weights"."""
    match settings.method:
        case "full":
            return "all weights"
        case "freeze":
            return f"the last {settings.trained_layers} layers"
        case "prompt" | "prefix":
            return f"{settings.method} of {settings.virtual_tokens} tokens"
        case "ia3":
            return METHODS["ia3"]
        case _:
            return f"{METHODS[settings.method]} r{settings.rank}"


def few(stage: Stage, method: Method) -> tuple[str, ...]:
    """The settings that most people look at, the method first."""
    return (*_FIRST, *_METHODS[method].few, *_STAGES[stage].few, "precision")


def expert(stage: Stage, method: Method, settings: Settings) -> tuple[str, ...]:
    """The rest that count for `settings`: the method's own and the stage's own first."""
    shown = few(stage, method)
    common = [name for name in SETTING_FIELDS if name not in _OWNED and name not in shown]
    idle = _idle(stage, settings)
    return tuple(n for n in (*_METHODS[method].rest, *_STAGES[stage].rest, *common) if n not in idle)


def laid(stage: Stage, model: ModelFacts | None, settings: Settings) -> bool:
    """Whether rows are computed end to end, what they begin with once; else with padding."""
    return "unpadded" in expert(stage, settings.method, settings) and unpadded(model, settings)


def _idle(stage: Stage, settings: Settings) -> set[str]:
    """What no longer counts because of another setting's value."""
    idle = set()
    if settings.bits == 8:
        idle.add("double_quantization")
    if settings.method == "galore":
        idle.add("optimizer")  # it brings its own AdamW
    if settings.schedule == "constant":
        idle.add("warmup")
    if padded(None, settings.method, settings.attention, settings.neftune, unpadded=True)[0]:
        idle |= {"unpadded", "packing"}
    if settings.method == "qlora":
        idle.add("init")  # packed matrices cannot be taken apart
    if stage in RL or settings.method in VIRTUAL:
        idle.add("neftune")  # its noise would spoil what is drawn, and does not go with learned tokens
    if settings.precision != "fp32" or settings.dora:
        idle.add("fused_lora")
    if stage == "reward":
        idle.add("sample_every")  # a reward model gives no answers
    return idle
