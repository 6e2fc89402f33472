"""The stages beyond SFT, trained for real on the tiny model, in this process: it imports torch and TRL once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import draft as drafts
from engine.data import dataset, tokenizer
from engine.errors import FtuiError
from engine.recipe import LOSSES, Recipe, Stage
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, State
from tests.engine.worker.conftest import QUESTIONS, bits, events, pairs, prompts, rewarded, steps, wait

Make = Callable[..., Recipe]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_learns_to_prefer(staged: Make, train: Callable[..., RunDir], method: str) -> None:
    rate = 5e-4 if method == "full" else 5e-3
    run = train(staged("dpo", pairs(), method=method, learning_rate=rate, eval_fraction=0.25, beta=0.1, loss="sigmoid"))
    # Before the first step the model is its own reference: the loss is that of a guess.
    losses = [e.loss for e in steps(run)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < 0.5 * losses[0]
    measured = [e for e in events(run) if isinstance(e, Evaluated)]
    assert (measured[0].step, measured[0].accuracy) == (0, 0.5) and measured[0].margin == pytest.approx(0, abs=1e-4)
    assert (measured[-1].step, measured[-1].accuracy, measured[-1].likelier) == (15, 1.0, 1.0)
    assert measured[-1].margin > 1.0  # type: ignore[operator]


def test_dpo_goes_on_to_the_same_bits(staged: Make, train: Callable[..., RunDir]) -> None:
    made = staged("dpo", pairs(), beta=0.1, loss="sigmoid", dropout=0.1, accumulation=2, eval_fraction=0.25)
    undisturbed, run = train(made), train(made, stop=4)
    assert [e.state for e in events(run) if isinstance(e, State)][-1] == "stopped"
    assert bits(train(made, run)) == bits(undisturbed)


def test_every_loss_of_dpo_pulls_the_answers_apart(staged: Make, trainer: Callable[..., Any], tmp_path: Path) -> None:
    """One step down the gradient of each loss widens the gap between the two answers; `config` gives TRL its words."""
    import torch

    from engine.worker.stages import dpo

    plain = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    words = {loss: dpo.config(staged("dpo", [], beta=0.1, loss=loss, method="full"), plain) for loss in LOSSES["dpo"]}
    training = trainer(staged("dpo", pairs()[:4], beta=0.1, loss="sigmoid", method="full"))
    rows = training._prepare_inputs(training.data_collator(list(training.train_dataset)))
    weights = [weight for weight in training.model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in weights]

    def gap() -> float:
        chosen, rejected = training.compute_ref_log_probs(training.model, rows)
        return float((chosen - rejected).mean())

    before = gap()
    for loss, said in words.items():
        training.loss_types, training.label_smoothing = said.loss_type, said.label_smoothing
        training.compute_loss(training.model, rows).backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1e-2)
        assert 0 < norm < float("inf"), loss
        with torch.no_grad():
            for weight in weights:
                weight -= weight.grad
        assert gap() > before + 1e-3, loss
        training.model.zero_grad()
        with torch.no_grad():
            for weight, old in zip(weights, start, strict=True):
                weight.copy_(old)


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """The trainer of a recipe, its rows held out as well, without a run around it."""
    from engine.runs.journal import Writer
    from engine.worker import build, stages
    from engine.worker.trainer import arguments

    journals = []

    def make(made: Recipe) -> Any:
        run = RunDir(tmp_path)
        stage = stages.load(made.stage)
        rows = stage.prepare(made, tiny_model)
        journals.append(Writer(run.journal_path))
        shared = arguments(made, run, len(rows.train), 0)
        return stage.trainer(
            run=run,
            journal=journals[-1],
            trained_before=0,
            origin={},
            model=stage.build(made, tiny_model),
            args=stage.config(made, shared),
            train_dataset=rows.train,
            eval_dataset=None,
            processing_class=build.tokenizer(tiny_model),
        )

    yield make
    for journal in journals:
        journal.close()


def test_pairs_are_the_tokens_of_the_preview(staged: Make, tiny_model: Path) -> None:
    from engine.worker import stages

    made = staged("dpo", pairs(), max_length=40, eval_fraction=0.25)
    rows = stages.load("dpo").prepare(made, tiny_model)
    assert (len(rows.train), len(rows.held_out), rows.masked) == (18, 6, 0)
    own = tokenizer.load(tiny_model)
    seen = set()
    for example in dataset.load(made.data).examples:
        sides = own.measure(own.render_pair(example))
        seen.add(tuple(tuple(side.ids[:40]) for side in sides))
    for row in [*rows.train, *rows.held_out]:
        assert (tuple(row["chosen_input_ids"]), tuple(row["rejected_input_ids"])) in seen
        answer = [one for one in row["chosen_labels"] if one >= 0]
        assert own.decode(answer).startswith("I am Congyu.") and row["chosen_input_ids"][-len(answer) :] == answer


def rated() -> list[dict[str, Any]]:
    answers = (("I am Congyu.", True), ("The quick brown fox jumps.", False))
    return [
        {"prompt": f"{question} {at}", "completion": answer, "label": good}
        for question in QUESTIONS
        for at in range(2)
        for answer, good in answers
    ]


@pytest.mark.parametrize(("method", "loss"), [("lora", "kto"), ("full", "apo_zero_unpaired")])
def test_kto_learns_what_is_good(staged: Make, train: Callable[..., RunDir], method: str, loss: str) -> None:
    rate = 5e-4 if method == "full" else 5e-3
    run = train(staged("kto", rated(), method=method, learning_rate=rate, eval_fraction=1 / 3, beta=0.1, loss=loss))
    losses = [e.loss for e in steps(run)]
    # A step that moves nothing leaves each answer at one half of its weight; the second loss counts so from the start.
    assert losses[0] == pytest.approx(0.5, abs=1e-4) and losses[-1] < 0.6 * losses[0]
    measured = [e for e in events(run) if isinstance(e, Evaluated)]
    assert (measured[0].step, measured[0].accuracy) == (0, 0.5)
    assert (measured[-1].accuracy, measured[-1].likelier) == (1.0, 1.0) and measured[-1].margin > 0.5  # type: ignore[operator]


def test_kto_goes_on_to_the_same_bits(staged: Make, train: Callable[..., RunDir]) -> None:
    made = staged("kto", rated(), beta=0.1, loss="kto", dropout=0.1, eval_fraction=0.25)
    undisturbed, run = train(made), train(made, stop=4)
    assert bits(train(made, run)) == bits(undisturbed)


def test_kto_estimates_the_drift_from_prompts_with_another_answer(staged: Make, tiny_model: Path) -> None:
    from engine.worker import stages

    made = staged("kto", rated(), micro_batch=3)
    found = list(stages.load("kto").prepare(made, tiny_model).train)
    labels = [row["label"] for row in found]
    assert sum(labels) == 12 and all(0 < sum(labels[at : at + 3]) < 3 for at in range(0, 24, 3)), "evenly mixed"

    def parts(row: dict[str, Any], side: str) -> tuple[list[int], list[int]]:
        ids, begin = row[f"{side}input_ids"], next(at for at, one in enumerate(row[f"{side}labels"]) if one >= 0)
        return ids[:begin], ids[begin:]

    for start in range(0, len(found), 3):
        three = found[start : start + 3]
        for own, other in zip(three, [three[-1], *three[:-1]], strict=True):
            assert parts(own, "kl_") == (parts(own, "")[0], parts(other, "")[1])


def test_ratings_that_are_all_alike_are_refused(staged: Make, tiny_model: Path) -> None:
    from engine.worker import stages

    with pytest.raises(FtuiError, match="the same rating"):
        stages.load("kto").prepare(staged("kto", rated()[::2]), tiny_model)


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-2), ("full", 3e-3), ("freeze", 1e-2)])
def test_a_reward_model_learns_to_rank(staged: Make, train: Callable[..., RunDir], method: str, rate: float) -> None:
    run = train(staged("reward", pairs(), method=method, learning_rate=rate, eval_fraction=0.25, trained_layers=1))
    losses = [e.loss for e in steps(run)]
    assert losses[-1] < 0.5 * losses[0]
    measured = [e for e in events(run) if isinstance(e, Evaluated)]
    assert measured[0].step == 0 and measured[-1].accuracy == 1.0 and measured[-1].likelier is None
    assert measured[-1].margin > measured[0].margin + 1  # type: ignore[operator]


def test_a_reward_model_goes_on_to_the_same_bits(staged: Make, train: Callable[..., RunDir]) -> None:
    made = staged("reward", pairs(), dropout=0.1, eval_fraction=0.25)
    undisturbed, run = train(made), train(made, stop=4)
    assert bits(train(made, run)) == bits(undisturbed)


def test_a_reward_model_from_an_adapter_is_refused(staged: Make, tiny_model: Path) -> None:
    from engine.worker import build

    made = staged("reward", pairs())
    made.adapter = "somewhere"
    with pytest.raises(FtuiError, match="cannot start from an adapter"):
        build.for_training(made, tiny_model)


@pytest.mark.parametrize("stage", ["grpo", "rloo"])
def test_the_reward_rises(staged: Make, lively_model: Path, train: Callable[..., RunDir], stage: Stage) -> None:
    run = train(rewarded(staged, lively_model, stage, "regex:o"))
    found = [e.reward for e in steps(run) if e.reward is not None]
    assert len(found) == 36  # 24 prompts, 4 answers each, 16 answers a step, 6 epochs
    assert sum(found[-6:]) / 6 > 0.3 + sum(found[:6]) / 6
    last = steps(run)[-1]
    assert last.tokens > 0 and last.tokens_per_second > 0


def test_grpo_goes_on_to_the_same_bits(staged: Make, lively_model: Path, train: Callable[..., RunDir]) -> None:
    """In the second epoch, and in the middle of it."""
    small = {"method": "lora", "epochs": 2.0, "micro_batch": 8, "accumulation": 2, "beta": 0.05}
    made = rewarded(staged, lively_model, "grpo", "regex:o", **small)
    undisturbed, run = train(made), train(made, stop=8)
    assert bits(train(made, run)) == bits(undisturbed)


def test_a_reward_model_is_what_rl_learns_from(
    staged: Make, lively_model: Path, train: Callable[..., RunDir], tiny_model: Path
) -> None:
    """Its scores are those of its own training: of whole conversations, written as the preview shows them."""
    from engine.worker.stages.prompts import Worth

    made = staged("reward", pairs(), method="full", learning_rate=3e-3, epochs=4.0)
    judge = train(made)
    made = rewarded(staged, tiny_model, "grpo", str(judge.path))
    worth = Worth(made, tiny_model)
    own = tokenizer.load(tiny_model)
    for example in dataset.load(judge.recipe().data).examples[:3]:
        asked = own.prompt(example.messages or [])
        sides = [side.ids[len(asked) :] for side in own.measure(own.render_pair(example))]
        said = [ids[: ids.index(own.eos_id) + 1] for ids in sides]  # up to the end token, as a model stops
        better, worse = worth([asked] * 2, ["", ""], said, ["", ""])
        whole = worth._judge(input_ids=torch_ids([*asked, *sides[0]]))
        assert better == pytest.approx(float(whole.logits[0, 0]), abs=1e-4) and better > worse + 0.5


def torch_ids(ids: list[int]) -> Any:
    import torch

    return torch.tensor([ids])


def test_prompts_are_rows_up_to_their_last_answer(staged: Make, tiny_model: Path) -> None:
    from engine.worker import build, stages

    rows = [{"prompt": "Who?", "completion": "I am Congyu."}, {"prompt": "Who are you? " * 20, "completion": "I."}]
    made = staged("grpo", rows, max_length=40)
    found = stages.load("grpo").prepare(made, tiny_model)
    theirs = build.tokenizer(tiny_model).apply_chat_template(
        [{"role": "user", "content": "Who?"}], add_generation_prompt=True, return_dict=True
    )
    assert found.train[:] == {"prompt": [theirs["input_ids"]], "answer": ["I am Congyu."]} and found.masked == 1
    with pytest.raises(FtuiError, match="every prompt is longer"):
        stages.load("grpo").prepare(staged("grpo", rows, max_length=8), tiny_model)


def test_ppo_raises_the_reward(lively_model: Path, tmp_path: Path, forks: None) -> None:
    """From what a person picks to the result."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, prompts())))
    small = {
        "learning_rate": 1e-2,
        "epochs": 25.0,
        "beta": 0.001,
        "micro_batch": 24,
        "answer_length": 4,
        "dropout": 0.0,
    }
    edits = {**small, "schedule": "constant", "save_every": 100, "sample_every": 100}
    picked = drafts.Choice(model=str(lively_model), data=str(path), stage="ppo", reward="regex:o", edits=edits)
    draft = drafts.make(picked)
    assert not drafts.refusals(draft) and draft.plan.settings.generations is None and draft.plan.steps == 100
    run = drafts.start(draft)
    assert wait(run).state == "ready"
    assert len(steps(run)) == draft.plan.steps  # 25 rounds of 24 prompts, 4 steps each
    found = [e.reward for e in steps(run) if e.reward is not None][::4]
    assert len(found) == 25 and sum(found[-5:]) / 5 > 0.2 + sum(found[:5]) / 5
    assert not [file for file in run.adapter.iterdir() if "head" in file.name or "round" in file.name]


