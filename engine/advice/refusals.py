"""Why a plan cannot work at all, each in one sentence with its numbers and the way out."""

from __future__ import annotations

from collections.abc import Iterator

from engine.advice.fit import fits, longest_chat, smallest, values_of
from engine.advice.kinds import Facts, gigabytes
from engine.advice.stage import NAMES
from engine.models import support
from engine.models.facts import ModelFacts
from engine.models.memory import Memory, moments
from engine.models.trainable import trainable
from engine.recipe import LOSSES, TOGETHER, VIRTUAL, Settings
from engine.text import size

_KEPT_CHECKPOINTS = 4  # two kept, one being written, the result


def refusals(facts: Facts, settings: Settings, memory: Memory | None) -> list[str]:
    """Why it cannot work; empty where it can."""
    return [
        *_nothing_to_train(facts, settings),
        *_stage(facts, settings),
        *_rewards(facts, settings),
        *_optimizer(settings),
        *_model(facts, settings),
        *_precision(facts, settings),
        *_room(facts, settings, memory),
        *disk(facts, settings),
    ]


def disk(facts: Facts, settings: Settings) -> Iterator[str]:
    """Checkpoints hold the trained weights in fp32 and Adam's moments."""
    if facts.model is None or facts.hardware.disk_free <= 0:
        return
    needed = _KEPT_CHECKPOINTS * int(4 * trainable(facts.model, settings) + moments(facts.model, settings))
    if needed > facts.hardware.disk_free:
        yield f"checkpoints need {gigabytes(needed)} GB of disk and {gigabytes(facts.hardware.disk_free)} GB are free"


