"""Rules for what is trained, and in which numbers: length, precision, method, adapter, optimizer."""

from __future__ import annotations

from engine.advice.fit import fits, need
from engine.advice.kinds import Advice, Alternative, Facts, Values, gigabytes

FEW_ROWS = 200
LARGE_DATA = 5000
_LENGTH_STEP = 64

GUIDE = "a cloud vendor's tuning guide"
TUTORIAL = "Phi-2 QLoRA tutorial"
PRIMER = "tuning primer"
WALKTHROUGH = "LLaMA-Factory walk-through"
PEFT = "PEFT overview"
REGRET = "LoRA Without Regret"


def max_length(facts: Facts, values: Values) -> Advice:
    """p99 rounded up to 64 tokens, capped by the model's context. From the distribution: vendor guide."""
    context = facts.model.context if facts.model else None
    wanted = _rounded(facts.p99)
    chosen = min(wanted, context or wanted)
    others = [
        Alternative(_rounded(facts.max), "cuts no row; takes more memory for the longest ones"),
        Alternative(_rounded(facts.p95), "cuts up to 5 % of the rows; takes less memory"),
    ]
    if context is not None:
        others.append(Alternative(context, "the model's own limit (Phi-2 QLoRA tutorial, which drops longer rows)"))
    others = [other for other in others if other.value != chosen and other.value <= (context or other.value)]
    if chosen < wanted:
        reason = f"the model reads {context:,}; p99 is {facts.p99:,}"
        return Advice("max_length", chosen, reason, "the model", "high", others)
    share = "all" if facts.max <= wanted else "99 % of"
    reason = f"{share} your rows fit, longest {facts.max}" if facts.exact else f"{share} rows fit, by an estimate"
    return Advice("max_length", chosen, reason, "your data", "high" if facts.exact else "medium", others)


