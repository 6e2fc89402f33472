"""Rules for how it is trained: rate, epochs, batch, warm-up, evaluation, cadence, beta."""

from __future__ import annotations

import math

from engine.advice.epoch import epoch, optimizer_steps
from engine.advice.fit import fits
from engine.advice.kinds import Advice, Alternative, Facts, Kind, Values, held_out, power_of_two
from engine.advice.numbers import (
    ANSWER_LENGTH,
    BETA,
    BETA_RL,
    EPOCHS_IDENTITY,
    EPOCHS_LARGE,
    EPOCHS_MEDIUM,
    EPOCHS_RATED,
    EPOCHS_SMALL,
    EVAL_FRACTION,
    EVALUATE_FROM,
    EVALUATE_RATED_FROM,
    GENERATIONS,
    GUIDE,
    HARDWARE,
    LARGEST_BATCH,
    LEARNING_RATES,
    LIBRARY,
    MEASURED,
    MEDIUM_DATA,
    MODEL,
    PPO_PAPER,
    PPO_PROMPTS,
    PRIMER,
    PROMPTS,
    REGRET,
    RULE,
    SMALL_DATA,
    STEEPER,
    TEMPERATURE,
    TRAINING_GPUS,
    TRL,
    WALKTHROUGH,
    WANTED_STEPS,
    WARMUP,
    Number,
    Part,
    part,
)
from engine.advice.stage import LOSS_EFFECTS
from engine.recipe import LOSSES, PPO_PASSES, Settings
from engine.text import plural

_PRIMER_RATE = Alternative(5e-5, "the tuning primer's upper end for pre-trained weights (1e-5 to 5e-5)")
_PAIRS: dict[Part, list[Alternative]] = {
    "weights": [
        Alternative(1e-6, "TRL's"),
        Alternative(5e-7, "steadier, stays nearer to the reference"),
    ],
    "adapter": [
        Alternative(5e-6, "LLaMA-Factory's for LoRA"),
        Alternative(1e-6, "TRL's, made for all weights; a short run may not take"),
        Alternative(2e-5, "faster; chosen and rejected may both become less likely"),
    ],
}
# The sources' own numbers stand here, too: each is an alternative unless it is the one that holds.
_OTHER_RATES: dict[tuple[Kind, Part], list[Alternative]] = {
    ("sft", "weights"): [
        Alternative(2e-5, "within the tuning primer's 1e-5 to 5e-5, and TRL's"),
        _PRIMER_RATE,
        Alternative(1e-5, "steadier, wants more epochs (tuning primer, vendor guide)"),
    ],
    ("sft", "adapter"): [
        Alternative(2e-4, "the Phi-2 QLoRA tutorial's; usual for adapters"),
        Alternative(1e-4, "steadier (LLaMA-Factory's for LoRA; tuning primer for new layers)"),
        Alternative(5e-4, "faster, may overshoot (vendor guide: too large does not converge)"),
        _PRIMER_RATE,
    ],
    ("identity", "weights"): [Alternative(2e-5, "usual for full tuning; a short run may not take"), _PRIMER_RATE],
    ("identity", "adapter"): [
        Alternative(1e-3, "what LLaMA-Factory's users report to work; learned the name on 15 of 16 questions here"),
        Alternative(2e-4, "usual for adapters (Phi-2 QLoRA tutorial); would not take in a short run"),
        Alternative(5e-5, "LLaMA-Factory's default; its users report that the name does not take"),
    ],
    ("pretraining", "weights"): [_PRIMER_RATE, Alternative(1e-5, "steadier, forgets less")],
    ("pretraining", "adapter"): [
        Alternative(2e-4, "as for SFT (Phi-2 QLoRA tutorial)"),
        Alternative(5e-5, "steadier, forgets less; more text to learn the same"),
    ],
    ("dpo", "weights"): _PAIRS["weights"],
    ("dpo", "adapter"): _PAIRS["adapter"],
    ("kto", "weights"): _PAIRS["weights"],
    ("kto", "adapter"): _PAIRS["adapter"],
    ("reward", "weights"): [Alternative(1e-4, "TRL's default"), Alternative(2e-5, "as for SFT")],
    ("reward", "adapter"): [Alternative(5e-5, "steadier"), Alternative(2e-4, "as for SFT (Phi-2 QLoRA tutorial)")],
    ("rl", "weights"): [Alternative(5e-7, "steadier")],
    ("rl", "adapter"): [Alternative(1e-6, "TRL's, made for all weights; slower")],
}


