"""How long a run will take: from a measured speed where there is one, else arithmetic that says so."""

from __future__ import annotations

from engine.advice import fields
from engine.advice.epoch import Epoch, epoch, of, optimizer_steps
from engine.advice.kinds import Facts, held_out
from engine.recipe import PPO_PASSES, Settings
from engine.speeds import Work, best, operations

# A core's fp32 matrix products with AVX2, and with AVX512, measured; training reaches 0.4 to 0.6 of that, less the shorter
# the rows are (docs/performance.md).
_CORE_FLOPS, _CORE_FLOPS_WIDE = 80e9, 160e9
_CPU_SHARE = 0.4
# What the makers state for dense 16-bit products, by a word of the card's name (first match wins);
# training with ordinary kernels reaches about a third of it at best.
_GPU_FLOPS = (
    ("H200", 989e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("A6000", 155e12),
    ("V100", 125e12),
    ("T4", 65e12),
    ("5090", 210e12),
    ("4090", 165e12),
    ("3090", 71e12),
)
_GPU_SHARE = 0.3
_QLORA_SLOWER = 1.7  # 1.4 to 2 times LoRA


def seconds(facts: Facts, settings: Settings) -> tuple[float | None, str]:
    """(seconds from the first optimizer step to the last, evaluation included; where it comes from).

    None where nothing is known about the device. Loading, answers to the probe prompt and checks come on top.
    """
    if facts.kind == "rl" and facts.hardware.device == "cuda":
        return None, "not known: drawing answers a token at a time hangs on more than a card's arithmetic"
    if facts.model is None:
        return None, "not known before a model is picked"
    made, updates = epoch(facts, of(settings)), optimizer_steps(facts, settings)
    speed = best(facts.speeds, facts.model, settings)
    laid = not speed.padded if speed else fields.laid(facts.stage, facts.model, settings)
    tokens = _laid(facts, made, settings) if laid else _padded(made, settings)
    work = Work.of(settings)
    # A forward pass takes 2 of the operations that training takes.
    forward = 2.0 / operations(facts.model, work)
    if facts.kind == "rl":
        passes, tokens, most = (
            *_answered(facts, settings, updates, tokens, forward),
            "at most, with answers of full length: ",
        )
    else:
        # Every evaluation is a forward pass over the held-out rows, which are as long as the others.
        held = held_out(facts.rows, settings.eval_fraction)
        held_items = held / max(1, facts.rows - held) * made.items
        passes, most = settings.epochs * made.items + (updates // settings.save_every) * held_items * forward, ""
    if facts.stage in ("dpo", "kto"):
        passes += facts.rows * forward  # the reference reads every row once
    if facts.stage in ("dpo", "reward"):
        passes *= 2  # two sides a row
    if speed is not None:
        return speed.seconds(passes * tokens, passes / settings.micro_batch, updates), most + speed.told
    rate, where = _rate(facts, settings)
    if rate is None:
        return None, "not known before a probe (`ftui probe`): no stated speed for this card"
    each = operations(facts.model, work)
    slower = _QLORA_SLOWER if settings.method == "qlora" and facts.hardware.device == "cuda" else 1.0
    total = passes * tokens * each * facts.model.parameters * slower
    measures = "`ftui probe` measures" if facts.model.shape == "causal" else "the run itself measures"
    return total / rate, f"{most}rough estimate, {each:.3g} N operations a token at {where}; {measures}"


def _answered(facts: Facts, settings: Settings, updates: int, prompt: float, forward: float) -> tuple[float, float]:
    """(answers as passes of training, tokens of one with its prompt at most), of rewards that cost nothing themselves.

    Each answer is drawn token by token, which takes a forward pass over its prompt and itself; the reference reads it, and
    PPO the model itself once more; then it is learned from, by PPO several times.
    """
    ppo = facts.stage == "ppo"
    answers = updates * settings.micro_batch * settings.accumulation / (PPO_PASSES if ppo else 1)
    reads = 1 + int(ppo) + int(ppo or bool(settings.beta))
    return answers * ((PPO_PASSES if ppo else 1) + reads * forward), prompt + (settings.answer_length or 0)


def _laid(facts: Facts, made: Epoch, settings: Settings) -> float:
    """Tokens computed a row, of a pair a side, where rows lie end to end: what all of a micro-batch begin with is there once,
    and so is the prompt of a pair."""
    each = made.tokens / max(1, made.items)
    once = facts.shared * (made.parts / max(1, made.items) - 1 / settings.micro_batch)
    if facts.stage in ("dpo", "reward"):
        once = (once + facts.mean_start) / 2
    return max(1.0, each - once)


def _padded(made: Epoch, settings: Settings) -> float:
    """Tokens computed a row (of packs, each): those of a micro-batch are padded to the longest of them.

    With every row's length known this is the expected largest of `micro_batch` rows drawn at random; else the mean.
    """
    import numpy as np

    if settings.packing:
        return made.tokens / max(1, made.items)
    ordered = made.sample
    # The largest of `micro_batch` rows has at most rank k of n with probability (k / n) ** micro_batch.
    reached = (np.arange(len(ordered) + 1) / len(ordered)) ** settings.micro_batch
    return float(ordered @ np.diff(reached))


def _rate(facts: Facts, settings: Settings) -> tuple[float | None, str]:
    """(operations a second that training reaches, in words)."""
    hardware = facts.hardware
    if hardware.device == "cpu":
        core = _CORE_FLOPS_WIDE if hardware.cpu_wide else _CORE_FLOPS
        return hardware.cores * core * _CPU_SHARE, f"0.4 of {core / 1e9:.0f} GFLOP/s a core"
    for word, peak in _GPU_FLOPS:
        if word in hardware.device_name:
            share = _GPU_SHARE if settings.precision != "fp32" else _GPU_SHARE / 8
            return peak * share, f"{peak * share / 1e12:.0f} TFLOP/s"
    return None, ""
