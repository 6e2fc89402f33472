"""What is said of values that do not fit, and of files that are no YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import llamafactory, presets, recipe
from engine.errors import Exit, FtuiError


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("optimizer", "foo", "optimizer cannot be foo: this takes adamw_torch, adamw_torch_fused or paged_adamw_8bit"),
        ("targets", "all", "targets cannot be all: this takes all-linear or attention"),
        ("bits", "5", "bits cannot be 5: this takes 4 or 8"),
        ("learning_rate", "3", "learning_rate cannot be 3: this takes a number above 0 and up to 1"),
        ("learning_rate", "fast", "learning_rate cannot be fast: this takes a number above 0 and up to 1"),
        ("epochs", "inf", "epochs cannot be inf: this takes a number above 0 and up to 1,000,000"),
        ("dropout", "1", "dropout cannot be 1: this takes a number from 0 and below 1"),
        ("warmup", "0.7", "warmup cannot be 0.7: this takes a number from 0 to 0.5"),
        ("rank", "1.5", "rank cannot be 1.5: this takes a whole number from 1 on"),
        ("packing", "maybe", "packing cannot be maybe: this takes yes or no"),
        ("neftune", "-1", "neftune cannot be -1: this takes a number above 0 and up to 100, or none"),
        ("max_length", "", "max_length cannot be empty: this takes a whole number from 8 on"),
    ],
)
def test_a_wrong_setting_is_told_what_it_takes(name: str, value: str, words: str) -> None:
    with pytest.raises(FtuiError) as caught:
        recipe.setting(name, value)
    assert (caught.value.code, caught.value.cause) == (Exit.RECIPE_INVALID, words)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("packing", "yes", True),
        ("packing", "No", False),
        ("max_length", "2,304", 2304),
        ("seed", "1,000,000", 1_000_000),
    ],
)
def test_a_value_may_be_typed_as_it_is_shown(name: str, value: str, meant: Any) -> None:
    assert recipe.setting(name, value) == meant


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "name: x\nsettings: {a: [1, 2\nb: 3",
            "line 3, column 2 is no YAML: expected ',' or ']', but got ':'",
        ),
        ("a: [1", "line 1, column 6 is no YAML: expected ',' or ']', but got the end of the file"),
        ("a:\n\t- b", "line 2, column 1 is no YAML: found character '\\t' that cannot start any token"),
        ("a: \x00", "this is no YAML: special characters are not allowed"),
        pytest.param("[" * 3000, "this is no YAML that can be read: it holds itself", id="nested"),
        ("stage: foo", "stage cannot be foo: this takes sft, pretraining, dpo, kto, reward, grpo, rloo or ppo"),
        ("settings: {method: foo, learning_rate: 3}", "settings.method cannot be foo: this takes lora, qlora, ia3"),
        (
            "settings: {learning_rate: 3}",
            "settings.learning_rate cannot be 3: this takes a number above 0 and up to 1",
        ),
        (
            "data: {source: x, more: [{source: y, weight: 300}]}",
            "data.more[0].weight cannot be 300: this takes a number",
        ),
        ("data: {source: x, columns: {prompt: 3}}", "data.columns[...] cannot be that: this takes text"),
        ("model: {source: s, size: 1}", "there is no field size in model"),
        ("then: {name: x}", "model is missing in then"),
        ("foo", "it cannot be foo: this takes fields and their values"),
    ],
)
def test_a_broken_recipe_says_what_and_where(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(FtuiError) as caught:
        recipe.load(file)
    assert caught.value.cause.startswith(cause) and caught.value.where == str(file)
    assert "Expected" not in caught.value.cause and len(caught.value.lines()) == 3


def test_other_files_say_it_in_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lf.yaml"
    file.write_text("model_name_or_path: x\n stage: sft")
    with pytest.raises(FtuiError) as caught:
        llamafactory.read(file)
    assert caught.value.cause == "line 2, column 7 is no YAML: mapping values are not allowed here"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "ftui" / "presets"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("title: x\nsummary: [")
    with pytest.raises(FtuiError) as caught:
        presets.load("mine")
    assert caught.value.cause == "line 2, column 11 is no YAML: expected a value, but found the end of the file"
    (own / "mine.yaml").write_text("title: x\nsummary: y\nwhen: z\nintent: fun")
    with pytest.raises(FtuiError, match="intent cannot be fun: this takes identity, instructions or summaries"):
        presets.load("mine")
