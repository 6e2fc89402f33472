"""The numbers that the rules stand on, each with who says so.

A number that a measurement overrules is changed here, in one line, with the source MEASURED; what the sources say stays in
sight among the alternatives.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from engine.advice.kinds import Kind
from engine.recipe import GALORE_SCALE, WHOLE, Method

GUIDE = "a cloud vendor's tuning guide"
TUTORIAL = "Phi-2 QLoRA tutorial"
PRIMER = "tuning primer"
WALKTHROUGH = "LLaMA-Factory walk-through"
PEFT = "PEFT overview"
REGRET = "LoRA Without Regret"
TRL = "TRL default"
PPO_PAPER = "PPO paper"
FACTORY = "LLaMA-Factory default"
MEASURED = "measured"
DATA = "your data"
HARDWARE = "hardware"
MODEL = "the model"
RULE = "rule of thumb"
PRACTICE = "common practice"
RSLORA = "rank-stabilised LoRA paper"
DORA = "DoRA paper"
PISSA = "PiSSA paper"
LORA_PLUS = "LoRA+ paper"
NEFTUNE = "NEFTune paper"
IA3 = "IA3 paper"
PROMPT = "prompt tuning paper"
PREFIX = "prefix tuning paper"
LIBRARY = "the library peft"
TRL_DOCS = "TRL documentation"
GALORE = "GaLore paper"
BOTTLENECK = "AdapterFusion paper"

# What a rate acts on: weights that were trained before, or a new adapter beside them.
Part = Literal["weights", "adapter"]


class Number(NamedTuple):
    """`reason` fits 40 terminal cells."""

    value: Any  # of the setting's own type
    source: str
    reason: str
    confidence: Literal["high", "medium", "low"] = "high"


def part(method: Method) -> Part:
    return "weights" if method in WHOLE else "adapter"


# How many times the rate of its part a method wants. Of a step in GaLore's space only a quarter counts. The others were measured
# by the held-out loss of the starter model after 16 steps of 4 instructions (docs/methods.md).
STEEPER: dict[Method, Number] = {
    "galore": Number(1 / GALORE_SCALE, GALORE, "4 times full tuning's: a quarter counts", "medium"),
    "ia3": Number(15.0, IA3, "15 times LoRA's: its factors start at 1", "medium"),
    "prompt": Number(150.0, MEASURED, "150 times LoRA's: few numbers learn", "low"),
    "prefix": Number(50.0, MEASURED, "50 times LoRA's: few numbers learn", "low"),
}


def steeper(method: Method) -> float:
    """How many times the rate of its part `method` wants."""
    return float(STEEPER[method].value) if method in STEEPER else 1.0


LEARNING_RATES: dict[tuple[Kind, Part], Number] = {
    ("sft", "weights"): Number(2e-5, PRIMER, "within 1e-5 to 5e-5"),
    ("sft", "adapter"): Number(2e-4, TUTORIAL, "adapters want 10 times the full rate"),
    ("identity", "weights"): Number(1e-4, REGRET, "a short run; a tenth of the adapters' 1e-3", "low"),
    ("identity", "adapter"): Number(2e-3, MEASURED, "few rows; held-out loss 8 % below 1e-3"),
    ("pretraining", "weights"): Number(2e-5, PRIMER, "within 1e-5 to 5e-5; keeps what it knows"),
    ("pretraining", "adapter"): Number(1e-4, PRIMER, "new layers want 1e-4; long, steady runs", "medium"),
    ("dpo", "weights"): Number(1e-6, TRL, "pairs pull hard: a twentieth of SFT"),
    ("dpo", "adapter"): Number(5e-6, FACTORY, "pairs pull hard: a fortieth of SFT", "medium"),
    ("kto", "weights"): Number(1e-6, TRL, "as for pairs: a twentieth of SFT"),
    ("kto", "adapter"): Number(5e-6, FACTORY, "as for pairs: a fortieth of SFT", "medium"),
    ("reward", "weights"): Number(1e-5, TRL, "its example for all weights", "medium"),
    ("reward", "adapter"): Number(1e-4, TRL, "a new head learns too: more than DPO"),
    ("rl", "weights"): Number(1e-6, TRL, "rewards are noisy: small steps"),
    ("rl", "adapter"): Number(1e-5, REGRET, "adapters want 10 times the full rate", "medium"),
}
# (lowest, highest) rates that are in use.
RATES_IN_USE: dict[tuple[Kind, Part], tuple[float, float]] = {
    ("sft", "weights"): (1e-6, 1e-4),
    ("sft", "adapter"): (5e-5, 2e-3),
    ("identity", "weights"): (1e-5, 1e-4),
    ("identity", "adapter"): (2.5e-4, 4e-3),  # its users report that LLaMA-Factory's 5e-5 has no effect, and 1e-3 has
    ("pretraining", "weights"): (1e-6, 1e-4),
    ("pretraining", "adapter"): (2e-5, 5e-4),
    ("dpo", "weights"): (1e-7, 1e-5),
    ("dpo", "adapter"): (5e-7, 5e-5),
    ("kto", "weights"): (1e-7, 1e-5),
    ("kto", "adapter"): (5e-7, 5e-5),
    ("reward", "weights"): (1e-6, 1e-4),
    ("reward", "adapter"): (1e-5, 1e-3),
    ("rl", "weights"): (1e-7, 1e-5),
    ("rl", "adapter"): (1e-6, 1e-4),
}

# Passes by rows: vendor guide (2 to 10, more when rows are few, about 2 when they are many).
SMALL_DATA, MEDIUM_DATA = 500, 5000
EPOCHS_SMALL = Number(10.0, GUIDE, "few rows want more passes (2 to 10)", "medium")
EPOCHS_MEDIUM = Number(3.0, GUIDE, "within 2 to 10", "medium")
EPOCHS_LARGE = Number(2.0, GUIDE, "2 passes are enough for many rows")
# Seven runs of the identity preset knew the name on ten of ten unseen questions after 5 passes.
EPOCHS_IDENTITY = Number(5.0, MEASURED, "a name takes within 5 passes")
# Pairs and ratings: its examples for DPO and KTO; passes over the same pairs soon learn them by heart.
EPOCHS_RATED = Number(3.0, FACTORY, "pairs are soon learned by heart", "medium")

FEW_ROWS = 200
RANK = Number(32, GUIDE, "the common choice from 200 rows on")
RANK_FEW_ROWS = Number(8, PEFT, "few rows hold little; 8 is enough", "medium")
RANK_GALORE = Number(4, GALORE, "a quarter of the model's width")  # of that width: its table 2
RANK_BOTTLENECK = Number(16, BOTTLENECK, "a sixteenth of the model's width")
RANK_RL = Number(8, REGRET, "a reward holds little; 8 is enough")
DROPOUT = Number(0.05, TUTORIAL, "a little noise against learning by heart", "medium")
DROPOUT_RATED = Number(0.0, TRL, "noise would hide which answer is ahead")
DROPOUT_RL = Number(0.0, PRACTICE, "rewards are noisy enough", "medium")
LORA_PLUS_RATIO = 16.0
NEFTUNE_ALPHA = 5.0
VIRTUAL_TOKENS = Number(20, PROMPT, "beyond 20 the gains are small", "medium")
BETA = Number(0.1, GUIDE, "the default; usually 0.1 to 0.5")
BETA_RL = Number(0.05, TRL, "keeps it near to what it was")
GENERATIONS = Number(8, TRL, "enough to tell a good answer from others")
ANSWER_LENGTH = Number(256, RULE, "longer ones are cut, and cost the most", "low")
TEMPERATURE = Number(1.0, TRL, "as the model itself would draw")
PROMPTS = 2  # whose answers a step learns from
PPO_PROMPTS = 16  # a round: as many answers as a step of the other two has
BETA_IN_USE = (0.1, 0.5)

# Full tuning of a complex task from this many rows on.
FULL_ROWS = 5000
TRAINED_LAYERS = Number(2, FACTORY, "freeze tuning trains the last layers", "medium")

# Texts fill whole sequences (LLaMA-Factory packs in pre-training unless told otherwise). Rows of SFT from some thousand on, since packs
# make fewer steps, where four of the mean length fit into one (TRL documentation: packing is for many short rows).
PACKING_TEXT = Number(True, FACTORY, "texts fill up what a micro-batch holds")
PACKING_ROWS = Number(True, TRL_DOCS, "many short rows", "medium")
PACK_FROM, PACK_EACH = 5000, 4

# Of texts, which are divided: longer parts cost memory and time, and lose nothing where they are shorter.
TEXT_LENGTH = Number(2048, FACTORY, "longer texts are divided, none is cut", "medium")

EVALUATE_FROM = 500
EVALUATE_RATED_FROM = 200  # a tenth are 20: fewer say little
EVAL_FRACTION = Number(0.1, TUTORIAL, "rows held out show if it generalises")
WANTED_STEPS = 100
LARGEST_BATCH: dict[Part, int] = {"weights": 32, "adapter": 16}  # adapters suffer from 32 on: LoRA Without Regret
TRAINING_GPUS = 1  # a run takes one card: `Hardware.gpu`
WARMUP = Number(0.05, PRACTICE, "5 % of the steps, against a rough start", "medium")

# Limits of warnings.
WARN_ROWS = 100
WARN_STEPS = 50
WARN_ADAPTER_BATCH = 32
WARN_HELD_OUT = 20
# More passes learn by heart: the upper end of the vendor guide's 2 to 10. With few rows a larger rank, or all weights,
# bears fewer: the vendor guide takes LoRA on a few hundred rows because it overfits less.
WARN_EPOCHS = 10
WARN_EPOCHS_RANK = 32

# The gate.
GATE_ROWS = 10  # fewer examples fit in a prompt
