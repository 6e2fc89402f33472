"""Which settings are shown for a stage and a method."""

from __future__ import annotations

from typing import get_args

import pytest
from rich.cells import cell_len

from engine.advice import fields
from engine.recipe import SETTING_FIELDS, Method, Stage
from tests.engine.settings import settings

STAGES, METHODS = get_args(Stage), get_args(Method)


def test_every_setting_has_its_line_of_help() -> None:
    assert set(fields.HELP) == {"stage", "reward", *SETTING_FIELDS}
    for name, line in fields.HELP.items():
        assert 10 < cell_len(line) <= 72, name
        assert not line.endswith("."), name


def test_every_stage_and_method_says_what_it_does() -> None:
    assert list(map(set, fields.DOES.values())) == [set(STAGES), set(METHODS)]
    assert all(10 < cell_len(line) <= 72 for does in fields.DOES.values() for line in does.values())


def test_every_method_has_its_word_and_its_number() -> None:
    assert list(fields.METHODS) == list(get_args(Method))
    words = {method: fields.trains(settings(method=method, rank=32, virtual_tokens=7)) for method in get_args(Method)}
    assert (words["galore"], words["bottleneck"], words["prefix"]) == (
        "GaLore r32",
        "bottleneck r32",
        "prefix of 7 tokens",
    )
    assert len(set(words.values())) == len(words)


def test_every_setting_counts_for_some_stage_and_method() -> None:
    counted: set[str] = set()
    for stage in STAGES:
        for method in METHODS:
            counted |= {*fields.few(stage, method), *fields.expert(stage, method, settings(method=method))}
    assert counted == set(SETTING_FIELDS)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_few_and_expert_hold_each_setting_once(stage: Stage, method: Method) -> None:
    few, expert = fields.few(stage, method), fields.expert(stage, method, settings(method=method))
    assert few[0] == "method"
    assert len(few) <= 11
    assert len({*few, *expert}) == len(few) + len(expert)


def test_what_does_not_count_is_in_neither() -> None:
    def counts(stage: Stage, method: Method, **changes: object) -> set[str]:
        return {*fields.few(stage, method), *fields.expert(stage, method, settings(method=method, **changes))}

    assert {"rank", "alpha", "dropout", "targets"}.isdisjoint(counts("sft", "full") | counts("dpo", "freeze"))
    assert {"bits", "double_quantization"} <= counts("sft", "qlora")
    assert {"bits", "double_quantization"}.isdisjoint(counts("sft", "lora"))
    assert "double_quantization" not in counts("sft", "qlora", bits=8)
    assert "trained_layers" in counts("kto", "freeze") and "trained_layers" not in counts("kto", "full")
    assert {"beta", "loss", "generations", "answer_length", "temperature"}.isdisjoint(counts("sft", "lora"))
    assert {"beta", "loss"} <= counts("dpo", "lora") & counts("kto", "full") & counts("grpo", "qlora")
    assert "loss" not in counts("rloo", "lora")
    assert {"eval_fraction", "stop_on_plateau"}.isdisjoint(counts("grpo", "lora"))
    assert "sample_every" not in counts("reward", "lora")
    assert "neftune" in counts("dpo", "lora") and "neftune" not in counts("ppo", "lora") | counts("sft", "prompt")
    assert "warmup" not in counts("sft", "lora", schedule="constant")
