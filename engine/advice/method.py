"""Rules for what is trained: method, quantisation, layers, adapter."""

from __future__ import annotations

import math

from engine.advice.fit import fits, need
from engine.advice.kinds import Advice, Alternative, Facts, Values, gigabytes, power_of_two
from engine.advice.numbers import (
    DORA,
    DROPOUT,
    DROPOUT_RATED,
    DROPOUT_RL,
    FACTORY,
    FEW_ROWS,
    FULL_ROWS,
    GUIDE,
    LORA_PLUS,
    LORA_PLUS_RATIO,
    NEFTUNE,
    NEFTUNE_ALPHA,
    PISSA,
    PRIMER,
    RANK,
    RANK_BOTTLENECK,
    RANK_FEW_ROWS,
    RANK_GALORE,
    RANK_RL,
    REGRET,
    RSLORA,
    TRAINED_LAYERS,
    VIRTUAL_TOKENS,
    Number,
)
from engine.recipe import VIRTUAL, WHOLE
from engine.text import plural

_SLOWER = "1.4 to 2 times slower"


def method(facts: Facts, values: Values) -> Advice:
    """Full for a complex task with more than 5000 rows where it fits; else LoRA; else QLoRA; else the smallest need.

    Vendor guide: full for complex tasks, LoRA or QLoRA for simple ones and for a few hundred to a few thousand rows, QLoRA
    where memory is scarce. That LoRA equals full tuning on small and medium data: LoRA Without Regret.
    """
    needs = {name: need(facts, values, method=name) for name in ("full", "freeze", "lora", "qlora", "ia3", "prompt")}
    needs["prefix"] = need(facts, values, method="prefix", gradient_checkpointing=False)
    for name, wide in (("galore", RANK_GALORE), ("bottleneck", RANK_BOTTLENECK)):
        needs[name] = need(facts, values, method=name, rank=_width(facts, wide))
    free, ppo = facts.hardware.budget, facts.stage == "ppo"  # which compares with the base under an adapter

    def cost(name: str) -> str:
        wanted = needs[name]
        return f"; needs at least {gigabytes(wanted.total)} of {gigabytes(free)} GB" if wanted else ""

    slower = _SLOWER if facts.hardware.device == "cuda" else "as fast on a processor (measured)"
    layers = int(TRAINED_LAYERS.value)
    others = {
        "full": Alternative("full", f"all weights learn, for complex tasks and much data{cost('full')}"),
        "lora": Alternative("lora", f"an adapter learns, the base stays{cost('lora')}"),
        "qlora": Alternative("qlora", f"as LoRA on a base packed into 4 bit, {slower}{cost('qlora')}"),
        "galore": Alternative(
            "galore", f"all weights, on a card that holds no Adam for them: GaLore shrinks its moments{cost('galore')}"
        ),
        "bottleneck": Alternative(
            "bottleneck", f"a small network in each layer learns; it cannot be merged{cost('bottleneck')}"
        ),
        "freeze": Alternative("freeze", f"only the last {layers} layers learn{cost('freeze')}"),
        "ia3": Alternative("ia3", f"factors for keys, values and features learn: no rank to choose{cost('ia3')}"),
        "prompt": Alternative("prompt", f"learned tokens: fewest parameters, weaker (tuning primer){cost('prompt')}"),
        "prefix": Alternative("prefix", f"learned keys and values ahead of it, in every layer{cost('prefix')}"),
    }
    refused = (*(WHOLE if ppo else ()), *(VIRTUAL if facts.stage == "reward" or facts.kind == "rl" else ()))

    def advice(name: str, reason: str, source: str, confidence: str = "high") -> Advice:
        rest = [other for key, other in others.items() if key != name and key not in refused]
        return Advice("method", name, reason, source, confidence, rest)  # type: ignore[arg-type]

    if not ppo and facts.complex_task and facts.rows > FULL_ROWS and fits(facts, values, method="full"):
        return advice("full", f"complex, {facts.rows:,} rows, and it fits", GUIDE, "medium")
    if fits(facts, values, method="lora"):
        if facts.rows <= FULL_ROWS:
            return advice("lora", f"{plural(facts.rows, 'row', 'is few', 'are few')}; the base stays", GUIDE)
        return advice("lora", "equals full tuning at this size", REGRET)
    lora, packed = needs["lora"], needs["qlora"]
    if lora and packed and packed.total <= free:
        return advice("qlora", f"4 bit: {gigabytes(packed.total)} GB; LoRA needs {gigabytes(lora.total)}", GUIDE)
    return advice("qlora", f"needs least memory; {gigabytes(free)} GB for it", GUIDE, "low")


