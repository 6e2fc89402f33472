"""What is known about tuning, topic by topic, in the order of docs/advice.md: the rule, its source, who contradicts it.

The tests of single rules, with their limits, stand in the files beside this one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.advice.kinds import Plan
from engine.advice.plan import advise
from tests.engine.advice.cases import LLAMA, NEW_CPU, OLD_CPU, QWEN, card, facts, identity, of

GUIDE, TUTORIAL, PRIMER = "a cloud vendor's tuning guide", "Phi-2 QLoRA tutorial", "tuning primer"
WALKTHROUGH, PEFT, REGRET = "LLaMA-Factory walk-through", "PEFT overview", "LoRA Without Regret"


def effective(plan: Plan) -> int:
    return plan.settings.micro_batch * plan.settings.accumulation


def test_tune_at_all() -> None:
    """Enough data, hardware, would retrieval or an API do, how soon: persona, style, output and language win."""
    assert advise(facts(goal="style")).gate.verdict == "tune"
    assert advise(facts(goal="changing facts")).gate.verdict == "do not tune"
    assert [q.key for q in advise(facts()).gate.questions] == ["data", "hardware", "retrieval", "time"]


def test_stage() -> None:
    """By columns; TRL has no PPO any more, RLOO and GRPO take its place."""
    for stage in ("sft", "pretraining", "dpo", "kto", "grpo"):
        assert advise(facts(stage=stage)).stage.value == stage
    assert "sft" in [other.value for other in advise(facts(stage="dpo")).stage.alternatives]
    assert "RLOO and GRPO" in advise(facts(stage="grpo")).stage.disagreement


def test_method() -> None:
    """Complex, more than 5000 rows and it fits: full. Else LoRA; else QLoRA, with its slowdown; else a smaller model."""
    assert advise(facts(5001, model=QWEN, complex_task=True)).settings.method == "full"
    assert advise(facts(5000, model=QWEN, complex_task=True)).settings.method == "lora"
    assert advise(facts(model=LLAMA, hardware=card(24))).settings.method == "lora"
    packed = of(advise(facts(model=LLAMA, hardware=card(16))), "method")
    assert (packed.value, packed.source) == ("qlora", GUIDE)
    assert "1.4 to 2 times slower" in str(of(advise(facts(model=LLAMA, hardware=card(24))), "method").alternatives)
    assert "smaller model" in advise(facts(model=LLAMA, hardware=card(6))).refusals[0]
    assert {"full", "freeze", "qlora", "galore", "bottleneck"} <= {
        other.value for other in of(advise(facts()), "method").alternatives
    }
    assert "LoRA Without Regret" in of(advise(facts()), "method").disagreement


def test_rows() -> None:
    """Under 100 warn (identity exempt); a tenth held out from 500."""
    assert "rows are few" in str(advise(facts(99)).warnings)
    assert "rows are few" not in str(advise(facts(100)).warnings)
    assert "rows are few" not in str(advise(identity(91)).warnings)
    assert (advise(facts(499)).settings.eval_fraction, advise(facts(500)).settings.eval_fraction) == (0.0, 0.1)
    assert of(advise(facts(500)), "eval_fraction").source == TUTORIAL


def test_epochs() -> None:
    """Under 500 rows 10, under 5000 3, else 2; identity stops itself when the loss is flat."""
    passes = [advise(facts(rows)).settings.epochs for rows in (499, 500, 4999, 5000)]
    assert passes == [10, 3, 3, 2]
    assert of(advise(facts(499)), "epochs").source == GUIDE
    stops = of(advise(identity()), "stop_on_plateau")
    assert (stops.value, stops.source) == (True, WALKTHROUGH)
    assert "1,000 steps" in of(advise(facts()), "epochs").disagreement


def test_learning_rate() -> None:
    """Full 2e-5, adapters 2e-4, identity 2e-3 (measured); DPO and KTO 1e-6 full, 5e-6 with LoRA."""

    def rate(method: str, **changes: object) -> float:
        return advise(facts(**changes), edits={"method": method}).settings.learning_rate

    assert (rate("full"), rate("lora"), rate("qlora")) == (2e-5, 2e-4, 2e-4)
    assert rate("lora", intent="identity") == 2e-3
    assert [rate(method, stage=stage) for stage in ("dpo", "kto") for method in ("full", "lora")] == [1e-6, 5e-6] * 2
    assert of(advise(facts(), edits={"method": "full"}), "learning_rate").source == PRIMER
    assert of(advise(facts()), "learning_rate").source == TUTORIAL
    for stage in ("sft", "pretraining", "dpo", "kto", "grpo"):
        assert of(advise(facts(stage=stage)), "learning_rate").disagreement
    assert "no effect" in of(advise(identity()), "learning_rate").disagreement


def test_batch() -> None:
    """A power of two of at most 32 (adapters below) that leaves about 100 steps; micro-batch what memory holds."""
    for rows in (20, 91, 160, 499, 1000, 3000, 50_000):
        for method, largest in (("lora", 16), ("full", 32)):
            plan = advise(facts(rows), edits={"method": method})
            assert effective(plan) in (1, 2, 4, 8, 16, 32)
            assert effective(plan) <= largest
            assert plan.steps >= 95 or effective(plan) == 1
    tight = advise(facts(5000, model=LLAMA, p99=2000, max=2048, hardware=card(24)))
    assert "memory holds" in of(tight, "micro_batch").reason
    assert "1 x 4" in of(tight, "micro_batch").disagreement


def test_accumulation() -> None:
    """The effective batch over micro-batch x cards, rounded up."""
    plan = advise(facts(5000), edits={"micro_batch": 5})
    assert plan.settings.accumulation == 4
    assert of(plan, "accumulation").source == GUIDE


def test_sequence_length() -> None:
    """p99 rounded up to 64 and capped by the model; cut rows and lost end tokens are told, dropping them offered."""
    assert advise(facts(p99=257, max=400)).settings.max_length == 320
    assert advise(facts(p99=9000, max=9000)).settings.max_length == 8192
    cut = advise(facts(4, lengths=[10, 20, 30, 300], p99=256, max=300))
    assert "1 of 4 rows is cut at 256 tokens and loses its end token" in str(cut.warnings)
    assert "leave them out" in str(cut.warnings)
    assert "drops" in str(of(advise(facts()), "max_length").alternatives)
    assert "estimate" in of(advise(facts(exact=False)), "max_length").reason
    disagreement = of(advise(facts()), "max_length").disagreement
    assert "cuts" in disagreement
    assert "drops" in disagreement
    assert "any tokenizer" in disagreement


def test_rank() -> None:
    """32; 8 under 200 rows; 8 for reinforcement learning."""
    ranks = [of(advise(given), "rank") for given in (facts(200), facts(199), facts(5000, stage="grpo"))]
    assert [(advice.value, advice.source) for advice in ranks] == [(32, GUIDE), (8, PEFT), (8, REGRET)]
    assert "LLaMA-Factory with 8" in ranks[0].disagreement


def test_alpha() -> None:
    """As the rank; twice the rank beside it."""
    advice = of(advise(facts()), "alpha")
    assert (advice.value, advice.source, [other.value for other in advice.alternatives]) == (32, GUIDE, [64])
    assert "1 to 2 times the rank" in advice.disagreement


def test_targets() -> None:
    """All linear layers; attention only, as the guide and the tutorials have it, beside it."""
    advice = of(advise(facts()), "targets")
    assert (advice.value, advice.source) == ("all-linear", REGRET)
    assert [other.value for other in advice.alternatives] == ["attention"]
    assert "q and v" in advice.disagreement


def test_dropout() -> None:
    """0.05; 0 for reinforcement learning. (Adapters have no bias.)"""
    assert (advise(facts()).settings.dropout, advise(facts(stage="grpo")).settings.dropout) == (0.05, 0.0)
    assert of(advise(facts()), "dropout").source == TUTORIAL
    assert of(advise(facts()), "dropout").disagreement


def test_dpo_beta() -> None:
    """0.1 for DPO and KTO; 0.1 to 0.5 is usual; SFT ignores it."""
    advice = of(advise(facts(stage="dpo")), "beta")
    assert (advice.value, advice.source) == (0.1, GUIDE)
    assert advise(facts()).settings.beta is None
    assert "ignored" in str(advise(facts(), edits={"beta": 0.1}).warnings)


def test_4_and_8_bit() -> None:
    """NF4 with double quantisation, computed in bf16 where there is bf16, paged 8-bit AdamW."""
    plan = advise(facts(model=LLAMA, hardware=card(16)))
    chosen = plan.settings
    assert (chosen.bits, chosen.double_quantization, chosen.precision) == (4, True, "bf16")
    assert chosen.optimizer == "paged_adamw_8bit"
    assert of(plan, "double_quantization").source == PRIMER
    assert of(plan, "double_quantization").disagreement
    assert of(plan, "bits").alternatives[0].value == 8


@pytest.mark.parametrize(
    ("hardware", "precision"), [(card(80), "bf16"), (card(16, "Tesla T4", False), "fp16"), (OLD_CPU, "fp32")]
)
def test_precision(hardware: object, precision: str) -> None:
    """From the hardware, whatever the checkpoint was stored in (these are all stored in bf16)."""
    assert QWEN.dtype == "bfloat16"
    assert advise(facts(model=QWEN, hardware=hardware)).settings.precision == precision


def test_bf16_on_a_processor() -> None:
    assert advise(facts(hardware=NEW_CPU)).settings.precision == "fp32"
    assert "8 times slower" in str(advise(facts(hardware=OLD_CPU), edits={"precision": "bf16"}).warnings)


def test_the_rest_of_the_tutorial() -> None:
    """Cosine, 5 % warm-up, checkpointing only where needed, a cadence scaled to the steps."""
    plan = advise(facts())
    chosen = plan.settings
    assert (chosen.schedule, chosen.warmup, chosen.gradient_checkpointing) == ("cosine", 0.05, False)
    assert plan.steps / chosen.save_every == pytest.approx(5, abs=1)
    assert of(plan, "save_every").alternatives[0].value == 25
    assert "1 step" in of(plan, "warmup").disagreement


def test_template() -> None:
    """Rows are counted and trained in the model's own template; one that never ends an answer is warned of."""
    assert "chat template" in str(advise(facts(has_end_token=False)).warnings)
    assert "chat template" not in str(advise(facts()).warnings)


