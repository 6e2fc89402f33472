"""The sources' own examples: they come out as described, or the plan says in its own words where it differs and why."""

from __future__ import annotations

import pytest

from engine import presets
from engine.advice.kinds import Facts, Plan
from engine.advice.plan import advise
from engine.models import facts as model_facts
from engine.models.facts import ModelFacts
from tests.engine.advice.cases import GB, card, facts, identity, of
from tests.engine.models import known

# The tutorial's card: 16 GB, older than bf16.
P100 = card(16, "Tesla P100-PCIE-16GB", bf16=False)
# Rows of its test collection (1,999 to train on) and of the whole data set.
DIALOGUES = (1999, 12_460)


@pytest.fixture(scope="module")
def phi2(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    folder = tmp_path_factory.mktemp("phi-2")
    return model_facts.read(known.write_model(folder / "phi-2", known.PHI2, known.phi2_weights()))


def dialogues(model: ModelFacts, rows: int) -> Facts:
    """Summaries of conversations: a few hundred tokens a row."""
    return facts(rows, model=model, hardware=P100, p50=250, p95=470, p99=630, max=850, mean=272.0, goal="task")


def tutorial(model: ModelFacts, rows: int) -> Plan:
    preset = presets.load("dialogsum")
    return advise(dialogues(model, rows), preset.settings, preset_name=preset.name, preset_reasons=preset.reasons)


@pytest.mark.parametrize("rows", DIALOGUES)
def test_phi2_qlora_on_dialogsum_as_the_tutorial_has_it(phi2: ModelFacts, rows: int) -> None:
    """r 32, alpha 32, dropout 0.05, q k v dense, nf4, fp16, paged 8-bit AdamW, 2e-4, 1 x 4, checkpointing."""
    plan = tutorial(phi2, rows)
    chosen = plan.settings
    assert (chosen.method, chosen.bits, chosen.precision) == ("qlora", 4, "fp16")
    assert (chosen.rank, chosen.alpha, chosen.dropout, chosen.targets) == (32, 32, 0.05, "attention")
    assert (chosen.learning_rate, chosen.micro_batch, chosen.accumulation) == (2e-4, 1, 4)
    assert (chosen.optimizer, chosen.gradient_checkpointing) == ("paged_adamw_8bit", True)
    assert plan.refusals == []
    assert [warning for warning in plan.warnings if "are cut at 640 tokens" not in warning] == []
    assert plan.gate.verdict == "tune"
    # The base alone takes 5.6 GB in 16 bit; packed, all of the run takes less than that.
    assert plan.memory is not None
    assert plan.memory.total < 5.6 * GB


@pytest.mark.parametrize(
    ("field", "ours", "word"),
    [
        ("double_quantization", True, "the Phi-2 tutorial turns it off"),
        ("max_length", 640, "the Phi-2 tutorial drops them"),
        ("warmup", 0.05, "the Phi-2 tutorial warms up for 1 step"),
        ("stop_on_plateau", False, "the Phi-2 tutorial after 1,000 steps"),
        ("epochs", 3.0, "the Phi-2 tutorial 1,000 steps of 4 rows"),
        ("save_every", 270, "the Phi-2 tutorial saves each 25 steps"),
    ],
)
def test_phi2_where_the_plan_differs_it_says_so(phi2: ModelFacts, field: str, ours: object, word: str) -> None:
    advice = of(tutorial(phi2, 1999), field)
    assert advice.value == ours
    assert word in advice.disagreement


def test_phi2_rows_seen_are_as_many_as_the_tutorials(phi2: ModelFacts) -> None:
    """1,000 steps of 4 rows are two passes over 1,999 rows; the plan advises three and offers two."""
    epochs = of(tutorial(phi2, 1999), "epochs")
    assert 2.0 in [other.value for other in epochs.alternatives]
    settings = advise(dialogues(phi2, 1999), {"micro_batch": 1, "accumulation": 4}, {"epochs": 2, "eval_fraction": 0})
    assert settings.steps == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("rows", DIALOGUES)
def test_phi2_by_the_rules_alone(phi2: ModelFacts, rows: int) -> None:
    """No preset: LoRA fits on the card, so the base is not packed, and the plan says that the tutorial packs it."""
    plan = advise(dialogues(phi2, rows))
    chosen = plan.settings
    assert (chosen.rank, chosen.alpha, chosen.dropout, chosen.learning_rate) == (32, 32, 0.05, 2e-4)
    assert (chosen.precision, chosen.targets) == ("fp16", "all-linear")
    method = of(plan, "method")
    assert method.value == "lora"
    assert "the Phi-2 tutorial packs into 4 bit on a card of 16 GB, which is only slower" in method.disagreement
    assert "1 x 4" in of(plan, "micro_batch").disagreement
    assert "the Phi-2 tutorial q, k, v and dense" in of(plan, "targets").disagreement
    assert plan.refusals == []
    assert plan.steps > 100


def test_phi2_on_a_card_where_lora_does_not_fit(phi2: ModelFacts) -> None:
    plan = advise(facts(1999, model=phi2, hardware=card(6, "Tesla P4", bf16=False), p50=250, p95=470, p99=630, max=850))
    assert (plan.settings.method, plan.settings.optimizer) == ("qlora", "paged_adamw_8bit")
    assert "LoRA needs" in of(plan, "method").reason


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_vendors_defaults(stage: str) -> None:
    """lora_dim 32, lora_alpha the same, 2 to 10 epochs, dpo_beta 0.1, AdamW, the chat template, a batch by accumulation."""
    for rows in (300, 3000, 30_000):
        plan = advise(facts(rows, stage=stage))
        chosen = plan.settings
        assert (chosen.rank, chosen.alpha) == (32, 32)
        assert 2 <= chosen.epochs <= 10
        assert chosen.beta == (0.1 if stage == "dpo" else None)
        assert chosen.optimizer.startswith("adamw")
        assert of(plan, "rank").source == of(plan, "alpha").source == "a cloud vendor's tuning guide"


def test_the_vendors_choice_of_method() -> None:
    """Simple and small: an adapter. Complex and large: all weights. Scarce memory: packed."""
    assert advise(facts(3000)).settings.method == "lora"
    assert advise(facts(30_000, complex_task=True)).settings.method == "full"
    assert advise(facts(3000, hardware=card(1.6))).settings.method == "qlora"


def test_the_vendors_largest_batch_is_shown_and_not_taken() -> None:
    advice = of(advise(facts(300)), "micro_batch")
    assert any("all that fits (vendor guide)" in other.effect for other in advice.alternatives)
    assert "the vendor guide wants the largest batch that memory holds" in advice.disagreement


def test_the_identity_walk_through() -> None:
    """Its data (91 rows): SFT with LoRA, a short length, and stop when the loss is flat."""
    plan = advise(identity(91))
    chosen = plan.settings
    assert (plan.stage.value, chosen.method) == ("sft", "lora")
    assert chosen.max_length == 256
    assert chosen.stop_on_plateau
    assert plan.gate.verdict == "tune"
    assert plan.steps > 100


def test_the_identity_walk_through_where_the_plan_differs() -> None:
    """It sets many epochs and leaves the rate at 5e-5: the plan measured 5 passes at 2e-3, and shows both."""
    plan = advise(identity(91))
    assert (plan.settings.epochs, plan.settings.learning_rate) == (5.0, 2e-3)
    assert of(plan, "epochs").source == of(plan, "learning_rate").source == "measured"
    assert "set many" in next(other.effect for other in of(plan, "epochs").alternatives if other.value == 10.0)
    assert "no effect" in of(plan, "learning_rate").disagreement
    asked = advise(identity(91), edits={"learning_rate": 5e-5, "epochs": 3, "micro_batch": 2, "accumulation": 8})
    assert "18 updates at 5e-5 will not take" in str(asked.warnings)