def bits(facts: Facts, values: Values) -> Advice:
    """4, in NF4: tuning primer and Phi-2 tutorial. The vendor guide knows 8, too."""
    eight = need(facts, values, method="qlora", bits=8)
    cost = f"; needs at least {gigabytes(eight.total)} of {gigabytes(facts.hardware.budget)} GB" if eight else ""
    others = [Alternative(8, f"nearer to the base's numbers (vendor guide: 4 or 8){cost}")]
    return Advice("bits", 4, "NF4 loses little and needs least", PRIMER, "high", others)


def double_quantization(facts: Facts, values: Values) -> Advice:
    """On: tuning primer. 0.37 bit a packed parameter less, without loss by the QLoRA paper."""
    others = [Alternative(False, "0.4 bit more a packed parameter (Phi-2 QLoRA tutorial)")]
    return Advice("double_quantization", True, "packs the scales, too: 0.4 bit less", PRIMER, "high", others)


def trained_layers(facts: Facts, values: Values) -> Advice:
    """The last 2, of freeze tuning: it trains the top layers (LLaMA-Factory walk-through)."""
    layers = facts.model.layers if facts.model else None
    chosen = min(int(TRAINED_LAYERS.value), layers or 2)
    reason = f"the last {chosen} of {layers}" if layers else f"the last {chosen}"
    others = [Alternative(2 * chosen, "learns more; memory of twice the layers")]
    return Advice("trained_layers", chosen, reason, TRAINED_LAYERS.source, TRAINED_LAYERS.confidence, others)


def rank(facts: Facts, values: Values) -> Advice:
    """32; 8 under 200 rows and for reinforcement learning. Scale with data and model: PEFT overview.

    Of GaLore a quarter of the model's width, the width of bottleneck adapters a sixteenth: their papers.
    """
    if values["method"] == "galore":
        others = [
            Alternative(128, "its authors' example, whatever the model (LLaMA-Factory's, too)"),
            Alternative(8, "the paper's for short fine-tuning; far smaller moments"),
        ]
        return _adapter("rank", RANK_GALORE._replace(value=_width(facts, RANK_GALORE)), others)
    if values["method"] == "bottleneck":
        others = [
            Alternative(64, "among the first adapters' (Houlsby and others: 8 to 256)"),
            Alternative(2 * _width(facts, RANK_BOTTLENECK), "twice the adapter, for much data"),
        ]
        return _adapter("rank", RANK_BOTTLENECK._replace(value=_width(facts, RANK_BOTTLENECK)), others)
    others = [
        Alternative(16, "half the adapter of 32 (TRL default)"),
        Alternative(64, "twice the adapter of 32, for much data (PEFT overview: scale with data and model)"),
    ]
    if facts.kind == "rl":
        others.insert(0, Alternative(32, "the vendor guide's for SFT and DPO"))
        return _adapter("rank", RANK_RL, others)
    if facts.rows < FEW_ROWS:
        others.insert(0, Alternative(32, "the vendor guide's and the Phi-2 tutorial's, whatever the rows"))
        hold = plural(facts.rows, "row", "holds", "hold")
        few = RANK_FEW_ROWS._replace(reason=f"{hold} little; {RANK_FEW_ROWS.value:g} is enough")
        return _adapter("rank", few, others)
    others.insert(0, Alternative(8, "a quarter of the adapter of 32 (LLaMA-Factory's default)"))
    others.insert(0, Alternative(32, "the vendor guide's and the Phi-2 tutorial's"))
    return _adapter("rank", RANK, others)


def _width(facts: Facts, part: Number) -> int:
    """That part of the model's width, as a power of two; of 1024 while no model is picked."""
    return power_of_two((facts.model.hidden if facts.model else 1024) / part.value)


