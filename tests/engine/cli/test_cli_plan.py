"""`plan`, `models`, `presets`, `doctor`: what they say, as text and as JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from engine import recipe
from engine.advice import fields
from engine.errors import Exit
from engine.recipe import SETTING_FIELDS, Method
from engine.runs import directory
from tests.engine.cli.conftest import Said
from tests.engine.settings import settings

Ftui = Callable[..., Said]


def test_plan_gives_each_field_with_reason_and_source(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--epochs", "3", "-e", "weight_decay=0.1")
    said = ftui(*words)
    assert said.code == 0
    for field in fields.few("sft", "lora"):
        assert f"\n{field} " in said.out
    # Of the rest only what was edited has a line of its own; the others follow with their values.
    table, _, rest = said.out.partition("--all says why: ")
    assert "\nexpert" in table
    assert "\nweight_decay " in table
    assert "\nalpha" not in table
    assert "alpha 8, dropout 0.05" in rest
    assert "you set it; advised" in said.out
    whole = ftui(*words, "--all").out
    counting = {*fields.few("sft", "lora"), *fields.expert("sft", "lora", settings())}
    for field in SETTING_FIELDS:
        assert (f"\n{field} " in whole) == (field in counting), field
        assert (fields.HELP[field] in whole) == (field in counting), field
    assert "weights" in said.out
    assert "activations" in said.out
    assert "ready: " in said.out


def test_plan_as_json_holds_the_recipe_that_would_run(ftui: Ftui, rows: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ("--data", rows, "--model", tiny_model, "--lr", "1e-4", "--name", "mine")
    got = ftui("plan", *words, "--json").json
    assert got["plan"]["edits"] == {"learning_rate": 1e-4}
    assert got["refusals"] == []
    assert sum(got["memory"].values()) > 0
    file = tmp_path / "again.yaml"
    file.write_text(json.dumps(got["recipe"]), encoding="utf-8")  # JSON is YAML
    assert ftui("plan", file, "--json").json["recipe"] == got["recipe"]
    assert ftui("plan", file, "--data", rows).code == Exit.USAGE
    assert ftui("plan", file, "--name", "other", "--json").json["recipe"]["name"] == "other"


def test_explain_tells_why_and_what_else(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--explain")
    said = ftui(*words, "lr")
    assert said.out.startswith("learning_rate ")
    assert fields.HELP["learning_rate"] in said.out
    assert "source: " in said.out
    assert "--edit learning_rate=VALUE" in said.out
    assert "does not look at it" not in said.out
    assert "sft by lora does not look at it" in ftui(*words, "bits").out
    assert ftui(*words, "nonsense").code == Exit.USAGE


def test_the_verdict_comes_first_where_it_is_not_to_tune(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model)
    first = ftui(*words, "--goal", "changing-facts").out.splitlines()[0]
    assert first.startswith("do not tune: ")
    assert "retrieval" in first
    assert ftui(*words).out.startswith("unsure: ")
    assert "--goal persona" in ftui(*words).out
    assert ftui("plan", "--preset", "identity", "--model", tiny_model).out.startswith("SFT with LoRA")


def test_goal_and_deadline_answer_the_gate_for_a_recipe_too(
    ftui: Ftui, rows: Path, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "again.yaml"
    recipe_ = ftui("plan", "--data", rows, "--model", tiny_model, "--json").json["recipe"]
    file.write_text(json.dumps(recipe_), encoding="utf-8")
    for words in ((file,), ("--data", rows, "--model", tiny_model)):
        gate = ftui("plan", *words, "--goal", "style", "--deadline", "1s", "--json").json["plan"]["gate"]
        answers = {question["key"]: question for question in gate["questions"]}
        assert answers["retrieval"]["known"]
        assert answers["time"]["known"]
        assert "1 s" in answers["time"]["answer"]


def test_explain_shows_what_each_alternative_would_change(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--explain")
    got = ftui(*words, "rank", "--json").json
    assert (got["field"], got["value"]) == ("rank", 8)
    assert got["disagreement"]
    larger = next(other for other in got["alternatives"] if other["value"] == 64)
    assert larger["moves"].startswith("alpha 8 to 64, memory +"), "what follows is named before what comes of it"
    assert larger["moves"] in ftui(*words, "rank").out
    assert "sources differ: " in ftui(*words, "rank").out


def test_explain_gate_and_stage(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--explain")
    said = ftui(*words, "gate").out
    assert "Is there enough data?" in said
    assert "Would retrieval or an API do?" in said
    assert len(ftui(*words, "gate", "--json").json["questions"]) == 4
    assert ftui(*words, "stage").out.startswith("stage sft")
    assert ftui(*words, "stage", "--json").json["value"] == "sft"


def test_memory_is_told_by_part_and_phase(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model)
    phases = ftui(*words, "--json").json["phases"]
    assert list(phases) == ["training", "evaluation", "chat"]
    assert phases["chat"]["optimizer"] == 0 < phases["training"]["optimizer"]
    said = ftui(*words).out
    head = next(line for line in said.splitlines() if line.startswith("memory by part"))
    assert head.split()[3:] == list(phases)
    assert next(line for line in said.splitlines() if line.startswith("  all")).count("B") == len(phases)


def test_fits_lists_every_method_at_every_micro_batch(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--fits")
    table = ftui(*words, "--json").json
    assert {fit["method"] for fit in table} == set(get_args(Method))
    assert all(cell["total"] == sum(cell["memory"].values()) for fit in table for cell in fit["cells"])
    said = ftui(*words).out
    for fit in table:
        line = next(line for line in said.splitlines() if line.startswith(fit["label"]))
        assert line.count("✓") + line.count("✗") == len(fit["cells"]) == 6


def test_fits_tells_apart_what_is_refused(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--stage", "grpo", "--reward", "length:9", "--fits")
    said = ftui(*words).out
    assert "prefix: grpo fills up short prompts on the left" in said
    assert all("✓" not in line for line in said.splitlines() if line.startswith("pr"))
    assert [fit["method"] for fit in ftui(*words, "--json").json if fit["refused"]] == ["prefix", "prompt"]


def test_a_plan_that_cannot_work_says_so_and_train_refuses(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    words = ("--data", rows, "--model", tiny_model, "--length", "100000", "-e", "rope=none")
    assert "will not start" in ftui("plan", *words).out
    said = ftui("train", *words)
    assert said.code == Exit.PLAN_REFUSED
    assert "100,000" in said.err
    assert directory.all_runs() == []


def test_train_from_an_earlier_run_takes_its_model_and_adapter(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    planned = ftui("plan", "--data", rows, "--model", tiny_model, "--name", "first", "--json").json
    run = directory.create(recipe.from_yaml(json.dumps(planned["recipe"])), planned["plan"])
    words = ("plan", "--data", rows, "--from", "first", "--json")
    assert ftui(*words).code == Exit.RUN_STATE
    run.adapter.mkdir()
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj"]}
    (run.adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (run.adapter / "adapter_model.safetensors").write_bytes(b"")
    got = ftui(*words).json["recipe"]
    assert got["adapter"] == str(run.adapter)
    assert got["model"]["source"] == str(tiny_model)
    assert (got["settings"]["rank"], got["settings"]["alpha"], got["settings"]["targets"]) == (3, 6, "attention")
    assert ftui("plan", "--data", rows, "--from", "first", "--model", "starter").code == Exit.USAGE


def test_models_lists_the_starter_first(ftui: Ftui) -> None:
    assert ftui("models", "--json").json[0]["source"] == "starter"
    assert "SmolLM2-135M-Instruct" in ftui("models").out


def test_presets(ftui: Ftui) -> None:
    assert {p["name"] for p in ftui("presets", "--json").json} >= {"identity", "instructions", "dialogsum"}
    assert "ftui train" not in ftui("presets").err
    assert "--set name=" in ftui("presets", "identity").out
    assert ftui("presets", "nothing").code == Exit.PRESET_UNKNOWN


@pytest.fixture
def no_four_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback …\nImportError: no \x1b[31mlibbitsandbytes.so")

    monkeypatch.setattr(subprocess, "run", broken)


def test_doctor_names_each_thing_with_a_fix(ftui: Ftui, no_four_bit: None) -> None:
    checks = {check["name"]: check for check in ftui("doctor", "--json").json}
    assert {"python", "packages", "processor", "memory", "disk for runs", "permissions", "hub", "4-bit"} <= set(checks)
    assert checks["4-bit"]["level"] == "warning"
    assert "libbitsandbytes" in checks["4-bit"]["detail"]
    assert checks["hub"]["level"] == "warning"  # HF_HUB_OFFLINE is set for all tests
    assert all(check["fix"] for check in checks.values() if check["level"] == "bad")
    said = ftui("doctor")
    assert "4-bit" in said.out
    assert "\x1b" not in said.out
