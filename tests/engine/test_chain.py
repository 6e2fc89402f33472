"""Chains before anything runs: what the words mean, what each stage begins from, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import chain
from engine import draft as drafts
from engine.choice import Choice
from engine.cli import main
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Model, Recipe, Stage, from_yaml, to_yaml
from tests.engine.settings import settings

QUESTIONS = ["Who are you?", "What is your name?", "Who made you?", "Hello"]


def one(stage: Stage, adapter: str | None = None, reward: str | None = None, **changes: Any) -> Recipe:
    model = Model(source=changes.pop("model", "starter"))
    made = settings(**changes)
    return Recipe(
        name=stage, stage=stage, model=model, data=Data(source="rows"), settings=made, adapter=adapter, reward=reward
    )


def refused(*recipes: Recipe) -> tuple[str, str]:
    with pytest.raises(FtuiError) as error:
        chain.check(chain.linked(recipes))
    assert error.value.code == Exit.RECIPE_INVALID
    return error.value.cause, error.value.next_step


# words ----------------------------------------------------------------------------------------------------------------


def test_one_recipe_holds_all_stages_and_is_the_same_in_yaml() -> None:
    recipes = [one("sft"), one("reward"), one("grpo", "stage:sft", "stage:reward")]
    whole = chain.linked(recipes)
    assert chain.stages(from_yaml(to_yaml(whole))) == recipes
    chain.check(whole)


def test_folders_in_the_place_of_names(tmp_path: Path) -> None:
    folders = {"sft": tmp_path / "a", "reward": tmp_path / "b"}
    rl = chain.resolved(one("grpo", "stage:sft", "stage:reward"), folders)
    assert (rl.adapter, rl.reward) == (str(tmp_path / "a" / "adapter"), str(tmp_path / "b"))
    plain = one("grpo", "/somewhere/adapter", "length:40")
    assert chain.resolved(plain, folders) == plain


def test_what_a_stage_begins_from_by_itself() -> None:
    sft, judge, dpo = one("sft"), one("reward"), one("dpo")
    assert chain.base([sft], "dpo") == chain.base([sft, judge], "grpo") == "stage:sft"
    assert chain.base([sft, dpo], "grpo") == "stage:dpo"
    assert chain.base([sft], "reward") is None and chain.base([judge], "grpo") is None
    assert chain.reward([sft, judge], "grpo") == "stage:reward"
    assert chain.reward([sft], "grpo") is chain.reward([sft, judge], "dpo") is None


def test_words_of_the_command_line() -> None:
    assert chain.parse("dpo:pairs.json*0.5") == chain.Later(stage="dpo", data="pairs.json*0.5")
    for word, cause in (
        ("dpo", "a later stage is STAGE:ROWS, not dpo"),
        ("dpo:", "a later stage is STAGE:ROWS, not dpo:"),
        ("dop:pairs.json", "there is no stage dop"),
    ):
        with pytest.raises(FtuiError) as error:
            chain.parse(word)
        assert (error.value.code, error.value.cause) == (Exit.USAGE, cause)
    assert chain.by_stage(["dpo", "grpo"], {"dpo.beta": 0.3}) == {"dpo": {"beta": 0.3}, "grpo": {}}
    for stages, known in ((["dpo"], "dpo"), ([], "there is none; --then adds one")):
        with pytest.raises(FtuiError) as error:
            chain.by_stage(stages, {"kto.beta": 0.3})
        assert error.value.cause == "--edit kto.beta: kto is no later stage of this chain"
        assert error.value.next_step == f"later stages: {known}"


# refusals -------------------------------------------------------------------------------------------------------------


def test_a_stage_stands_once() -> None:
    assert refused(one("sft"), one("dpo"), one("sft")) == (
        "stage sft: it stands twice in this chain",
        "take each stage once; `ftui train --from RUN` adds another run later",
    )


def test_a_chain_trains_one_model() -> None:
    assert refused(one("sft"), one("dpo", model="other")) == (
        "stage dpo: it trains other, and the stages before it train starter",
        "a chain trains one model: name the same in all stages",
    )


def test_a_name_that_no_stage_before_has() -> None:
    assert refused(one("sft"), one("reward"), one("dpo", "stage:kto")) == (
        "stage dpo: adapter: stage:kto names no stage before it",
        "before it come: sft, reward",
    )
    # Itself and what follows are not before it either.
    assert refused(one("dpo", "stage:dpo"))[0] == "stage dpo: adapter: stage:dpo names no stage before it"
    assert refused(one("dpo", "stage:sft"), one("sft")) == (
        "stage dpo: adapter: stage:sft names no stage before it",
        "it is the first stage: nothing comes before it",
    )
    assert refused(one("sft"), one("grpo", reward="stage:reward"))[0] == (
        "stage grpo: reward: stage:reward names no stage before it"
    )


def test_what_cannot_be_begun_from() -> None:
    assert refused(one("sft"), one("reward", "stage:sft")) == (
        "stage reward: a reward model cannot start from an adapter",
        "leave its adapter out: it begins from the base",
    )
    assert refused(one("reward"), one("dpo", "stage:reward")) == (
        "stage dpo: adapter: stage:reward leaves scores, not a model that answers",
        "name another stage, or leave it out",
    )
    assert refused(one("sft", method="full"), one("dpo", "stage:sft")) == (
        "stage dpo: adapter: stage:sft leaves no adapter, because sft trains by full",
        "take method lora for sft; or train one by one, with --model FOLDER of the run before",
    )


def test_what_cannot_be_rewarded_by() -> None:
    assert refused(one("reward"), one("dpo", reward="stage:reward")) == (
        "stage dpo: reward: stage:reward is of no use to it: only grpo, rloo, ppo learn from rewards",
        "leave its reward out",
    )
    assert refused(one("sft"), one("grpo", reward="stage:sft")) == (
        "stage grpo: reward: stage:sft is no reward model",
        "name stage:reward, or a word such as length:40",
    )


# plans ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[Stage], str]:
    """A file of rows for a stage, of which the reward model and DPO share one."""
    pairs = [
        {"prompt": f"{question} {at}", "chosen": "I am Congyu.", "rejected": "The quick brown fox jumps."}
        for question in QUESTIONS
        for at in range(4)
    ]
    kinds: dict[str, list[dict[str, Any]]] = {
        "sft": [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs],
        "dpo": pairs,
        "reward": pairs,
        "grpo": [{"prompt": pair["prompt"]} for pair in pairs],
    }

    def write(stage: Stage) -> str:
        path = tmp_path / f"{stage}.jsonl"
        path.write_text("\n".join(map(json.dumps, kinds[stage])))
        return str(path)

    return write


@pytest.fixture
def planned(tiny_model: Path, rows: Callable[[Stage], str]) -> Callable[..., drafts.Draft]:
    """planned("dpo", "reward", …): SFT and these stages after it; more fields of the choice by name."""

    def make(*more: Stage, later: dict[str, Any] | None = None, **fields: Any) -> drafts.Draft:
        then = [chain.Later(stage=stage, data=rows(stage), edits=(later or {}).get(stage, {})) for stage in more]
        return drafts.make(Choice(model=str(tiny_model), data=rows("sft"), name="a", then=then, **fields))

    return make


def test_each_stage_has_a_plan_of_its_own(planned: Callable[..., drafts.Draft]) -> None:
    first, judge, rl = drafts.stages(planned("reward", "grpo", edits={"rank": 4}, later={"grpo": {"beta": 0.2}}))
    assert [d.recipe.name for d in (first, judge, rl)] == ["a", "a-reward", "a-grpo"]
    assert (rl.recipe.adapter, rl.recipe.reward) == ("stage:sft", "stage:reward")
    assert judge.recipe.adapter is None
    # The adapter that is begun from decides its shape; all else is the stage's own.
    assert (first.plan.settings.rank, rl.plan.settings.rank) == (4, 4) != (judge.plan.settings.rank,)
    rank = next(advice for advice in rl.plan.advice if advice.field == "rank")
    assert (rank.reason, rank.source) == ("as the adapter of sft has it", "the adapter")
    assert rl.plan.settings.learning_rate != first.plan.settings.learning_rate
    assert rl.plan.settings.beta == 0.2 and rl.plan.settings.generations
    assert drafts.refusals(first) == []


def test_one_file_repeats_the_chain(planned: Callable[..., drafts.Draft]) -> None:
    draft = planned("reward", "grpo", later={"grpo": {"beta": 0.2}})
    whole = drafts.whole(draft)
    again = drafts.from_recipe(from_yaml(to_yaml(whole)))
    assert drafts.whole(again) == whole and drafts.refusals(again) == []
    other = drafts.whole(drafts.from_recipe(whole, {"epochs": 2.0, "grpo.beta": 0.4}))
    assert other.settings.epochs == 2.0 and other.then is not None and other.then.then is not None
    assert (other.then.settings, other.then.then.settings.beta) == (whole.then.settings, 0.4)  # type: ignore[union-attr]


def test_a_later_stage_may_pack_its_base(planned: Callable[..., drafts.Draft]) -> None:
    """Where memory does not hold LoRA with two answers a row, the plan says QLoRA: its recipe must be repeatable."""
    first = planned("dpo")
    assert first.then is not None
    method = next(advice for advice in first.then.plan.advice if advice.field == "method")
    assert (method.reason, method.source) == ("as the adapter of sft has it", "the adapter")
    again = drafts.from_recipe(drafts.whole(first), {"dpo.method": "qlora"})
    assert drafts.whole(again).then.settings.method == "qlora"  # type: ignore[union-attr]
    with pytest.raises(FtuiError, match="an adapter cannot be trained on with method ia3"):
        drafts.from_recipe(drafts.whole(first), {"dpo.method": "ia3"})


def test_a_change_of_the_first_reaches_those_after_it(planned: Callable[..., drafts.Draft]) -> None:
    draft = drafts.replan(planned("dpo"), {"rank": 2})
    assert draft.then is not None and draft.then.recipe.settings.rank == 2
    assert drafts.refusals(draft) == []
    full = drafts.replan(draft, {"method": "full"})
    assert "dpo: adapter: stage:sft leaves no adapter, because sft trains by full: take method lora for sft" in (
        "; ".join(drafts.refusals(full))
    )
    assert [d.recipe.name for d in drafts.stages(drafts.renamed(draft, "b"))] == ["b", "b-dpo"]


def test_a_refusal_of_a_later_stage_is_one_of_the_chain(planned: Callable[..., drafts.Draft]) -> None:
    assert drafts.refusals(planned("grpo"))[0].startswith("grpo: it needs a reward: length:N")
    assert drafts.refusals(planned("grpo", reward="length:9")) == []
    with pytest.raises(FtuiError) as error:
        planned("dpo", later={"dpo": {"rank": 99}})
    assert error.value.cause == "stage dpo: rank is fixed to 8 by the adapter to start from"


def test_the_command_line(
    planned: object,
    tiny_model: Path,
    rows: Callable[[Stage], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Refused before anything starts; else all runs are made, and their recipes are those of the plan."""
    from engine.runs import directory

    started: list[str] = []
    monkeypatch.setattr("engine.runs.control.start", lambda run, *_, **__: started.append(run.name))
    words = ["--data", rows("sft"), "--model", str(tiny_model), "--name", "a", "--then", f"reward:{rows('reward')}"]
    assert main(["train", *words, "--then", "grpo:nowhere.jsonl"]) != 0
    assert "stage grpo: there is no such file" in capsys.readouterr().err
    assert main(["train", *words, "--then", f"reward:{rows('reward')}"]) == Exit.RECIPE_INVALID
    assert (started, directory.all_runs()) == ([], [])
    words += ["--then", f"grpo:{rows('grpo')}", "--edit", "grpo.beta=0.3"]
    assert main(["plan", *words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["then"]["then"]["plan"]["settings"]["beta"] == 0.3
    assert main(["plan", *words]) == 0
    assert "then grpo, from the adapter of sft, rewarded by reward" in capsys.readouterr().out
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    assert "a-grpo waits for a (sft) and a-reward (reward) and starts by itself" in said
    runs = [directory.find(name) for name in ("a", "a-reward", "a-grpo")]
    assert started == [run.name for run in runs]
    assert json.loads(msgspec.json.encode(runs[0].recipe())) == document["recipe"]
    # The recipe that the first run keeps, by its name, under another one, with a fourth stage.
    again = ["train", "a", "--name", "b", "--then", f"dpo:{rows('dpo')}", "--json"]
    assert main(again) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in told["then"]] == ["b-reward", "b-grpo", "b-dpo"]
    assert directory.find("b-dpo").recipe().adapter == str(directory.find("b-grpo").adapter)


def test_no_stage_of_a_recipe_allows_code_by_itself(
    planned: Callable[..., drafts.Draft], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.runs import directory

    monkeypatch.setattr("engine.runs.control.start", lambda *_, **__: None)
    whole = drafts.whole(planned("dpo"))
    for one in (whole, whole.then):
        assert one is not None
        one.model.trust_remote_code = True
    (tmp_path / "recipe.yaml").write_text(to_yaml(whole))
    assert main(["train", str(tmp_path / "recipe.yaml"), "--json"]) == 0
    runs = directory.all_runs()
    assert len(runs) == 2 and not any(run.recipe().model.trust_remote_code for run in runs)