def alpha(facts: Facts, values: Values) -> Advice:
    """The same as the rank. 2 x rank as the alternative."""
    chosen = values["rank"]
    others = [Alternative(2 * chosen, "the adapter weighs twice as much (tuning primer: 1 to 2 times the rank)")]
    return Advice("alpha", chosen, "equal to the rank: weighs 1", GUIDE, "high", others)


def dropout(facts: Facts, values: Values) -> Advice:
    """0.05: Phi-2 QLoRA tutorial and tuning primer; 0 for preferences (TRL) and reinforcement learning."""
    if facts.rated:
        others = [Alternative(0.05, "the Phi-2 QLoRA tutorial's and the tuning primer's for SFT")]
        return _adapter("dropout", DROPOUT_RATED, others)
    if facts.kind == "rl":
        others = [Alternative(0.05, "the Phi-2 QLoRA tutorial's and the tuning primer's for SFT")]
        return _adapter("dropout", DROPOUT_RL, others)
    others = [
        Alternative(0.0, "less memory and a little faster; usual in newer recipes"),
        Alternative(0.05, "the Phi-2 QLoRA tutorial's and the tuning primer's"),
    ]
    return _adapter("dropout", DROPOUT, others)


def targets(facts: Facts, values: Values) -> Advice:
    """All linear layers; the vendor guide and the tutorials adapt attention only."""
    others = [Alternative("attention", "a smaller adapter; the vendor guide's four matrices, the tutorials' choice")]
    return Advice("targets", "all-linear", "better than attention alone", REGRET, "high", others)


def rslora(facts: Facts, values: Values) -> Advice:
    """Off: with alpha = rank no rank is held back. It mends what alpha / rank does to large ranks where alpha stays."""
    scale, usual = values["alpha"] / math.sqrt(values["rank"]), values["alpha"] / values["rank"]
    others = [
        Alternative(True, f"weighs {scale:.3g} instead of {usual:.3g}: for ranks from 64 on with a smaller alpha")
    ]
    return Advice("rslora", False, "alpha grows with the rank already", RSLORA, "medium", others)


def dora(facts: Facts, values: Values) -> Advice:
    """Off: the gain is small, and each step takes longer (DoRA paper)."""
    others = [Alternative(True, "direction and size learn apart: a bit better at low ranks, slower")]
    return Advice("dora", False, "slower; a bit better at low ranks", DORA, "medium", others)


def init(facts: Facts, values: Values) -> Advice:
    """Noise and zeros: the base is the same until the first step. PiSSA starts from the matrix's main components."""
    others = [Alternative("pissa", "from the largest components: faster at first; the result takes twice the rank")]
    plain = values["method"] != "qlora"  # packed matrices cannot be taken apart
    return Advice("init", "default", "starts as the base itself", PISSA, "medium", others if plain else [])


def lora_plus(facts: Facts, values: Values) -> Advice:
    """None. 16 as the alternative: its paper, for which B should learn faster than A."""
    others = [Alternative(LORA_PLUS_RATIO, "B at 16 times the rate of A (its paper); wants a lower learning_rate")]
    return Advice("lora_plus", None, "one rate for A and B", LORA_PLUS, "medium", others)


def neftune(facts: Facts, values: Values) -> Advice:
    """None. 5 as the alternative: its paper, for which noise on the embeddings makes answers longer and freer."""
    others = [Alternative(NEFTUNE_ALPHA, "noise on the embeddings (its paper: 5 to 15): longer, freer answers")]
    fits_in = facts.kind != "rl" and values["method"] not in VIRTUAL
    return Advice("neftune", None, "no noise; answers stay near the rows", NEFTUNE, "medium", others if fits_in else [])


def virtual_tokens(facts: Facts, values: Values) -> Advice:
    """20, of prompt and prefix tuning. The prompt tuning paper: gains are small beyond 20; it trains 100."""
    others = [Alternative(100, "what the prompt tuning paper trains; each takes room of the context")]
    return _adapter("virtual_tokens", VIRTUAL_TOKENS, others)


def added_tokens(facts: Facts, values: Values) -> Advice:
    """None: what a word means is learned from its pieces; a token of its own starts from nothing (LLaMA-Factory: none)."""
    return Advice("added_tokens", (), "the vocabulary stays as it is", FACTORY, "high")


def _adapter(field: str, number: Number, others: list[Alternative]) -> Advice:
    return Advice(field, number.value, number.reason, number.source, number.confidence, others)
