"""Where the sources contradict each other: shown beside the advice, never hidden."""

from __future__ import annotations

import math

from engine.advice.kinds import Advice, Facts, Kind, Values

_RATES: dict[Kind, str] = {
    "sft": (
        "the tuning primer says 1e-5 to 5e-5 and 1e-4 on new layers, the Phi-2 tutorial 2e-4, LLaMA-Factory's examples 1e-4 "
        "and TRL 2e-5"
    ),
    "identity": (
        "LLaMA-Factory's web page starts with 5e-5, of which its users report no effect, and 1e-3 works; the tuning primer "
        "says 1e-5 to 5e-5, the Phi-2 tutorial 2e-4"
    ),
    "pretraining": "the tuning primer says 1e-5 to 5e-5 on pre-trained weights and 1e-4 on new layers, the Phi-2 tutorial 2e-4",
    "dpo": "the tuning primer's 1e-5 to 5e-5 is far above what DPO bears: TRL 1e-6, LLaMA-Factory 5e-6 with LoRA",
    "kto": "the tuning primer's 1e-5 to 5e-5 is far above what KTO bears: TRL 1e-6, LLaMA-Factory 5e-6 with LoRA",
    "reward": "TRL says 1e-4, and 1e-5 in its example for all weights; LLaMA-Factory 1e-4 with LoRA",
    "rl": "TRL says 1e-6 for all methods, LLaMA-Factory's PPO example 1e-5 with LoRA",
}
_ALWAYS = {
    "rank": (
        "the vendor guide and the Phi-2 tutorial say 32, the tuning primer 4 to 32, the PEFT overview scales it with data and "
        "model; TRL starts with 16, LLaMA-Factory with 8"
    ),
    "alpha": (
        "the vendor guide says alpha = rank, the tuning primer 1 to 2 times the rank; TRL and LLaMA-Factory start with 2 times"
    ),
    "targets": (
        "the vendor guide adapts all four attention matrices, the Phi-2 tutorial q, k, v and dense, the tuning primer q and v; "
        "LoRA Without Regret measured all linear layers better, the MLP most of all"
    ),
    "dropout": "the Phi-2 tutorial and the tuning primer say 0.05, LLaMA-Factory and newer recipes 0",
    "double_quantization": "the Phi-2 tutorial turns it off, the tuning primer counts it to QLoRA",
    "precision": (
        "the Phi-2 tutorial computes in fp16, the LLaMA-Factory walk-through offers bf16, fp16, fp32 and pure bf16; fp16 "
        "diverged in a fifth of 7B runs"
    ),
    "max_length": (
        "the vendor guide cuts longer rows and counts with any tokenizer, the Phi-2 tutorial drops them and counts with the "
        "model's own; here they are cut, counted with the model's own"
    ),
    "epochs": (
        "the vendor guide says 2 to 10, the Phi-2 tutorial 1,000 steps of 4 rows, the walk-through many until the loss is flat; "
        "TRL and LLaMA-Factory start with 3"
    ),
    "stop_on_plateau": (
        "the vendor guide and the tuning primer stop when validation no longer improves, the walk-through when the training "
        "loss is flat, the Phi-2 tutorial after 1,000 steps"
    ),
    "warmup": "the Phi-2 tutorial warms up for 1 step, LLaMA-Factory's examples for 10 % of the steps",
    "save_every": (
        "the Phi-2 tutorial saves each 25 steps; the walk-through's 100 epochs are a slip, LLaMA-Factory counts steps"
    ),
}


def disagreement(made: Advice, facts: Facts, values: Values) -> str:
    """One sentence that shows how the sources differ about this advice, or "" where they do not."""
    if made.field == "method":
        return _method(made, facts)
    if made.field == "learning_rate":
        return _RATES[facts.kind]
    if made.field == "micro_batch":
        return _batch(facts, values)
    return _ALWAYS.get(made.field, "")


def _method(made: Advice, facts: Facts) -> str:
    packed = "the Phi-2 tutorial packs into 4 bit on a card of 16 GB"
    if made.value == "lora" and facts.hardware.device == "cuda":
        packed += ", which is only slower where LoRA fits, as it does here"
    return (
        "the vendor guide wants full tuning for complex tasks, LoRA Without Regret finds LoRA equal on small and medium data; "
        + packed
    )


def _batch(facts: Facts, values: Values) -> str:
    """With the updates that each would leave; 32 rows are what a card holds of short ones."""
    few, many = (math.ceil(math.ceil(facts.rows / batch) * values["epochs"]) for batch in (32, 4))
    return (
        "the vendor guide wants the largest batch that memory holds, the Phi-2 tutorial 1 x 4: 32 rows a step leave "
        f"{few:,} updates here, 4 leave {many:,}"
    )
