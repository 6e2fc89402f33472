"""What will probably disappoint in a plan: warnings, each one sentence with its numbers and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from engine.advice.epoch import epoch, of
from engine.advice.fit import longest_chat
from engine.advice.kinds import Facts, held_out
from engine.advice.numbers import (
    BETA_IN_USE,
    LEARNING_RATES,
    RATES_IN_USE,
    SMALL_DATA,
    WANTED_STEPS,
    WARN_ADAPTER_BATCH,
    WARN_EPOCHS,
    WARN_EPOCHS_RANK,
    WARN_HELD_OUT,
    WARN_ROWS,
    WARN_STEPS,
    part,
    steeper,
)
from engine.advice.stage import NAMES
from engine.models.memory import Memory
from engine.recipe import Settings
from engine.text import listed, number, plural, size


def warnings(facts: Facts, settings: Settings, steps: int, memory: Memory | None = None) -> list[str]:
    """What will probably disappoint; empty where nothing speaks against the plan. `memory` is that of training."""
    return [
        *_rows(facts),
        *_masked(facts, settings),
        *_end(facts),
        *_steps(facts, settings, steps),
        *_rate(facts, settings),
        *_batch(facts, settings),
        *_passes(facts, settings),
        *_evaluation(facts, settings),
        *_cut(facts, settings),
        *_beta(facts, settings),
        *_numbers(facts, settings),
        *_added(facts),
        *_machine(facts),
        *_room(facts, settings, memory),
    ]


def _rows(facts: Facts) -> Iterator[str]:
    if 0 < facts.rows < WARN_ROWS and facts.kind != "identity":
        rows = plural(facts.rows, "row", "is few", "are few")
        yield f"{rows}: a few hundred to a few thousand usually suffice, and quality beats quantity"


def _masked(facts: Facts, settings: Settings) -> Iterator[str]:
    """Rows without any label teach nothing, and trainers drop them without a word."""
    masked = facts.untrained_at(settings.max_length)
    if facts.kind == "rl":  # the answers are made while it trains
        return
    if not masked or masked >= facts.counted:  # all of them: a refusal
        return
    cut = masked - (facts.counted - len(facts.starts)) if len(facts.starts) else 0
    if cut:
        rows = "1 row is" if cut == 1 else f"{cut:,} rows are"
        yield f"{rows} cut at {settings.max_length:,} tokens before the answer begins: nothing of them is trained"
    if masked > cut:
        rows = "1 row has" if masked - cut == 1 else f"{masked - cut:,} rows have"
        yield f"{rows} no trained token: every label is masked, see the preview"


def _end(facts: Facts) -> Iterator[str]:
    if not facts.has_end_token and facts.kind != "rl":
        yield (
            "no answer ends with an end token: the model will not learn to stop; take a model whose chat template ends "
            "its answers"
        )


def _steps(facts: Facts, settings: Settings, steps: int) -> Iterator[str]:
    if not 0 < steps < WARN_STEPS:
        return
    usual = steeper(settings.method) * LEARNING_RATES[facts.kind, part(settings.method)].value
    verdict = "will not take" if settings.learning_rate <= usual / 2 else "may not take"
    updates = "1 update" if steps == 1 else f"{steps} updates"
    yield (
        f"{updates} at {number(settings.learning_rate)} {verdict}: aim at about {WANTED_STEPS} with more epochs or a "
        "smaller batch"
    )


def _rate(facts: Facts, settings: Settings) -> Iterator[str]:
    on = part(settings.method)
    low, high = (steeper(settings.method) * limit for limit in RATES_IN_USE[facts.kind, on])
    rate = number(settings.learning_rate)
    if facts.kind == "identity" and on == "adapter" and settings.learning_rate < low:
        yield f"{rate} is low for a name: users report that 5e-5 changes nothing and 1e-3 works"
        return
    what = "an adapter" if on == "adapter" else f"{settings.method} tuning"
    if facts.stage != "sft":
        what = f"{NAMES[facts.stage]} of {what}" if on == "adapter" else f"{NAMES[facts.stage]} by {what}"
    if settings.learning_rate > high:
        yield f"{rate} is high for {what}: above {number(high)} the loss tends to jump or grow"
    elif settings.learning_rate < low:
        yield f"{rate} is low for {what}: below {number(low)} little is learned"


def _batch(facts: Facts, settings: Settings) -> Iterator[str]:
    effective = settings.micro_batch * settings.accumulation
    made = epoch(facts, of(settings))
    items, unit = (made.items, "packs") if settings.packing else (made.parts, "rows")
    if effective > items > 0:
        yield f"an effective batch of {effective} is more than all {items} {unit}: each epoch is one step"
    elif part(settings.method) == "adapter" and effective >= WARN_ADAPTER_BATCH:
        yield f"an effective batch of {effective} is large for an adapter: keep it below {WARN_ADAPTER_BATCH}"


def _passes(facts: Facts, settings: Settings) -> Iterator[str]:
    """More passes than the vendor guide's 10; with few rows a rank above 32 bears fewer, and all weights half of them."""
    if settings.stop_on_plateau or facts.kind == "rl":  # it stops itself; each pass has new answers
        return
    limit, what, way = WARN_EPOCHS, "", f"{WARN_EPOCHS} passes or fewer"
    if facts.rows < SMALL_DATA:
        if part(settings.method) == "weights":
            limit, what = WARN_EPOCHS // 2, f" with {settings.method} tuning"
            way = f"{limit} passes or LoRA"
        elif settings.rank > WARN_EPOCHS_RANK:
            limit = max(1, WARN_EPOCHS * WARN_EPOCHS_RANK // settings.rank)
            passes = "1 pass" if limit == 1 else f"{limit} passes"
            what, way = f" with rank {settings.rank}", f"{passes} or a rank of {WARN_EPOCHS_RANK}"
    if settings.epochs > limit:
        by_heart = "it by heart" if facts.rows == 1 else "them by heart"
        yield f"{number(settings.epochs)} passes over {plural(facts.rows, 'row')}{what} learn {by_heart}: {way} will do"


def _evaluation(facts: Facts, settings: Settings) -> Iterator[str]:
    if settings.eval_fraction <= 0:
        return
    held = held_out(facts.rows, settings.eval_fraction)
    if held < WARN_HELD_OUT:
        rows = "1 held-out row says" if held == 1 else f"{held} held-out rows say"
        yield f"{rows} little about the rest: hold out {WARN_HELD_OUT} at least, or none"
    if facts.overlap:
        rows = "1 held-out row stands" if facts.overlap == 1 else f"{facts.overlap:,} held-out rows stand"
        yield f"{rows} in the training rows as well: the evaluation will look better than it is"


def _cut(facts: Facts, settings: Settings) -> Iterator[str]:
    if facts.max <= settings.max_length or facts.divided:
        return
    if facts.kind == "rl":
        yield f"prompts of more than {settings.max_length:,} tokens are left out; the longest row has {facts.max:,}"
        return
    count = facts.cut_at(settings.max_length)
    rows = f"{facts.counted:,} rows" if facts.counted == facts.rows else f"{facts.counted:,} counted rows"
    if count == 1 and facts.counted == 1:
        many, lose = "the only row is", "loses its"
    elif count == 1:
        many, lose = f"1 of {rows} is", "loses its"
    elif count is not None:
        many, lose = f"{count:,} of {rows} are", "lose their"
    else:
        share = next((s for s, at in ((50, facts.p50), (5, facts.p95), (1, facts.p99)) if at > settings.max_length), 0)
        many, lose = (f"more than {share} % of the rows" if share else "a few rows (under 1 %)") + " are", "lose their"
    yield (
        f"{many} cut at {settings.max_length:,} tokens and {lose} end token, the longest has {facts.max:,}: lengthen, or "
        "leave them out"
    )


def _beta(facts: Facts, settings: Settings) -> Iterator[str]:
    if settings.beta is None or facts.kind == "rl":  # of rewards, every beta counts and small ones are usual
        return
    low, high = BETA_IN_USE
    beta = number(settings.beta)
    if facts.stage not in ("dpo", "kto"):
        yield f"a beta of {beta} is ignored: {NAMES[facts.stage]} has no reference model"
    elif settings.beta < low:
        yield f"a beta of {beta} is low: below {number(low)} the model may drift far from what it was"
    elif settings.beta > high:
        yield f"a beta of {beta} is high: above {number(high)} little can change"


def _numbers(facts: Facts, settings: Settings) -> Iterator[str]:
    hardware, context = facts.hardware, facts.model.context if facts.model else settings.max_length
    if settings.max_length > context and settings.rope != "none":
        times = settings.max_length / context
        longest = f", and the longest row has {facts.max:,}" if facts.max <= context else ""
        yield (
            f"{settings.max_length:,} tokens are {times:,.1f} times the context of {context:,}{longest}: stretched positions "
            f"({settings.rope}) have to be learned from long rows"
        )
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


def _added(facts: Facts) -> Iterator[str]:
    if facts.added_known:
        one = len(facts.added_known) == 1
        yield f"{listed(facts.added_known)} {'is a token' if one else 'are tokens'} already: nothing is added for {'it' if one else 'them'}"
    if facts.added_idle:
        one = len(facts.added_idle) == 1
        stands, learns = ("stands", "it learns") if one else ("stand", "they learn")
        yield f"{listed(facts.added_idle)} {stands} in no row: {learns} only not to be said, leave {'it' if one else 'them'} out"


def _machine(facts: Facts) -> Iterator[str]:
    hardware = facts.hardware
    if hardware.gpus and not hardware.torch_cuda:
        yield f"{hardware.gpus[0].name} is idle: the installed torch is a build for processors only"


def _room(facts: Facts, settings: Settings, memory: Memory | None) -> Iterator[str]:
    """What fits, but not now, or not in every chat. What does not fit at all is refused."""
    hardware = facts.hardware
    if memory is None or facts.model is None or memory.total > hardware.budget:
        return
    if hardware.when_there and memory.total > hardware.budget_now:
        yield (
            f"it needs {size(memory.total)} and {size(hardware.budget_now)} are free now: it fits{hardware.when_there}, "
            "and waits for them in line"
        )
    if settings.max_length <= facts.model.context:
        whole = longest_chat(facts, facts.model, settings)
        if whole.total > hardware.budget:
            yield (
                f"a chat of {settings.max_length:,} tokens takes {size(whole.total)} and {size(hardware.budget)} are free: "
                "only shorter ones fit"
            )
