"""Presets: the packaged ones hold what they promise, a person's own are found and saved, mistakes are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine import draft as drafts
from engine import paths, presets
from engine.choice import Choice
from engine.errors import Exit, FtuiError
from engine.recipe import Check, setting

PACKAGED = ["dialogsum", "identity", "instructions"]
MINIMAL = "title: Mine\nsummary: mine\nwhen: Always.\nintent: instructions\n"


def _own(name: str, text: str) -> Path:
    folder = paths.private_dir(paths.config_dir() / "presets")
    file = folder / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _rows(preset: presets.Preset) -> list[dict[str, str]]:
    assert preset.data_path is not None
    return [json.loads(line) for line in preset.data_path.read_text(encoding="utf-8").splitlines()]


def _bare(question: str) -> str:
    """A question without what does not change it: case, spaces, punctuation."""
    return re.sub(r"[\W_]+", "", question.casefold())


def test_names_lists_the_packaged_presets() -> None:
    assert presets.names() == PACKAGED


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_preset_loads_and_its_settings_are_settings(name: str) -> None:
    preset = presets.load(name)
    assert preset.name == name
    assert preset.title and preset.summary and preset.when.endswith(".") and preset.probe
    assert len(preset.summary) <= 40, "it stands in a list of 80 cells"
    for key, value in preset.settings.items():
        assert setting(key, value) == value
    assert preset.settings.keys() == preset.reasons.keys()
    assert all(preset.reasons.values())


@pytest.mark.parametrize("name", PACKAGED)
def test_every_check_can_be_answered(name: str) -> None:
    checks = presets.load(name).checks
    assert len(checks.general) >= 5
    everything = [*checks.identity, *checks.general]
    assert len({_bare(check.ask) for check in everything}) == len(everything)
    for check in everything:
        assert check.ask.strip()
        assert check.expect and all(check.expect)
        assert not any(word.casefold() in check.ask.casefold() for word in check.expect), "answered by repeating it"


def test_identity_settings_are_typed_values() -> None:
    settings = presets.load("identity").settings
    assert settings["learning_rate"] == 2e-3  # YAML reads 2e-3 as text
    assert isinstance(settings["epochs"], float)
    assert settings["method"] == "lora"


def test_identity_rows_are_whole() -> None:
    rows = _rows(presets.load("identity"))
    assert 40 <= len(rows) <= 110
    for row in rows:
        assert set(row) == {"instruction", "input", "output"}
        assert row["instruction"].strip() and row["output"].strip()
    questions = [_bare(row["instruction"]) for row in rows]
    assert len(set(questions)) == len(questions)


def test_identity_rows_use_only_the_placeholders_that_have_values() -> None:
    preset = presets.load("identity")
    text = "\n".join(row["instruction"] + row["output"] for row in _rows(preset))
    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", text)) == {"name", "author"} == set(preset.values)
    assert not re.search(r"[{}]", re.sub(r"\{\{(name|author)\}\}", "", text))


def test_identity_rows_are_in_both_languages_and_not_all_about_the_model() -> None:
    rows = _rows(presets.load("identity"))
    chinese = [row for row in rows if re.search("[一-鿿]", row["output"])]
    plain = [row for row in rows if "{{" not in row["output"]]
    assert len(chinese) >= 10
    assert len(rows) - len(chinese) >= 30
    assert len(plain) >= 15, "without plain rows the model answers everything with its name"
    assert any(row in plain for row in chinese)


def test_no_check_question_is_among_the_rows() -> None:
    preset = presets.load("identity")
    trained = {_bare(row["instruction"]) for row in _rows(preset)}
    asked = [*preset.checks.identity, *preset.checks.general]
    assert [check.ask for check in asked if _bare(check.ask) in trained] == []


def test_identity_checks_wait_for_the_values() -> None:
    identity: list[Check] = presets.load("identity").checks.identity
    assert len(identity) >= 10
    assert {word for check in identity for word in check.expect} == {"{{name}}", "{{author}}"}
    assert any(re.search("[一-鿿]", check.ask) for check in identity)


def test_dialogsum_carries_the_tutorials_recipe() -> None:
    preset = presets.load("dialogsum")
    assert preset.data is None and preset.data_path is None
    assert preset.prompt is not None and preset.prompt.format(dialogue="A: hi") in (
        "Summarize the following conversation.\n\nA: hi"
    )
    assert preset.completion == "{summary}"
    expected = {
        "method": "qlora",
        "rank": 32,
        "alpha": 32,
        "dropout": 0.05,
        "targets": "attention",
        "learning_rate": 2e-4,
        "micro_batch": 1,
        "accumulation": 4,
        "optimizer": "paged_adamw_8bit",
        "gradient_checkpointing": True,
    }
    assert {key: preset.settings[key] for key in expected} == expected


def test_a_persons_own_preset_is_listed_and_loaded() -> None:
    file = _own("mine", MINIMAL + "data: mine.jsonl\n")
    (file.parent / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    assert presets.names() == [*PACKAGED, "mine"]
    preset = presets.load("mine")
    assert preset.data_path == file.parent / "mine.jsonl"


def test_a_persons_own_preset_takes_the_place_of_a_packaged_one() -> None:
    _own("identity", MINIMAL)
    assert presets.names() == PACKAGED
    assert presets.load("identity").title == "Mine"


def test_unknown_preset_names_the_closest_and_all() -> None:
    with pytest.raises(FtuiError) as caught:
        presets.load("Identiy")
    assert caught.value.code == Exit.PRESET_UNKNOWN
    assert "did you mean identity?" in caught.value.cause
    assert all(name in caught.value.next_step for name in PACKAGED)


def test_unknown_preset_without_a_close_name_guesses_nothing() -> None:
    with pytest.raises(FtuiError) as caught:
        presets.load("zzz")
    assert caught.value.code == Exit.PRESET_UNKNOWN
    assert "did you mean" not in caught.value.cause


@pytest.mark.parametrize("name", ["../identity", "/etc/passwd", ""])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(FtuiError) as caught:
        presets.load(name)
    assert caught.value.code == Exit.PRESET_UNKNOWN


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINIMAL + "colour: red\n", "colour"),
        (MINIMAL + "name: other\n", "name"),
        (MINIMAL.replace("instructions", "magic"), "intent"),
        (MINIMAL.replace("title: Mine\n", ""), "title"),
        (MINIMAL + "settings: {rank: 0}\nreasons: {rank: why}\n", "rank"),
        (MINIMAL + "settings: {ranks: 8}\nreasons: {ranks: why}\n", "ranks"),
        (MINIMAL + "settings: {rank: 8}\n", "rank"),
        (MINIMAL + "reasons: {rank: why}\n", "rank"),
        (MINIMAL + "prompt: '{a}'\n", "completion"),
        (MINIMAL + "prompt: a\ncompletion: '{b}'\n", "column"),
        (MINIMAL + "data: ../rows.jsonl\n", "../rows.jsonl"),
        (MINIMAL + "data: none.jsonl\n", "none.jsonl"),
        (MINIMAL + "measured: [{model: a}]\n", "measured"),
        ("- a\n", "fields"),
        ("a: [\n", "line"),
        ("", "fields"),
    ],
)
def test_a_broken_preset_is_refused_with_file_and_reason(text: str, named: str) -> None:
    file = _own("broken", text)
    with pytest.raises(FtuiError) as caught:
        presets.load("broken")
    assert caught.value.code == Exit.RECIPE_INVALID
    assert named in caught.value.cause
    assert caught.value.where == str(file)
    assert presets.names() == [*PACKAGED, "broken"]


def test_a_preset_that_is_not_utf8_is_refused() -> None:
    _own("broken", "").write_bytes(b"title: \xff\n")
    with pytest.raises(FtuiError) as caught:
        presets.load("broken")
    assert "UTF-8" in caught.value.cause


def _draft(tiny_model: Path, **picked: Any) -> drafts.Draft:
    return drafts.make(Choice(model=str(tiny_model), **picked))


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    file = tmp_path / "dialogues.jsonl"
    rows = [{"talk": f"A: is it {n}? B: yes.", "gist": f"It is {n}."} for n in range(20)]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_what_was_set_by_hand_is_saved_with_a_reason_and_loads_back(tiny_model: Path, dialogues: Path) -> None:
    picked = {"prompt": "Sum up: {talk}", "completion": "{gist}", "edits": {"rank": 16, "learning_rate": 1e-5}}
    draft = _draft(tiny_model, data=str(dialogues), **picked)
    file = presets.save("mine", draft)
    preset = presets.load("mine")
    assert file == Path(preset.folder) / "mine.yaml"
    assert preset.own
    assert preset.settings == {"rank": 16, "learning_rate": 1e-5}
    advised = next(a for a in draft.plan.advice if a.field == "rank")
    assert preset.reasons["rank"].startswith("set by hand")
    assert f"advised was {advised.value}" in preset.reasons["rank"]
    assert (preset.prompt, preset.completion) == ("Sum up: {talk}", "{gist}")
    assert preset.data is None, "rows are the person's own"
    assert preset.probe == "", "the first prompt of other rows would be another"
    again = _draft(tiny_model, data=str(dialogues), preset="mine")
    assert again.plan.settings == draft.plan.settings
    assert next(a for a in again.plan.advice if a.field == "rank").source == "preset mine"
    assert file.stat().st_mode & 0o077 == 0


def test_a_preset_saved_from_a_preset_keeps_its_rows_questions_and_reasons(tiny_model: Path) -> None:
    base = presets.load("identity")
    presets.save("ada", _draft(tiny_model, preset="identity", values={"name": "Ada"}, edits={"epochs": 3}))
    preset = presets.load("ada")
    assert preset.values == {**base.values, "name": "Ada"}
    assert preset.checks == base.checks and preset.probe == base.probe and preset.intent == "identity"
    assert _rows(preset) == _rows(base)
    assert preset.data_path is not None and preset.data_path.parent == Path(preset.folder)
    assert preset.settings["epochs"] == 3
    assert preset.reasons["rank"] == base.reasons["rank"]
    assert preset.settings.keys() == base.settings.keys()
    recipe = _draft(tiny_model, preset="ada").recipe
    assert any("Ada" in check.expect for check in recipe.checks.identity)


def test_a_whole_recipe_is_saved_as_what_the_rules_would_not_say(tiny_model: Path, dialogues: Path) -> None:
    picked = {"prompt": "{talk}", "completion": "{gist}", "edits": {"seed": 7}}
    recipe = _draft(tiny_model, data=str(dialogues), **picked).recipe
    presets.save("seven", drafts.from_recipe(recipe))
    assert presets.load("seven").settings == {"seed": 7}


def test_a_preset_is_not_replaced_unless_it_is_said(tiny_model: Path) -> None:
    first = _draft(tiny_model, preset="identity", edits={"epochs": 3})
    presets.save("mine", first)
    second = drafts.replan(first, {"epochs": 4})
    for taken in ("mine", "identity"):
        with pytest.raises(FtuiError) as caught:
            presets.save(taken, second)
        assert caught.value.code == Exit.USAGE
        assert "--force" in caught.value.next_step
    assert presets.load("mine").settings["epochs"] == 3
    presets.save("mine", second, force=True)
    assert presets.load("mine").settings["epochs"] == 4
    assert len(_rows(presets.load("mine"))) == len(_rows(presets.load("identity")))


def test_a_preset_saved_under_its_own_name_keeps_its_rows(tiny_model: Path) -> None:
    presets.save("mine", _draft(tiny_model, preset="identity"))
    presets.save("mine", _draft(tiny_model, preset="mine", edits={"seed": 3}), force=True)
    assert presets.load("mine").settings["seed"] == 3
    assert _rows(presets.load("mine")) == _rows(presets.load("identity"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "mine.yaml", "x" * 61])
def test_a_name_that_cannot_be_a_file_is_refused(tiny_model: Path, name: str) -> None:
    with pytest.raises(FtuiError) as caught:
        presets.save(name, _draft(tiny_model, preset="identity"))
    assert caught.value.code == Exit.USAGE
    assert presets.names() == PACKAGED