def epochs(facts: Facts, values: Values) -> Advice:
    """10 under 500 rows, 3 under 5000, else 2. Few rows want more passes, 2 to 10: vendor guide. Pairs and ratings at
    most 3: LLaMA-Factory.

    Identity: 5, measured; the batch that leaves 100 steps halves with the passes.
    """
    others = [Alternative(3.0, "usual elsewhere (LLaMA-Factory 3, Unsloth 1 to 3)")]
    if facts.kind == "rl":
        each = PPO_PROMPTS / PPO_PASSES if facts.stage == "ppo" else PROMPTS  # prompts a step
        passes = float(max(1, min(10, math.ceil(WANTED_STEPS * each / max(1, facts.rows)))))
        others = [Alternative(2 * passes, "twice the time; new answers to the same prompts")]
        return Advice("epochs", passes, f"so that there are about {WANTED_STEPS} steps", RULE, "medium", others)
    if facts.rated and facts.rows < MEDIUM_DATA:
        chosen = EPOCHS_RATED
        others = [
            Alternative(1.0, "a third of the time; usual for many pairs, and for reward models"),
            Alternative(10.0, "the vendor guide's for few rows; learns the pairs by heart"),
        ]
    elif facts.rows < SMALL_DATA:
        if facts.kind == "identity":
            chosen = EPOCHS_IDENTITY
            others.insert(
                0, Alternative(10.0, "twice the time; the LLaMA-Factory walk-through: set many, stop when it is flat")
            )
        else:
            chosen = EPOCHS_SMALL
            others.insert(0, Alternative(5.0, "half the time; may not take"))
            others.append(Alternative(10.0, "the most of the vendor guide's 2 to 10"))
    elif facts.rows < MEDIUM_DATA:
        chosen = EPOCHS_MEDIUM
        chosen = chosen._replace(reason=f"{plural(facts.rows, 'row')}; {chosen.reason}")
        others.append(Alternative(2.0, "a third less time; the vendor guide's number for large data"))
    else:
        chosen = EPOCHS_LARGE
        others.append(Alternative(1.0, "half the time; enough for very large data"))
    return Advice("epochs", chosen.value, chosen.reason, chosen.source, chosen.confidence, others)


def learning_rate(facts: Facts, values: Values) -> Advice:
    """By stage and by what it acts on: full SFT 2e-5, an adapter ten times that, identity ten times more again; pairs
    and ratings a twentieth (full) and a fortieth (adapter). The sources stand beside the numbers.
    """
    key = (facts.kind, part(values["method"]))
    chosen, others = LEARNING_RATES[key], _OTHER_RATES[key]
    if (more := STEEPER.get(values["method"])) is not None:
        plain = Alternative(
            chosen.value, f"{more.value:g} times slower: that of {'all weights' if key[1] == 'weights' else 'LoRA'}"
        )
        others = [
            plain,
            *(Alternative(more.value * one.value, f"{more.value:g} times: {one.effect}") for one in others),
        ]
        chosen = more._replace(value=more.value * chosen.value)
    if values["method"] == "ia3" and facts.kind == "sft":
        others = [
            *others,
            Alternative(0.03, "ten times its paper's; better in 16 steps of the starter model (measured)"),
        ]
    if values["method"] == "prompt" and facts.kind == "sft":
        others = [*others, Alternative(0.3, "the prompt tuning paper's, with another optimizer (Adafactor)")]
    if values["method"] == "bottleneck" and facts.kind == "sft":
        others = [*others, Alternative(3e-4, "among the first adapters' (Houlsby and others: 3e-5 to 3e-3)")]
    if facts.stage == "ppo":
        others = [*others, Alternative(3e-6, "TRL's for PPO, when it had it; made for all weights")]
    return Advice("learning_rate", chosen.value, chosen.reason, chosen.source, chosen.confidence, others)


