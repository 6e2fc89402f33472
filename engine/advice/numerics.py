"""Rules for how long a row may be, and in which numbers it is computed: length, positions, precision, attention, optimizer."""

from __future__ import annotations

from engine.advice.fit import fits
from engine.advice.kinds import Advice, Alternative, Facts, Values
from engine.advice.numbers import (
    DATA,
    GALORE,
    GUIDE,
    HARDWARE,
    MEASURED,
    MODEL,
    PACK_EACH,
    PACK_FROM,
    PACKING_ROWS,
    PACKING_TEXT,
    RULE,
    TEXT_LENGTH,
    TRL,
    TUTORIAL,
    WALKTHROUGH,
)
from engine.models.support import padded
from engine.recipe import PACKED
from engine.text import plural

_LENGTH_STEP = 64


def max_length(facts: Facts, values: Values) -> Advice:
    """p99 rounded up to 64 tokens, capped by the model's context. From the distribution: vendor guide. Of texts, which are
    divided, 2048 at most: LLaMA-Factory.

    Rows are counted whole, system prompt and answer included, with the model's tokenizer after its template; of a pair
    the longer side counts (vendor guide).
    """
    context = facts.model.context if facts.model else None
    if context is not None:
        context = max(8, context - (values["answer_length"] or 0))  # answers follow the prompts
    wanted, divides = _rounded(facts.p99), "divides" if facts.divided else "cuts"
    chosen = min(wanted, context or wanted)
    if facts.divided and chosen > TEXT_LENGTH.value:
        others = [
            Alternative(TEXT_LENGTH.value // 2, "shorter parts: less memory and time, less that a part looks back on"),
            Alternative(chosen, "longer parts: each looks back on more, memory and time grow"),
        ]
        return Advice(
            "max_length", TEXT_LENGTH.value, TEXT_LENGTH.reason, TEXT_LENGTH.source, TEXT_LENGTH.confidence, others
        )
    others = [
        Alternative(_rounded(facts.max), f"{divides} no row; takes more memory for the longest ones"),
        Alternative(_rounded(facts.p95), f"{divides} up to 5 % of the rows; takes less memory"),
    ]
    if context is not None:
        others.append(Alternative(context, "the model's own limit (Phi-2 QLoRA tutorial, which drops longer rows)"))
    others = [other for other in others if other.value != chosen and other.value <= (context or other.value)]
    if chosen < wanted:
        reason = f"the model reads {context:,}; p99 is {facts.p99:,}"
        return Advice("max_length", chosen, reason, MODEL, "high", others)
    share = "all" if facts.max <= wanted else "99 % of"
    reason = f"{share} your rows fit, longest {facts.max:,}" if facts.exact else f"{share} rows fit, by an estimate"
    return Advice("max_length", chosen, reason, DATA, "high" if facts.exact else "medium", others)


def _rounded(length: int) -> int:
    """Up to the next multiple of 64 tokens."""
    return -(-max(8, length) // _LENGTH_STEP) * _LENGTH_STEP


def rope(facts: Facts, values: Values) -> Advice:
    """None, unless the length is beyond the model's context: LLaMA-Factory walk-through. Then linear, the simplest."""
    context = facts.model.context if facts.model else None
    if context is None or max(facts.max, values["max_length"]) <= context:
        return Advice("rope", "none", "no row goes beyond the model's context", WALKTHROUGH, "high")
    if facts.model is None or facts.model.rope != "default":
        return Advice("rope", "none", "this model's positions cannot stretch", MODEL, "high")
    stretched = [
        Alternative("linear", "squeezes all positions alike; tune on long rows, with a max_length beyond the context"),
        Alternative("yarn", "squeezes slow positions only, loses less on short rows; tune on long rows"),
        Alternative("llama3", "as yarn, in the way of Llama 3.1; tune on long rows"),
    ]
    if values["max_length"] <= context:
        return Advice("rope", "none", f"rows are cut at the context of {context:,}", WALKTHROUGH, "high", stretched)
    times = values["max_length"] / context
    others = [
        *stretched[1:],
        Alternative("dynamic", "grows with the row; LLaMA-Factory warns that it may not suit tuning"),
        Alternative("none", "the model reads nothing beyond its context: the plan is refused"),
    ]
    return Advice("rope", "linear", f"{times:.1f} times the context", WALKTHROUGH, "low", others)


def precision(facts: Facts, values: Values) -> Advice:
    """From the hardware, never from the checkpoint's type: a processor that has to emulate bf16 is 8 times slower."""
    if facts.hardware.device == "cuda":
        if facts.hardware.bf16:
            others = [
                Alternative("fp32", "exact, twice the memory, several times slower"),
                Alternative("fp16", "overflows: diverged in a fifth of 7B runs; the Phi-2 tutorial used it"),
            ]
            return Advice("precision", "bf16", "this card computes in bf16", HARDWARE, "high", others)
        others = [Alternative("fp32", "never overflows; twice the memory, several times slower")]
        return Advice("precision", "fp16", "this card has no bf16", HARDWARE, "medium", others)
    if not facts.hardware.cpu_bf16:
        others = [Alternative("bf16", "half the memory, about 8 times slower on this processor (measured)")]
        return Advice("precision", "fp32", "this processor has no bf16 instructions", HARDWARE, "high", others)
    if not fits(facts, values, precision="fp32") and fits(facts, values, precision="bf16"):
        others = [Alternative("fp32", "does not fit in memory here")]
        return Advice("precision", "bf16", "fp32 does not fit in memory, bf16 does", HARDWARE, "medium", others)
    others = [Alternative("bf16", "half the memory, but slower in training on AVX512-bf16 (measured)")]
    return Advice("precision", "fp32", "trains faster than bf16 on a processor", MEASURED, "medium", others)


def attention(facts: Facts, values: Values) -> Advice:
    """torch's own fused attention: nothing to install, and it picks the kernel (LLaMA-Factory walk-through: auto)."""
    others = [Alternative("eager", "written out, to compare with: slower, and memory grows with the length squared")]
    if facts.hardware.device == "cuda" and facts.hardware.bf16 and values["precision"] != "fp32":
        others.insert(0, Alternative("flash_attention_2", "faster on long rows; needs the package flash-attn"))
    return Advice("attention", "sdpa", "torch picks the fastest kernel here", WALKTHROUGH, "high", others)


def unpadded(facts: Facts, values: Values) -> Advice:
    """On: the same losses to the last digits (tests/engine/worker/test_unpadded.py) from fewer tokens."""
    others = [Alternative(False, "rows filled up to the longest, as other trainers do: slower")]
    if facts.model is not None and facts.model.shape != "causal":
        return Advice("unpadded", False, "this kind of model is computed padded", MODEL, "high")
    return Advice("unpadded", True, "same losses, no padding computed", "measured", "high", others)


def packing(facts: Facts, values: Values) -> Advice:
    """On for continued pre-training: LLaMA-Factory packs there unless told otherwise. For SFT off under 5,000 rows, where packs
    would leave too few steps, and where less than four rows of the mean length fit into `max_length`.
    """
    if facts.stage not in PACKED:
        return Advice("packing", False, "this stage takes rows one by one", TRL, "high")
    wanted = {name: values[name] for name in ("method", "attention", "neftune", "unpadded")}
    if padded(facts.model, **wanted)[0]:
        return Advice("packing", False, "rows are computed padded here", MODEL, "high")
    each = values["max_length"] / max(1.0, facts.tokens_per_row)
    together = Alternative(True, f"about {max(1.0, each):.1f} rows together: fewer, larger steps")
    if facts.stage == "pretraining":
        others = [Alternative(False, "text by text: more steps, of fewer tokens")]
        return Advice("packing", True, PACKING_TEXT.reason, PACKING_TEXT.source, PACKING_TEXT.confidence, others)
    if facts.rows < PACK_FROM:
        return Advice(
            "packing",
            False,
            f"{plural(facts.rows, 'row', 'needs its', 'need their')} steps",
            RULE,
            "medium",
            [together],
        )
    if each < PACK_EACH:
        return Advice("packing", False, f"only {each:.1f} rows would fit into a pack", RULE, "medium", [together])
    others = [Alternative(False, "row by row: the same tokens in more steps")]
    reason = f"{plural(facts.rows, 'row')}, {each:.0f} fit into {values['max_length']:,}"
    return Advice("packing", True, reason, PACKING_ROWS.source, PACKING_ROWS.confidence, others)


def fused_lora(facts: Facts, values: Values) -> Advice:
    """On: the same losses to the last digits (tests/engine/worker/test_fused_lora.py), and a quicker dropout."""
    others = [Alternative(False, "peft's own steps: slower on a processor")]
    return Advice("fused_lora", True, "same losses, fewer passes over memory", "measured", "high", others)


def optimizer(facts: Facts, values: Values) -> Advice:
    """AdamW (vendor guide); paged with 8-bit moments for QLoRA on a GPU (Phi-2 QLoRA tutorial)."""
    if values["method"] == "galore":
        return Advice("optimizer", "adamw_torch", "GaLore brings its own AdamW", GALORE, "high")
    if facts.hardware.device == "cpu":
        others = [Alternative("paged_adamw_8bit", "8-bit moments; paging needs a GPU and is left out here")]
        reason = "AdamW; paging to memory needs a GPU" if values["method"] == "qlora" else "AdamW, one kernel a matrix"
        return Advice("optimizer", "adamw_torch_fused", reason, GUIDE, "high", others)
    if values["method"] == "qlora":
        others = [Alternative("adamw_torch_fused", "exact moments, four times their memory")]
        return Advice(
            "optimizer", "paged_adamw_8bit", "memory is scarce: 8 bit, and it pages", TUTORIAL, "high", others
        )
    others = [Alternative("paged_adamw_8bit", "a quarter of the moments' memory, slightly less exact")]
    return Advice("optimizer", "adamw_torch_fused", "AdamW in one kernel", TRL, "high", others)
