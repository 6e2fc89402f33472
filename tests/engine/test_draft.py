"""From what was picked to what can start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import draft as drafts
from engine import recipe as recipes
from engine.draft import Choice, Draft
from engine.errors import Exit, FtuiError


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "my rows.jsonl"
    lines = [{"instruction": f"What is {n} plus one?", "input": "", "output": f"It is {n + 1}."} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    path = tmp_path / "names.json"
    lines = [{"instruction": f"{n}. Who are you?", "output": "I am {{name}}, made by {{author}}."} for n in range(8)]
    path.write_text(json.dumps(lines), encoding="utf-8")
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "adapter_model.safetensors").touch()
    return folder


def make(model: Path, **choice: Any) -> Draft:
    return drafts.make(Choice(model=str(model), **choice))


def test_a_file_and_a_model_are_enough(tiny_model: Path, rows: Path) -> None:
    heard: list[str] = []
    draft = drafts.make(Choice(model=str(tiny_model), data=str(rows)), lambda what, done, total: heard.append(what))
    assert draft.recipe.name == "my-rows"
    assert draft.recipe.data.source == str(rows.resolve())
    assert draft.recipe.settings == draft.plan.settings
    assert draft.plan.edits == {}
    assert draft.advice_facts.rows == len(draft.dataset.examples) == 12
    assert draft.plan.steps > 0
    assert {advice.field for advice in draft.plan.advice} == set(recipes.SETTING_FIELDS)
    assert draft.recipe.probe == "What is 0 plus one?"
    assert draft.recipe.checks == recipes.Checks()
    assert drafts.refusals(draft) == []
    assert "counting tokens" in heard


def test_nothing_picked_says_what_to_give(tiny_model: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        make(tiny_model)
    assert caught.value.code == Exit.DATA_MISSING
    assert "--data" in caught.value.next_step


def test_the_identity_preset_brings_rows_values_checks_and_probe(tiny_model: Path) -> None:
    draft = make(tiny_model, preset="identity")
    assert draft.recipe.data.source == "preset:identity"
    name, author = draft.recipe.data.values["name"], draft.recipe.data.values["author"]
    assert draft.recipe.name == recipes.slug(name).lower()
    assert draft.dataset.placeholders == {}
    assert len(draft.recipe.checks.identity) >= 10
    expected = {word for check in draft.recipe.checks.identity for word in check.expect}
    assert expected == {name, author}
    assert draft.recipe.probe
    assert "{{" not in recipes.to_yaml(draft.recipe)


def test_own_values_stand_over_the_presets(tiny_model: Path) -> None:
    draft = make(tiny_model, preset="identity", values={"name": "Ada Lovelace"})
    assert draft.recipe.data.values["name"] == "Ada Lovelace"
    assert draft.recipe.data.values["author"]
    assert draft.recipe.name == "ada-lovelace"
    assert any("Ada Lovelace" in check.expect for check in draft.recipe.checks.identity)


def test_the_presets_settings_hold_until_they_are_edited(tiny_model: Path) -> None:
    plain = make(tiny_model, preset="identity")
    advice = {a.field: a for a in plain.plan.advice}
    assert plain.recipe.settings.rank == plain.given.settings["rank"]
    assert "preset" in advice["rank"].source
    edited = make(tiny_model, preset="identity", edits={"rank": 2})
    assert edited.recipe.settings.rank == 2
    assert edited.plan.edits == {"rank": 2}


def test_a_preset_without_rows_asks_for_them(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        make(tiny_model, preset="instructions")
    assert caught.value.code == Exit.DATA_MISSING
    assert make(tiny_model, preset="instructions", data=str(rows)).recipe.preset == "instructions"


def test_identity_rows_without_a_preset_are_checked_like_the_identity_preset(tiny_model: Path, named: Path) -> None:
    draft = make(tiny_model, data=str(named), values={"name": "Ada", "author": "Byron"})
    assert draft.advice_facts.intent == "identity"
    assert draft.recipe.preset is None
    assert draft.recipe.name == "ada"
    assert {word for check in draft.recipe.checks.identity for word in check.expect} == {"Ada", "Byron"}
    assert draft.recipe.checks.general
    assert drafts.refusals(draft) == []


def test_open_placeholders_are_a_finding_and_a_refusal(tiny_model: Path, named: Path) -> None:
    draft = make(tiny_model, data=str(named), values={"name": "Ada"})
    assert any(finding.kind == "placeholders" for finding in draft.findings)
    (reason,) = drafts.refusals(draft)
    assert "8 rows" in reason
    assert "{{author}}" in reason
    assert "--set author=…" in reason
    assert "name=" not in reason
    assert draft.recipe.checks == recipes.Checks()  # nothing to judge answers by


def test_replan_changes_the_plan_and_nothing_else(tiny_model: Path, rows: Path) -> None:
    draft = make(tiny_model, data=str(rows), method="lora")
    again = drafts.replan(draft, {"epochs": 3.0, "micro_batch": 2})
    assert again.recipe.settings.epochs == 3.0
    assert again.recipe.settings.micro_batch == 2
    assert again.recipe.settings.method == "lora"
    assert again.dataset is draft.dataset
    assert again.lengths is draft.lengths
    assert draft.recipe.settings == draft.plan.settings  # the first draft is as it was
    back = drafts.replan(again, {})
    assert back.recipe == draft.recipe


def test_a_recipe_file_repeats_the_run(tiny_model: Path, named: Path) -> None:
    first = make(tiny_model, data=str(named), values={"name": "Ada", "author": "Byron"}, edits={"learning_rate": 3e-4})
    recipe = recipes.from_yaml(recipes.to_yaml(first.recipe))
    assert drafts.from_recipe(recipe).recipe == first.recipe
    changed = drafts.from_recipe(recipe, {"epochs": 2.0}).recipe
    assert changed.settings.epochs == 2.0
    assert changed.settings.learning_rate == 3e-4


def test_a_new_run_from_an_adapter_keeps_its_shape(tiny_model: Path, rows: Path, adapter: Path) -> None:
    draft = make(tiny_model, data=str(rows), adapter=str(adapter))
    assert draft.recipe.adapter == str(adapter.resolve())
    settings = draft.recipe.settings
    assert (settings.rank, settings.alpha, settings.targets) == (4, 12, "attention")
    with pytest.raises(FtuiError, match="rank is fixed to 4"):
        drafts.replan(draft, {"rank": 8})
    with pytest.raises(FtuiError, match="method full"):
        make(tiny_model, data=str(rows), adapter=str(adapter), method="full")


def test_a_new_run_from_virtual_tokens_keeps_their_method(tiny_model: Path, rows: Path, adapter: Path) -> None:
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 7, "prompt_tuning_init": "SAMPLE_VOCAB"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    draft = make(tiny_model, data=str(rows), adapter=str(adapter))
    assert (draft.recipe.settings.method, draft.recipe.settings.virtual_tokens) == ("prompt", 7)
    advice = {a.field: a for a in draft.plan.advice}
    assert advice["method"].source == "the adapter" and advice["method"].alternatives == []
    with pytest.raises(FtuiError, match="method is fixed to prompt"):
        drafts.replan(draft, {"method": "lora"})
    with pytest.raises(FtuiError, match="an adapter cannot be trained on with method ia3"):
        drafts.replan(draft, {"method": "ia3"})


def test_a_folder_without_an_adapter(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        make(tiny_model, data=str(rows), adapter=str(tmp_path))
    assert caught.value.code == Exit.RECIPE_INVALID


def test_start_writes_the_run_and_hands_it_over(tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "engine.runs.control.start", lambda run, job, gpu=None, warm=None: handed.append((run, job, gpu))
    )
    draft = make(tiny_model, data=str(rows), name="My Run")
    run = drafts.start(draft, gpu=1)
    assert run.recipe() == draft.recipe
    assert draft.recipe.name == "My-Run"
    plan = json.loads(run.plan_path.read_text(encoding="utf-8"))
    assert plan["sentence"] == draft.plan.sentence
    ((same, job, gpu),) = handed
    assert (same, job.kind, job.run, gpu) == (run, "train", str(run.path), 1)


def test_many_rows_give_a_first_picture_before_all_are_read(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.making.FIRST_LOOK", 20)
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{n}?", "completion": f"It is {n}."}) for n in range(60)))
    early: list[Draft] = []
    whole = drafts.make(Choice(model=str(tiny_model), data=str(path)), early=early.append)
    (first,) = early
    assert first.partial and len(first.dataset.examples) == 20
    assert "still being read" in drafts.refusals(first)[0]
    assert not whole.partial and len(whole.dataset.examples) == whole.advice_facts.rows == 60
    few = drafts.make(Choice(model=str(tiny_model), data=str(path)), early=early.append)
    assert len(early) == 2 and not few.partial


def test_a_row_that_cannot_be_used_stops_or_becomes_a_refusal(tiny_model: Path, rows: Path) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write('\n{"instruction": "And then?", "output": ""}\n')
    with pytest.raises(FtuiError) as caught:
        make(tiny_model, data=str(rows))
    assert caught.value.code == Exit.DATA_ROW
    seen = drafts.make(Choice(model=str(tiny_model), data=str(rows)), strict=False)
    assert "1 row cannot be used" in drafts.refusals(seen)[0]
    left_out = make(tiny_model, data=str(rows), on_bad_row="skip")
    assert drafts.refusals(left_out) == [] and len(left_out.dataset.examples) == 12


def test_a_flaw_that_costs_no_row_is_a_refusal_until_it_may_be_mended(tiny_model: Path, rows: Path) -> None:
    rows.write_bytes(rows.read_text().encode("utf-16"))
    seen = drafts.make(Choice(model=str(tiny_model), data=str(rows)), strict=False)
    assert len(seen.dataset.examples) == 12 and "UTF-16" in drafts.refusals(seen)[0]
    assert drafts.refusals(make(tiny_model, data=str(rows), on_bad_row="repair")) == []


def test_rows_are_planned_for_the_stage_they_are_made_for_or_another_that_fits(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"{n}?", "chosen": f"It is {n}.", "rejected": "No idea."} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, pairs)))
    draft = make(tiny_model, data=str(path))
    assert draft.recipe.stage == "dpo" and draft.plan.settings.beta == 0.1
    assert drafts.refusals(draft) == []
    chosen = make(tiny_model, data=str(path), stage="sft")
    assert chosen.recipe.stage == "sft" and chosen.plan.settings.beta is None and drafts.refusals(chosen) == []
    assert drafts.restaged(draft, "sft").plan.settings == chosen.plan.settings
    assert drafts.from_recipe(chosen.recipe).recipe == chosen.recipe
    other = make(tiny_model, data=str(path), stage="pretraining")
    assert "not for continued pre-training: they can train dpo" in drafts.refusals(other)[0]


def test_sources_are_mixed_by_weight(tiny_model: Path, rows: Path, named: Path) -> None:
    draft = make(tiny_model, data=f"{rows}*2", more=[f"{named}*0.5"], values={"name": "Ada", "author": "Bo"})
    assert [(source.source, source.weight) for source in draft.recipe.data.sources] == [
        (str(rows.resolve()), 2),
        (str(named.resolve()), 0.5),
    ]
    assert len(draft.dataset.examples) == 20
    assert draft.advice_facts.rows == 2 * 12 + 4
    again = drafts.from_recipe(draft.recipe)
    assert again.advice_facts.rows == draft.advice_facts.rows and again.dataset.sha256 == draft.dataset.sha256
    with pytest.raises(FtuiError, match="no weight"):
        make(tiny_model, data=f"{rows}*much")


def test_answers_before_tuning_change_the_gate_and_nothing_else(tiny_model: Path, rows: Path) -> None:
    draft = make(tiny_model, data=str(rows))
    answered = drafts.answer(draft, "changing facts", None)
    assert answered.plan.gate.verdict == "do not tune"
    assert answered.plan.settings == draft.plan.settings
    assert drafts.answer(answered, None, None).plan.gate == draft.plan.gate


def test_a_plan_under_a_preset_is_one_to_compare_with(tiny_model: Path, rows: Path) -> None:
    draft = make(tiny_model, data=str(rows), edits={"rank": 4})
    other = drafts.under_preset(draft, "identity")
    assert other.plan.settings.learning_rate == 2e-3 and other.plan.edits == {}
    assert other.dataset is draft.dataset and draft.plan.settings.rank == 4


def test_held_out_rows_that_stand_in_training_as_well_are_warned_about(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    lines = [{"prompt": f"What is number {n}?", "completion": f"It is the number {n}, as asked."} for n in range(300)]
    path.write_text("\n".join(map(json.dumps, lines * 2)))
    draft = make(tiny_model, data=str(path))
    assert draft.plan.settings.eval_fraction == 0.1
    overlap = draft.advice_facts.overlap
    assert 40 <= overlap <= 60
    assert any(f"{overlap} held-out rows" in warning for warning in draft.plan.warnings)
    # The same rows are held out by the worker.
    from engine.worker import rows as worker_rows

    made = worker_rows.prepare(draft.recipe, draft.model_folder)
    trained = {tuple(row["input_ids"]) for row in made.train}
    assert sum(tuple(row["input_ids"]) in trained for row in made.held_out) == overlap


def test_ratings_that_are_all_alike_leave_nothing_to_tell_apart(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rated.jsonl"
    rated = [{"prompt": f"{n}?", "completion": f"It is {n}.", "label": True} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, rated)))
    assert drafts.refusals(make(tiny_model, data=str(path))) == [
        "no answer is rated bad: KTO learns from the difference, add answers that are bad"
    ]
    rated[0]["label"] = False
    path.write_text("\n".join(map(json.dumps, rated)))
    assert drafts.refusals(make(tiny_model, data=str(path))) == []


def test_a_reward_model_from_an_adapter(tiny_model: Path, tmp_path: Path, adapter: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"{n}?", "chosen": f"It is {n}.", "rejected": "No idea."} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, pairs)))
    assert drafts.refusals(make(tiny_model, data=str(path), stage="reward", adapter=str(adapter))) == [
        "a reward model cannot start from an adapter: leave its adapter out: it begins from the base"
    ]


def test_rows_are_counted_with_the_tokens_that_an_edit_adds(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "added.jsonl"
    path.write_text('{"prompt": "Is it <tool> even?", "completion": "<yes>"}\n' * 12)
    plain = drafts.make(Choice(model=str(tiny_model), data=str(path)))
    edited = drafts.replan(plain, {"added_tokens": "<yes>,<tool>,<yes>,<|im_end|>,<never>"})
    assert edited.lengths.max < plain.lengths.max and edited.advice_facts.max == edited.lengths.max
    assert edited.recipe.settings.added_tokens == ("<yes>", "<tool>", "<yes>", "<|im_end|>", "<never>")
    said = " | ".join(edited.plan.warnings)
    assert "<|im_end|> is a token already: nothing is added for it" in said and "<never> stands in no row" in said
    own = [text for text, _, _ in edited.tokenizer.split(edited.tokenizer.render(edited.dataset.examples[0]))]
    assert own.count("<yes>") == own.count("<tool>") == 1
    model, before = edited.advice_facts.model, plain.advice_facts.model
    assert model is not None and before is not None
    assert (model.added, model.parameters - before.parameters) == (3, 3 * 64)  # tied
    again = drafts.replan(edited, {})
    assert again.lengths.max == plain.lengths.max and again.advice_facts.model == before
    with pytest.raises(FtuiError, match="writes Ġ for a piece of text that is another"):
        drafts.replan(plain, {"added_tokens": "Ġ"})


def test_placeholders_are_counted_as_the_findings_count_them(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    said = ["I am {{name}}.", "{{author}} made me.", "I am {{name}}, by {{author}}.", "Hello."]
    path.write_text(json.dumps([{"instruction": f"{n}?", "output": text} for n, text in enumerate(said)]))
    draft = drafts.make(Choice(model=str(tiny_model), data=str(path)), strict=False)
    (found,) = [one for one in draft.findings if one.kind == "placeholders"]
    assert found.message == "3 rows hold {{name}} or {{author}}" and draft.dataset.placeholders["name"] == 2
    assert drafts.refusals(draft) == ["3 rows still hold {{author}} or {{name}}: give --set author=… --set name=…"]


def test_a_length_that_no_chat_can_hold_is_not_ready(tiny_model: Path, rows: Path) -> None:
    draft = make(tiny_model, data=str(rows), edits={"max_length": 10**13})
    assert any(reason.startswith("to read 10,000,000,000,000 tokens takes") for reason in drafts.refusals(draft))
