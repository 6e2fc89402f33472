"""What answers are worth, and rewards that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import rewards
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Model, Recipe
from engine.runs import directory
from tests.engine.settings import settings


@pytest.mark.parametrize(
    ("word", "answer", "tokens", "expected", "worth"),
    [
        ("length:40", "…", 40, None, 1.0),
        ("length:40", "…", 30, None, 0.75),
        ("length:40", "…", 50, None, 0.75),
        ("length:40", "", 0, None, 0.0),
        ("length:40", "…", 200, None, 0.0),
        (r"regex:^\d+$", "42", 1, None, 1.0),
        (r"regex:^\d+$", "forty-two", 3, None, 0.0),
        ("exact", " Paris.\n", 2, "Paris.", 1.0),
        ("exact", "Paris", 1, "Paris.", 0.0),
        ("exact", "Paris", 1, None, 0.0),
    ],
)
def test_what_an_answer_is_worth(word: str, answer: str, tokens: int, expected: str | None, worth: float) -> None:
    assert rewards.parse(word).of(answer, tokens, expected) == worth


@pytest.mark.parametrize("word", ["length:", "length:no", "length:0", "regex:(", "no-such-run"])
def test_a_word_that_names_no_reward(word: str) -> None:
    with pytest.raises(FtuiError) as caught:
        rewards.resolved(word)
    assert caught.value.code in (Exit.RECIPE_INVALID, Exit.RUN_UNKNOWN)


def run(name: str, stage: str, model: str = "m") -> directory.RunDir:
    recipe = Recipe(name=name, model=Model(source=model), data=Data(source="d"), settings=settings())
    recipe.stage = stage  # type: ignore[assignment]
    return directory.create(recipe, {})


def test_what_speaks_against_a_reward(tmp_path: Path) -> None:
    assert "needs a reward" in rewards.reason(None, "m", answers=True)
    assert not rewards.reason("exact", "m", answers=True)
    assert "these have none" in rewards.reason("exact", "m", answers=False)
    assert not rewards.reason("length:5", "m", answers=False)
    judge, other, plain = run("judge", "reward"), run("other", "reward", "n"), run("plain", "sft")
    assert rewards.resolved("judge") == str(judge.path)
    assert "no result yet" in rewards.reason(str(judge.path), "m", answers=False)
    for made in (judge, other, plain):
        made.adapter.mkdir()
        (made.adapter / "adapter_config.json").write_text("{}")
        (made.adapter / "adapter_model.safetensors").write_bytes(b"")
    assert not rewards.reason(str(judge.path), "m", answers=False)
    assert "reads the tokens of n, not of m" in rewards.reason(str(other.path), "m", answers=False)
    assert "no reward model" in rewards.reason(str(plain.path), "m", answers=False)
    assert "cannot be used" in rewards.reason(str(tmp_path), "m", answers=False)