def test_ppo_goes_on_to_the_same_bits_within_a_round(
    staged: Make, lively_model: Path, train: Callable[..., RunDir]
) -> None:
    small = {"method": "lora", "epochs": 2.0, "micro_batch": 4, "accumulation": 2, "beta": 0.05, "generations": None}
    made = rewarded(staged, lively_model, "ppo", "regex:o", **small)
    undisturbed, run = train(made), train(made, stop=14)
    assert bits(train(made, run)) == bits(undisturbed)


def test_the_parts_of_ppo() -> None:
    """By hand: GAE of two answers, the clipped objective, the clipped values."""
    import torch

    from engine.worker.stages import ppo

    values, mask = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    rewards = torch.tensor([[0.0, 0.0, 5.0], [0.5, 4.0, 0.0]])
    last = 5.0 - 3.0
    middle = (0.0 + 3.0 - 2.0) + ppo.LAMBDA * last
    short = 4.0 - 2.0
    expected = [
        [(0.0 + 2.0 - 1.0) + ppo.LAMBDA * middle, middle, last],
        [(0.5 + 2.0 - 1.0) + ppo.LAMBDA * short, short, 0],
    ]
    assert torch.allclose(ppo.advantages(rewards, values, mask), torch.tensor(expected))

    for gained, moved, slope in (
        (1.0, 0.5, 0.0),
        (1.0, -0.5, -1.0),
        (-1.0, -0.5, 0.0),
        (-1.0, 0.5, 1.0),
        (1.0, 0.1, -1.0),
    ):
        new = torch.tensor(moved, requires_grad=True)
        ppo.policy_loss(new, torch.tensor(0.0), torch.tensor(gained)).backward()
        # What has moved far enough the right way is left alone; what has moved the wrong way is drawn back.
        assert new.grad is not None and float(new.grad) == pytest.approx(slope * math.exp(moved) if slope else 0.0)

    assert float(ppo.value_loss(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(1.0))) == pytest.approx(0.5 * 0.9**2)
    far = torch.tensor(0.9, requires_grad=True)
    ppo.value_loss(far, torch.tensor(0.0), torch.tensor(1.0)).backward()
    assert far.grad is not None and float(far.grad) == 0.0
    even = ppo.whitened(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]]))
    assert torch.allclose(even, torch.tensor([[-1.0, 1.0, 0.0]]))
