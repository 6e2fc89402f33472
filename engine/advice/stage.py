"""What kind of training the rows are for: told by their columns."""

from __future__ import annotations

from engine.advice.kinds import Advice, Alternative, Facts
from engine.advice.numbers import GUIDE, PRIMER, WALKTHROUGH
from engine.recipe import Stage

NAMES: dict[Stage, str] = {
    "sft": "SFT",
    "pretraining": "continued pre-training",
    "dpo": "DPO",
    "kto": "KTO",
    "rl": "reinforcement learning",
}

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
            Alternative("reward model", "trains a judge from the same pairs, for RLOO or GRPO later"),
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
            Alternative("sft", "trains on the answers rated good alone"),
            Alternative("dpo", "needs a good and a bad answer to the same prompt"),
        ],
    ),
    "rl": Advice(
        "stage",
        "rl",
        "prompts alone: RLOO or GRPO with a reward",
        PRIMER,
        "medium",
        [Alternative("sft", "needs an answer in each row; far less to compute")],
        "the primer and the walk-through name PPO, which TRL no longer has: RLOO and GRPO take its place",
    ),
}


def stage(facts: Facts) -> Advice:
    """By columns: an answer -> SFT; chosen and rejected -> DPO; a rating -> KTO; bare text -> continued pre-training;
    prompts alone -> RLOO or GRPO. Vendor guide, tuning primer, LLaMA-Factory walk-through.
    """
    return _ADVICE[facts.stage]