def _nothing_to_train(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.rows < 1:
        yield "there is no row to train on"
    elif facts.kind == "rl":  # prompts alone: the answers are made while it trains
        return
    elif facts.trained_rows == 0:
        rows = "the only row" if facts.counted == 1 else f"all {facts.counted:,} rows"
        yield f"every label of {rows} is masked: there is no answer to learn, see the preview"
    elif facts.untrained_at(settings.max_length) == facts.counted:
        rows = "the only row is" if facts.counted == 1 else f"all {facts.counted:,} rows are"
        answer = "its answer begins" if facts.counted == 1 else "their answer begins"
        yield (
            f"every label is masked: at {settings.max_length:,} tokens {rows} cut before {answer}, "
            f"take at least {facts.first_length:,}"
        )


def _stage(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.stage in ("dpo", "kto") and settings.beta is None:
        yield f"{NAMES[facts.stage]} needs a beta: 0.1 is the default"
    losses = LOSSES.get(facts.stage, ())
    if losses and settings.loss not in losses:
        yield f"{NAMES[facts.stage]} has no loss named {settings.loss}: take one of {', '.join(losses)}"
    if settings.loss in TOGETHER and settings.micro_batch < 2:
        yield f"the loss {settings.loss} compares the rows of a micro-batch with each other: take a micro_batch of 2 at least"


def _rewards(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.kind != "rl":
        return
    ppo, answers = facts.stage == "ppo", settings.micro_batch * settings.accumulation
    generations = 1 if ppo else settings.generations
    if generations is None or settings.answer_length is None or settings.temperature is None:
        yield f"{NAMES[facts.stage]} needs {'' if ppo else 'generations, '}answer_length and temperature"
        return
    if ppo and settings.generations is not None:
        yield "PPO draws one answer to each prompt: leave generations out, or take GRPO or RLOO"
    if ppo and not settings.adapts:
        yield (
            f"PPO compares with the base under its adapter, and {settings.method} tuning changes the base: take method lora, "
            "or GRPO or RLOO"
        )
    if ppo and settings.method in VIRTUAL:
        yield f"PPO reads the layers themselves, where {settings.method} tuning has nothing: take method lora, or GRPO or RLOO"
    if answers % generations:
        yield (
            f"a step of {answers} answers cannot hold whole groups of {generations}: take a micro_batch and an accumulation "
            f"whose product is a multiple of {generations}"
        )
    elif facts.rows and answers // generations > facts.rows:
        of = "round" if ppo else "step"
        yield f"a {of} wants {answers // generations} prompts, and there are {facts.rows}: take a smaller micro_batch"
    if settings.eval_fraction:
        yield "prompts cannot be held out: the reward of each step shows how it goes, take an eval_fraction of 0"
    if settings.stop_on_plateau:
        yield "stop_on_plateau looks at the loss, which says nothing where rewards are learned from: turn it off"
    if facts.model is not None and settings.max_length + settings.answer_length > facts.model.context:
        yield (
            f"prompts of {settings.max_length:,} tokens and answers of {settings.answer_length:,} are more than the "
            f"{facts.model.context:,} that the model can read: shorten either"
        )


def _optimizer(settings: Settings) -> Iterator[str]:
    if settings.method == "galore" and settings.optimizer != "adamw_torch":
        yield f"GaLore brings its own AdamW, which {settings.optimizer} cannot stand in for: take optimizer adamw_torch"


def _model(facts: Facts, settings: Settings) -> Iterator[str]:
    model = facts.model
    if model is None:
        return
    if settings.max_length > model.context and settings.rope == "none":
        yield (
            f"{settings.max_length:,} tokens are more than the {model.context:,} that the model can read: "
            "shorten them, or stretch its positions (rope)"
        )
    yield from support.reasons(model, settings, facts.hardware, facts.stage)
    if not model.has_tokenizer:
        yield "the model's folder holds no tokenizer: get tokenizer.json"


def _precision(facts: Facts, settings: Settings) -> Iterator[str]:
    on_gpu = facts.hardware.device == "cuda"
    if not on_gpu and settings.precision == "fp16":
        yield "fp16 training needs a GPU: take fp32"
    if on_gpu and not facts.hardware.bf16 and settings.precision == "bf16":
        yield f"{facts.hardware.device_name} does not compute in bf16: take fp16 or fp32"


def _room(facts: Facts, settings: Settings, memory: Memory | None) -> Iterator[str]:
    if memory is None or facts.model is None:
        return
    if memory.total <= facts.hardware.budget:
        yield from _unreadable(facts, facts.model, settings)
        return
    free, needed = f"{gigabytes(facts.hardware.budget)} GB are free{facts.hardware.when_there}", gigabytes(memory.total)
    least = smallest(facts, values_of(settings))
    if least is not None and least.total > facts.hardware.budget:
        billions = facts.model.parameters / 1e9
        yield (
            f"this model of {billions:.1f} billion parameters needs {gigabytes(least.total)} GB even in 4 bit and row by row, "
            f"{free}: take a smaller model"
        )
        return
    yield f"it needs {needed} GB and {free}: {_way_out(facts, settings)}"


def _unreadable(facts: Facts, model: ModelFacts, settings: Settings) -> Iterator[str]:
    """Positions are stretched for texts that no memory here can hold: what it would be trained for cannot be."""
    if settings.max_length <= model.context:
        return
    whole = longest_chat(facts, model, settings)
    if whole.total > facts.hardware.budget:
        yield (
            f"to read {settings.max_length:,} tokens takes {size(whole.total)}, and {size(facts.hardware.budget)} are free"
            f"{facts.hardware.when_there}: shorten the length, the longest row has {facts.max:,}"
        )


def _way_out(facts: Facts, settings: Settings) -> str:
    """The mildest change that makes it fit."""
    values = values_of(settings)
    micro = settings.micro_batch
    while micro > 1:
        micro //= 2
        if fits(facts, values, micro_batch=micro):
            return f"a micro-batch of {micro} fits"
    for words, changes in (
        ("gradient checkpointing", {"gradient_checkpointing": True}),
        ("LoRA", {"method": "lora"}),
        ("LoRA with gradient checkpointing", {"method": "lora", "gradient_checkpointing": True}),
    ):
        if fits(facts, values, **{"micro_batch": 1, **changes}):
            return f"{words} fits" if micro == settings.micro_batch else f"{words} with a micro-batch of 1 fits"
    return "QLoRA in 4 bit fits, row by row with gradient checkpointing"