def test_positions_and_kernels() -> None:
    """Expert fields: none of rotary stretching, torch's own attention."""
    chosen = advise(facts()).settings
    assert (chosen.rope, chosen.attention) == ("none", "sdpa")
    assert of(advise(facts()), "rope").source == of(advise(facts()), "attention").source == WALKTHROUGH


def test_contradictions_are_shown() -> None:
    """Alpha, rank, targets, learning rate, batch, stopping, double quantisation, truncate or drop, which tokenizer."""
    shown = {advice.field for advice in advise(facts()).advice if advice.disagreement}
    assert shown >= {
        *("alpha", "rank", "targets", "learning_rate", "micro_batch", "stop_on_plateau"),
        *("double_quantization", "max_length", "epochs", "dropout", "precision"),
    }
    assert of(advise(facts()), "seed").disagreement == ""
    assert all("\n" not in advice.disagreement for advice in advise(facts()).advice)


def test_the_docs_have_every_topic() -> None:
    page = (Path(__file__).parents[3] / "docs" / "advice.md").read_text(encoding="utf-8")
    topics = (
        *("Tune at all", "Stage", "Method", "Rows", "Epochs", "Learning rate", "Batch", "Accumulation"),
        *("Sequence length", "Rank", "Alpha", "Targets", "Dropout", "Beta", "4 and 8 bit", "Precision"),
        *("The rest", "Template", "Positions and kernels"),
    )
    assert [topic for topic in topics if f"| {topic} |" not in page] == []