def _rounded(length: int) -> int:
    """Up to the next multiple of 64 tokens."""
    return -(-max(8, length) // _LENGTH_STEP) * _LENGTH_STEP


def precision(facts: Facts, values: Values) -> Advice:
    """From the hardware, never from the checkpoint's type: a processor that has to emulate bf16 is 8 times slower."""
    if facts.hardware.device == "cuda":
        if facts.hardware.bf16:
            others = [
                Alternative("fp32", "exact, twice the memory, several times slower"),
                Alternative("fp16", "overflows: diverged in a fifth of 7B runs; the Phi-2 tutorial used it"),
            ]
            return Advice("precision", "bf16", "this card computes in bf16", "hardware", "high", others)
        others = [Alternative("fp32", "never overflows; twice the memory, several times slower")]
        return Advice("precision", "fp16", "this card has no bf16", "hardware", "medium", others)
    if not facts.hardware.cpu_bf16:
        others = [Alternative("bf16", "half the memory, about 8 times slower on this processor (measured)")]
        return Advice("precision", "fp32", "this processor has no bf16 instructions", "hardware", "high", others)
    if not fits(facts, values, precision="fp32") and fits(facts, values, precision="bf16"):
        others = [Alternative("fp32", "does not fit in memory here")]
        return Advice("precision", "bf16", "fp32 does not fit in memory, bf16 does", "hardware", "medium", others)
    others = [Alternative("bf16", "half the memory, but slower in training on AVX512-bf16 (measured)")]
    return Advice("precision", "fp32", "trains faster than bf16 on a processor", "measured", "medium", others)


def method(facts: Facts, values: Values) -> Advice:
    """Full for a complex task with more than 5000 rows where it fits; else LoRA; else QLoRA; else the smallest need."""
    needs = {name: need(facts, values, method=name) for name in ("full", "lora", "qlora")}
    free = facts.hardware.budget

    def cost(name: str) -> str:
        wanted = needs[name]
        return f"; needs at least {gigabytes(wanted.total)} of {gigabytes(free)} GB" if wanted else ""

    on_gpu = facts.hardware.device == "cuda"
    slower = "1.4 to 2 times slower" if on_gpu else "as fast on a processor (measured)"
    others = {
        "full": Alternative("full", f"all weights learn, for complex tasks and much data{cost('full')}"),
        "lora": Alternative("lora", f"an adapter learns, the base stays{cost('lora')}"),
        "qlora": Alternative("qlora", f"as LoRA on a base packed into 4 bit, {slower}{cost('qlora')}"),
    }

    def advice(name: str, reason: str, source: str, confidence: str = "high") -> Advice:
        rest = [other for key, other in others.items() if key != name]
        return Advice("method", name, reason, source, confidence, rest)  # type: ignore[arg-type]

    if facts.complex_task and facts.rows > LARGE_DATA and fits(facts, values, method="full"):
        return advice("full", f"complex, {facts.rows:,} rows, and it fits", GUIDE, "medium")
    if fits(facts, values, method="lora"):
        if facts.rows <= LARGE_DATA:
            return advice("lora", f"{facts.rows:,} rows are few; the base stays", GUIDE)
        return advice("lora", "equals full tuning at this size", REGRET)
    lora, packed = needs["lora"], needs["qlora"]
    if lora and packed and packed.total <= free:
        return advice("qlora", f"4 bit: {gigabytes(packed.total)} GB; LoRA needs {gigabytes(lora.total)}", GUIDE)
    return advice("qlora", f"needs least memory; {gigabytes(free)} GB are free", GUIDE, "low")


def rank(facts: Facts, values: Values) -> Advice:
    """32; 8 under 200 rows. Scale with data and model: PEFT overview."""
    others = [
        Alternative(16, "half the adapter of 32 (TRL default)"),
        Alternative(64, "twice the adapter of 32, for much data (PEFT overview: scale with data and model)"),
    ]
    if facts.rows < FEW_ROWS:
        others.insert(0, Alternative(32, "the vendor guide's and the Phi-2 tutorial's, whatever the rows"))
        return Advice("rank", 8, f"{facts.rows} rows hold little; 8 is enough", PEFT, "medium", others)
    others.insert(0, Alternative(8, "a quarter of the adapter (LLaMA-Factory's default)"))
    return Advice("rank", 32, "the common choice from 200 rows on", GUIDE, "high", others)


def alpha(facts: Facts, values: Values) -> Advice:
    """The same as the rank. 2 x rank as the alternative."""
    chosen = values["rank"]
    others = [Alternative(2 * chosen, "the adapter weighs twice as much (tuning primer: 1 to 2 times the rank)")]
    return Advice("alpha", chosen, "equal to the rank: weighs 1", GUIDE, "high", others)


def dropout(facts: Facts, values: Values) -> Advice:
    """0.05: Phi-2 QLoRA tutorial and tuning primer."""
    others = [Alternative(0.0, "less memory and a little faster; usual in newer recipes")]
    return Advice("dropout", 0.05, "a little noise against learning by heart", TUTORIAL, "medium", others)


def targets(facts: Facts, values: Values) -> Advice:
    """All linear layers; the seeds adapt attention only."""
    others = [Alternative("attention", "a smaller adapter; the vendor guide's four matrices, the tutorials' choice")]
    return Advice("targets", "all-linear", "better than attention alone", REGRET, "high", others)


def optimizer(facts: Facts, values: Values) -> Advice:
    """AdamW; paged with 8-bit moments for QLoRA on a GPU."""
    if facts.hardware.device == "cpu":
        others = [Alternative("paged_adamw_8bit", "8-bit moments; paging needs a GPU and is left out here")]
        reason = "AdamW; paging to memory needs a GPU" if values["method"] == "qlora" else "AdamW, plain on a processor"
        return Advice("optimizer", "adamw_torch", reason, GUIDE, "high", others)
    if values["method"] == "qlora":
        others = [Alternative("adamw_torch_fused", "exact moments, four times their memory")]
        return Advice(
            "optimizer", "paged_adamw_8bit", "memory is scarce: 8 bit, and it pages", TUTORIAL, "high", others
        )
    others = [Alternative("paged_adamw_8bit", "a quarter of the moments' memory, slightly less exact")]
    return Advice("optimizer", "adamw_torch_fused", "AdamW in one kernel on a GPU", "TRL default", "high", others)
