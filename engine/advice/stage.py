"""What kind of training the rows are for: told by their columns."""

from __future__ import annotations

from msgspec.structs import replace

from engine.advice.kinds import Advice, Alternative, Facts
from engine.advice.numbers import GUIDE, PRIMER, TRL, WALKTHROUGH
from engine.models.shape import Shape
from engine.recipe import Stage

NAMES: dict[Stage, str] = {
    "sft": "SFT",
    "pretraining": "continued pre-training",
    "dpo": "DPO",
    "kto": "KTO",
    "reward": "reward model",
    "grpo": "GRPO",
    "rloo": "RLOO",
    "ppo": "PPO",
}
# What the losses beside a stage's own are for, by the papers that brought them.
LOSS_EFFECTS: dict[str, str] = {
    "hinge": "stops pushing a pair once it is clearly apart (SLiC)",
    "ipo": "aims at a fixed gap: learns pairs less by heart (IPO)",
    "exo_pair": "the reverse divergence, for labels that are hardly ever wrong (EXO)",
    "nca_pair": "keeps the better answer from becoming less likely (NCA)",
    "robust": "for labels of which about a tenth are wrong (rDPO)",
    "bco_pair": "each answer for itself against a threshold (BCO)",
    "sppo_hard": "aims at half a win for each side (SPPO)",
    "aot": "compares the batch as a whole, not pair by pair (AOT)",
    "aot_unpaired": "as aot, for pairs that belong loosely together",
    "apo_zero": "for answers better than the model's own: raises them, lowers the worse (APO)",
    "apo_down": "for answers worse than the model's own: lowers both, the worse one more (APO)",
    "grpo": "each answer weighs the same, however long: long wrong ones get off lightly (GRPO)",
    "dr_grpo": "divides by a fixed length: no reward for being short or long (Dr. GRPO)",
    "bnpo": "each token of the batch weighs the same, micro-batch by micro-batch (BNPO)",
    "apo_zero_unpaired": "no estimate of the drift: works row by row (APO)",
    "sigmoid_norm": "the sigmoid of gaps per token: length counts less",
}

_VALUES = "the primer and the walk-through name PPO, which TRL no longer has: RLOO and GRPO need no value head, and come first"
_ADVICE: dict[Stage, Advice] = {
    "sft": Advice(
        "stage",
        "sft",
        "questions with answers: SFT",
        GUIDE,
        "high",
        [Alternative("dpo", "after SFT, with a better and a worse answer to each prompt (vendor guide)")],
        "the vendor guide follows SFT by DPO, the primer by a reward model and PPO",
    ),
    "pretraining": Advice(
        "stage",
        "pretraining",
        "bare text: continued pre-training",
        WALKTHROUGH,
        "high",
        [Alternative("sft", "needs an answer in each row; teaches to answer, not only to go on writing")],
    ),
    "dpo": Advice(
        "stage",
        "dpo",
        "a better and a worse answer: DPO",
        GUIDE,
        "high",
        [
            Alternative("reward", "trains a judge from the same pairs, for RLOO or GRPO later"),
            Alternative("sft", "trains on the chosen answers alone"),
        ],
        "the primer trains a reward model and then PPO; the vendor guide takes DPO: steadier, and needs no reward model",
    ),
    "kto": Advice(
        "stage",
        "kto",
        "answers rated good or bad: KTO",
        WALKTHROUGH,
        "high",
        [
            Alternative("sft", "needs good answers: leave out the rows that are rated bad"),
            Alternative("dpo", "needs a good and a bad answer to the same prompt"),
        ],
    ),
    "reward": Advice(
        "stage",
        "reward",
        "a better and a worse answer: a judge for RL",
        PRIMER,
        "high",
        [Alternative("dpo", "learns from the same pairs at once, without a reward model (vendor guide)")],
        "the primer trains a reward model and then PPO; the vendor guide takes DPO: steadier, and needs no reward model",
    ),
    "grpo": Advice(
        "stage",
        "grpo",
        "prompts and a reward: GRPO, or RLOO",
        PRIMER,
        "medium",
        [
            Alternative("rloo", "compares each answer with the others to its prompt, without scaling"),
            Alternative("ppo", "the primer's: weighs each token, by a value head that has to be learned first"),
            Alternative("sft", "needs an answer in each row; far less to compute"),
        ],
        _VALUES,
    ),
    "rloo": Advice(
        "stage",
        "rloo",
        "prompts and a reward: RLOO",
        TRL,
        "medium",
        [
            Alternative("grpo", "scales by how far the answers to a prompt differ"),
            Alternative("ppo", "the primer's: weighs each token, by a value head that has to be learned first"),
        ],
        _VALUES,
    ),
    "ppo": Advice(
        "stage",
        "ppo",
        "prompts and a reward: PPO",
        PRIMER,
        "medium",
        [
            Alternative("grpo", "needs no value head: steadier from the first step (TRL)"),
            Alternative("rloo", "as GRPO, without scaling by how far the answers differ (TRL)"),
        ],
        _VALUES,
    ),
}
# What a model learns from bare text that does not go on with it.
_GAPS: dict[Shape, str] = {
    "masked": "bare text: words masked and found (BERT)",
    "seq2seq": "bare text: spans left out, written (T5)",
}


def stage(facts: Facts) -> Advice:
    """By columns: an answer -> SFT; chosen and rejected -> DPO; a rating -> KTO; bare text -> continued pre-training;
    prompts alone -> RLOO or GRPO; or what the person chose. Vendor guide, tuning primer, LLaMA-Factory walk-through.
    """
    advice = _ADVICE[facts.stage]
    if facts.stage == "pretraining" and facts.model is not None and facts.model.shape != "causal":
        return replace(advice, reason=_GAPS[facts.model.shape], source=PRIMER, alternatives=[])
    return advice