def effective_batch(facts: Facts, values: Values) -> int:
    """Rows (or packs) an optimizer step should see: a power of two that leaves about 100 steps, within what the method bears,
    which is told in rows. Of rewards: all answers to two prompts; of PPO, one answer to each of sixteen.
    """
    if facts.stage == "ppo":
        return min(PPO_PROMPTS, max(1, facts.rows))
    if facts.kind == "rl":
        return min(PROMPTS, max(1, facts.rows)) * int(values["generations"] or 1)  # without them it is refused
    made = epoch(facts, values)
    least = 2 if facts.stage == "kto" else 1  # it compares rows of a micro-batch
    largest = LARGEST_BATCH[part(values["method"])] * made.items / max(1, made.parts)
    return max(least, power_of_two(min(largest, made.items * values["epochs"] / WANTED_STEPS)))


def micro_batch(facts: Facts, values: Values) -> Advice:
    """As many rows of the effective batch at once as memory holds; first without checkpointing, then with it."""
    wanted = effective_batch(facts, values)
    keep = values.get("gradient_checkpointing")  # decided before only when the person or a preset did
    if values["method"] == "prefix":
        keep = False
    chosen = wanted
    for checkpointing in (False, True) if keep is None else (keep,):
        chosen = wanted
        while chosen > 1 and not fits(facts, values, micro_batch=chosen, gradient_checkpointing=checkpointing):
            chosen //= 2
        if fits(facts, values, micro_batch=chosen, gradient_checkpointing=checkpointing):
            break
    if facts.kind == "rl":
        others = [Alternative(max(1, chosen // 2), "half the memory; the accumulation follows")]
        of = "round" if facts.stage == "ppo" else "step"
        reason = f"all answers of a {of} at once" if chosen == wanted else f"memory holds {chosen} of {wanted} answers"
        return Advice("micro_batch", chosen, reason, HARDWARE, "high", others if chosen > 1 else [])
    others = []
    if chosen > 1:
        others.append(Alternative(1, "least memory, no padding, slower (Phi-2 QLoRA tutorial: 1 x 4)"))
    made, unit = epoch(facts, values), "packs" if values["packing"] else "rows"
    largest = chosen
    while largest < min(64, made.items) and fits(facts, values, micro_batch=2 * largest, gradient_checkpointing=False):
        largest *= 2
    if largest > chosen:
        steps = math.ceil(made.items / largest * values["epochs"])
        others.append(Alternative(largest, f"all that fits (vendor guide); leaves only {steps:,} steps"))
    if chosen < wanted:
        return Advice(
            "micro_batch", chosen, f"memory holds {chosen} of {wanted} {unit} at once", HARDWARE, "high", others
        )
    if made.parts * values["epochs"] / WANTED_STEPS >= LARGEST_BATCH[part(values["method"])]:
        limit = "adapters want under 32" if part(values["method"]) == "adapter" else "32 is enough"
        return Advice("micro_batch", chosen, f"memory holds it; {limit}", REGRET, "medium", others)
    return Advice("micro_batch", chosen, f"so that there are about {WANTED_STEPS} steps", RULE, "medium", others)


def gradient_checkpointing(facts: Facts, values: Values) -> Advice:
    """Only where it is needed to fit: it recomputes the forward pass (45 % slower, measured)."""
    if values["method"] == "prefix":
        return Advice("gradient_checkpointing", False, "it would lose the prefix's keys", LIBRARY, "high")
    if fits(facts, values, gradient_checkpointing=False):
        others = [Alternative(True, "less memory for activations, 45 % slower (measured); the tutorials turn it on")]
        return Advice("gradient_checkpointing", False, "it fits without, and is faster", MEASURED, "high", others)
    others = [Alternative(False, "faster, but does not fit in memory here")]
    return Advice("gradient_checkpointing", True, "it does not fit without", HARDWARE, "high", others)


def accumulated(effective: int, micro: int, gpus: int) -> int:
    """Micro-batches before an optimizer step: vendor guide; each card more multiplies the batch."""
    return math.ceil(effective / (micro * gpus))


def accumulation(facts: Facts, values: Values) -> Advice:
    """Effective batch over what is computed at once, rounded up: vendor guide."""
    micro = values["micro_batch"]
    chosen = accumulated(effective_batch(facts, values), micro, TRAINING_GPUS)
    others = [Alternative(2 * chosen, f"effective batch {2 * chosen * micro}, half the steps")]
    if chosen > 1:
        others.append(Alternative(1, f"effective batch {micro}, more and noisier steps"))
    unit = "pack" if values["packing"] else "answer" if facts.kind == "rl" else "row"
    rows = f"{micro * chosen} {unit}" + ("" if micro * chosen == 1 else "s")
    of = "round" if facts.stage == "ppo" else "step"
    return Advice("accumulation", chosen, f"{micro} x {chosen} = {rows} a {of}", GUIDE, "high", others)


def schedule(facts: Facts, values: Values) -> Advice:
    """Cosine. With a schedule: tuning primer."""
    others = [
        Alternative("linear", "falls evenly (the default of the library the Phi-2 tutorial uses)"),
        Alternative("constant", "simple, ends less settled"),
    ]
    return Advice("schedule", "cosine", "large steps first, small ones last", PRIMER, "medium", others)


def warmup(facts: Facts, values: Values) -> Advice:
    """5 % of the steps."""
    others = [Alternative(0.0, "full rate at once (Phi-2 QLoRA tutorial: 1 step)")]
    return Advice("warmup", WARMUP.value, WARMUP.reason, WARMUP.source, WARMUP.confidence, others)


def weight_decay(facts: Facts, values: Values) -> Advice:
    others = [Alternative(0.01, "pulls the trained weights towards 0 (PyTorch's own default for AdamW)")]
    return Advice("weight_decay", 0.0, "none", TRL, "medium", others)


def max_grad_norm(facts: Facts, values: Values) -> Advice:
    others = [Alternative(0.3, "tames spikes more, slower (QLoRA paper, large models)")]
    return Advice("max_grad_norm", 1.0, "one odd row cannot spoil a step", TRL, "high", others)


def eval_fraction(facts: Facts, values: Values) -> Advice:
    """A tenth from 500 rows on, else none. Split off a validation set: Phi-2 QLoRA tutorial. Of pairs and ratings from
    200 on: only rows that were not trained on say whether the better answers are known.
    """
    if facts.kind == "rl":
        return Advice("eval_fraction", 0.0, "the reward of each step shows it", RULE, "high")
    fraction = EVAL_FRACTION.value
    count = held_out(facts.rows, fraction)
    if facts.rows < (EVALUATE_RATED_FROM if facts.rated else EVALUATE_FROM):
        others = [Alternative(fraction, f"holds out {plural(count, 'row')} (Phi-2 tutorial: always split)")]
        return Advice("eval_fraction", 0.0, f"{plural(facts.rows, 'row')}: all needed to learn", RULE, "medium", others)
    others = [Alternative(0.0, "trains on all rows; nothing shows whether it only learns by heart")]
    return Advice(
        "eval_fraction", fraction, f"{count:,} rows show if it generalises", EVAL_FRACTION.source, "high", others
    )


def stop_on_plateau(facts: Facts, values: Values) -> Advice:
    """For identity: set many epochs and stop when the loss is flat (LLaMA-Factory walk-through)."""
    if facts.kind == "identity":
        others = [Alternative(False, "runs all epochs")]
        return Advice("stop_on_plateau", True, "done when the loss is flat and low", WALKTHROUGH, "high", others)
    others = [Alternative(True, "ends when the training loss is flat and low; the vendor guide stops on evaluation")]
    return Advice("stop_on_plateau", False, "flat need not mean done here", RULE, "medium", others)


def beta(facts: Facts, values: Values) -> Advice:
    """0.1 for pairs and ratings: vendor guide, TRL and LLaMA-Factory alike. RLOO and PPO 0.05, GRPO none: TRL. Of PPO it
    weighs the KL penalty in each token's reward; InstructGPT: 0.02.
    """
    if facts.stage in ("rloo", "ppo"):
        others = [Alternative(0.1, "stays nearer to the reference model"), Alternative(0.01, "earns more, drifts more")]
        if facts.stage == "ppo":
            others[1] = Alternative(0.02, "InstructGPT's; earns more, drifts more")
        return Advice("beta", BETA_RL.value, BETA_RL.reason, BETA_RL.source, BETA_RL.confidence, others)
    if facts.stage == "grpo":
        others = [Alternative(0.04, "the paper's that brought GRPO; stays nearer to the reference model")]
        return Advice("beta", None, "no pull back to the reference", TRL, "high", others)
    if facts.stage not in ("dpo", "kto"):
        return Advice("beta", None, "this stage has no reference", GUIDE, "high")
    others = [
        Alternative(0.5, "stays nearer to the reference model (vendor guide: 0.1 to 0.5)"),
        Alternative(0.3, "in between"),
    ]
    return Advice("beta", BETA.value, BETA.reason, BETA.source, BETA.confidence, others)


def loss(facts: Facts, values: Values) -> Advice:
    """The stage's own: the first of `recipe.LOSSES`. For KTO row by row the one that compares no rows (APO)."""
    known = LOSSES.get(facts.stage, ())
    if not known:
        return Advice("loss", None, "this stage has one only", TRL, "high")
    if facts.stage == "kto" and values["micro_batch"] < 2:
        others = [Alternative("kto", "KTO's own; compares rows, so it needs a micro-batch of 2 at least")]
        return Advice("loss", "apo_zero_unpaired", "memory holds 1 row: none to compare with", HARDWARE, "high", others)
    others = [Alternative(name, LOSS_EFFECTS[name]) for name in known[1:]]
    return Advice("loss", known[0], "the stage's own", TRL, "high", others)


def generations(facts: Facts, values: Values) -> Advice:
    """8 answers to each prompt, for GRPO and RLOO: TRL. PPO compares with its value head, not with other answers."""
    if facts.stage == "ppo":
        return Advice("generations", None, "PPO draws one answer to each prompt", PPO_PAPER, "high")
    others = [Alternative(4, "half the time, noisier"), Alternative(16, "twice the time, steadier")]
    return _for_rewards(facts, "generations", GENERATIONS, others)


def answer_length(facts: Facts, values: Values) -> Advice:
    """256 tokens at most, for RL. TRL: 512."""
    others = [Alternative(512, "TRL's default"), Alternative(64, "for short answers; far quicker")]
    made = _for_rewards(facts, "answer_length", ANSWER_LENGTH, others)
    most = facts.model.context // 2 if facts.model else None
    if made.value is not None and most is not None and made.value > most:
        return Advice(
            "answer_length", most, f"half of the {most * 2:,} that the model reads", MODEL, "high", others[1:]
        )
    return made


def temperature(facts: Facts, values: Values) -> Advice:
    """1, for RL: TRL."""
    others = [Alternative(0.7, "answers differ less: less to learn from"), Alternative(1.2, "answers differ more")]
    return _for_rewards(facts, "temperature", TEMPERATURE, others)


def _for_rewards(facts: Facts, field: str, number: Number, others: list[Alternative]) -> Advice:
    if facts.kind != "rl":
        return Advice(field, None, "only for learning from rewards", number.source, "high")
    return Advice(field, number.value, number.reason, number.source, number.confidence, others)


def save_every(facts: Facts, values: Values) -> Advice:
    """About five checkpoints a run, none more than 500 steps apart."""
    steps = _steps(facts, values)
    chosen = min(500, max(1, math.ceil(steps / 5)))
    others = [Alternative(25, "the Phi-2 QLoRA tutorial's, whatever the length of the run")]
    return Advice(
        "save_every",
        chosen,
        f"{steps:,} steps, about {_times(steps, chosen)} checkpoints",
        RULE,
        "medium",
        others,
    )


def sample_every(facts: Facts, values: Values) -> Advice:
    """About eight answers to the probe prompt a run, none more than 200 steps apart."""
    steps = _steps(facts, values)
    chosen = min(200, max(1, math.ceil(steps / 8)))
    others = [Alternative(2 * chosen, "half as many answers; each takes a few seconds")]
    if chosen > 1:
        others.insert(0, Alternative(chosen // 2, "twice as many answers"))
    return Advice("sample_every", chosen, f"about {_times(steps, chosen)} answers to watch", RULE, "medium", others)


def seed(facts: Facts, values: Values) -> Advice:
    others = [Alternative(0, "other noise; results differ a little")]
    return Advice("seed", 42, "repeats the run exactly", TRL, "high", others)


def _steps(facts: Facts, values: Values) -> int:
    return optimizer_steps(facts, Settings(**{**values, "save_every": 1, "sample_every": 1}))


def _times(steps: int, every: int) -> int:
    return max(1, round(steps / every))
