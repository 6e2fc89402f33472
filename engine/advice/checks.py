"""What speaks against a plan: warnings (it will probably disappoint) and refusals (it cannot work).

Each is one sentence with its numbers and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.advice.fit import fits, need
from engine.advice.kinds import Facts, Values, gigabytes, held_out
from engine.models.facts import trainable
from engine.models.memory import Memory
from engine.recipe import Settings

_FEW_ROWS = 100
_FEW_STEPS = 50
_ADAPTER_BATCH = 32
# (lowest, highest) learning rates that are in use.
_RATES = {"full": (1e-6, 1e-4), "lora": (5e-5, 2e-3), "qlora": (5e-5, 2e-3)}
_KEPT_CHECKPOINTS = 4  # two kept, one being written, the result


def warnings(facts: Facts, settings: Settings, steps: int) -> list[str]:
    """What will probably disappoint."""
    return [
        *_rows(facts),
        *_steps(facts, settings, steps),
        *_rate(facts, settings),
        *_batch(facts, settings),
        *_cut(facts, settings),
        *_numbers(facts, settings),
        *_machine(facts),
    ]


def refusals(facts: Facts, settings: Settings, memory: Memory | None) -> list[str]:
    """Why it cannot work."""
    return [
        *_nothing_to_train(facts),
        *_model(facts, settings),
        *_precision(facts, settings),
        *_room(facts, settings, memory),
        *disk(facts, settings),
    ]


def _rows(facts: Facts) -> Iterator[str]:
    if 0 < facts.rows < _FEW_ROWS and facts.intent != "identity":
        yield f"{facts.rows} rows are few: a few hundred to a few thousand usually suffice, and quality beats quantity"


def _steps(facts: Facts, settings: Settings, steps: int) -> Iterator[str]:
    if 0 < steps < _FEW_STEPS:
        verdict = "will not take" if settings.learning_rate <= 1e-4 else "may not take"
        yield f"{steps} updates at {settings.learning_rate:g} {verdict}: aim at about 100 with more epochs or a smaller batch"


def _rate(facts: Facts, settings: Settings) -> Iterator[str]:
    low, high = _RATES[settings.method]
    name = "full tuning" if settings.method == "full" else "an adapter"
    if settings.learning_rate > high:
        yield f"{settings.learning_rate:g} is high for {name}: above {high:g} the loss tends to jump or grow"
    elif settings.learning_rate < low:
        yield f"{settings.learning_rate:g} is low for {name}: below {low:g} little is learned"
    elif facts.intent == "identity" and settings.method != "full" and settings.learning_rate <= 2e-4:
        yield f"{settings.learning_rate:g} is low for a name: users report that 5e-5 changes nothing and 1e-3 works"


def _batch(facts: Facts, settings: Settings) -> Iterator[str]:
    effective = settings.micro_batch * settings.accumulation
    rows = facts.rows - held_out(facts.rows, settings.eval_fraction)
    if effective > rows > 0:
        yield f"an effective batch of {effective} is more than all {rows} rows: each epoch is one step"
    elif settings.method != "full" and effective >= _ADAPTER_BATCH:
        yield f"an effective batch of {effective} is large for an adapter: keep it below {_ADAPTER_BATCH}"


def _cut(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.max <= settings.max_length:
        return
    if facts.lengths:
        count = sum(length > settings.max_length for length in facts.lengths)
        many = f"{count:,} of {facts.rows:,} rows are"
        if count == 1:
            many = f"1 of {facts.rows:,} rows is"
    else:
        share = next((s for s, at in ((50, facts.p50), (5, facts.p95), (1, facts.p99)) if at > settings.max_length), 0)
        if not share:
            many = "a few rows (under 1 %) are"
        else:
            many = f"more than {share} % of the rows are"
    yield f"{many} cut at {settings.max_length} tokens and lose the end token, the longest has {facts.max}"


def _numbers(facts: Facts, settings: Settings) -> Iterator[str]:
    hardware = facts.hardware
    if hardware.device == "cpu" and settings.precision == "bf16":
        slow = (
            "slower than fp32 here"
            if hardware.cpu_bf16
            else "about 8 times slower: this processor has no bf16 instructions"
        )
        yield f"bf16 on this processor is {slow}"
    if hardware.device == "cuda" and hardware.bf16 and settings.precision == "fp16":
        yield "fp16 can overflow, it diverged in a fifth of 7B runs: this card has bf16"
    if hardware.device == "cuda" and settings.method == "qlora" and settings.precision == "fp32":
        yield "QLoRA in fp32 unpacks to 32 bit at each step: several times slower than bf16"
    if hardware.device == "cpu" and settings.optimizer == "paged_adamw_8bit":
        yield "paged_adamw_8bit cannot page without a GPU: only its 8-bit moments remain"
    if settings.optimizer == "paged_adamw_8bit" and settings.method == "full" and settings.precision == "fp32":
        yield "8-bit moments beside fp32 weights save memory and lose some exactness"


def _machine(facts: Facts) -> Iterator[str]:
    hardware = facts.hardware
    if hardware.gpus and not hardware.torch_cuda:
        yield f"{hardware.gpus[0].name} is idle: the installed torch is a build for processors only"


def _nothing_to_train(facts: Facts) -> Iterator[str]:
    if facts.rows < 1:
        yield "there is no row to train on"


def _model(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.model is None:
        return
    if settings.max_length > facts.model.context:
        yield f"{settings.max_length} tokens are more than the {facts.model.context} that the model can read"
    if not facts.model.has_tokenizer:
        yield "the model's folder holds no tokenizer: get tokenizer.json"


def _precision(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.hardware.device == "cpu" and settings.precision == "fp16":
        yield "fp16 training needs a GPU: take fp32"
    if facts.hardware.device == "cuda" and not facts.hardware.bf16 and settings.precision == "bf16":
        yield f"{facts.hardware.device_name} does not compute in bf16: take fp16 or fp32"


def _room(facts: Facts, settings: Settings, memory: Memory | None) -> Iterator[str]:
    if memory is None or facts.model is None or memory.total <= facts.hardware.budget:
        return
    free, needed = gigabytes(facts.hardware.budget), gigabytes(memory.total)
    least = need(facts, _values(settings), method="qlora", micro_batch=1, gradient_checkpointing=True)
    if least is not None and least.total > facts.hardware.budget:
        size = facts.model.parameters / 1e9
        yield (
            f"this model of {size:.1f} billion parameters needs {gigabytes(least.total)} GB even in 4 bit and row by row, "
            f"{free} GB are free: take a smaller model"
        )
        return
    yield f"it needs {needed} GB and {free} GB are free: {_way_out(facts, settings)}"


def _way_out(facts: Facts, settings: Settings) -> str:
    """The mildest change that makes it fit."""
    values = _values(settings)
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
    return "QLoRA fits, row by row with gradient checkpointing"


def disk(facts: Facts, settings: Settings) -> Iterator[str]:
    """Checkpoints hold the trained weights in fp32 and Adam's two moments."""
    if facts.model is None or facts.hardware.disk_free <= 0:
        return
    needed = _KEPT_CHECKPOINTS * 12 * trainable(facts.model, settings)
    if needed > facts.hardware.disk_free:
        yield f"checkpoints need {gigabytes(needed)} GB of disk and {gigabytes(facts.hardware.disk_free)} GB are free"


def _values(settings: Settings) -> Values:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
