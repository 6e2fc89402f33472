"""`plan --what-if`, `--against`, `--save`, and a plan from a LLaMA-Factory YAML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from engine import presets
from engine.errors import Exit
from engine.runs import directory
from tests.engine.cli.conftest import Said

Ftui = Callable[..., Said]


@pytest.fixture
def words(rows: Path, tiny_model: Path) -> tuple[object, ...]:
    """A plan on twelve rows."""
    return ("plan", "--data", rows, "--model", tiny_model)


def test_one_what_if_is_a_list_with_what_it_means(ftui: Ftui, words: tuple[object, ...]) -> None:
    said = ftui(*words, "--what-if", "rank=64")
    assert said.code == 0
    table = [line.split() for line in said.out.splitlines()]
    assert ["now", "rank=64"] in table
    assert any(line[0] == "rank" and line[2] == "64" for line in table if line)
    assert any(line[0] == "alpha" for line in table if line), "the alpha moves with the rank"
    assert "memory" in said.out
    assert "learning_rate" not in said.out, "only what differs"


def test_several_what_ifs_are_columns(ftui: Ftui, words: tuple[object, ...]) -> None:
    said = ftui(*words, "--what-if", "rank=64,lr=1e-4", "--what-if", "epochs=1")
    head, *lines = [line for line in said.out.splitlines() if line.startswith((" ", "rank", "epochs", "steps"))]
    assert head.split() == ["now", "rank=64,lr=1e-4", "epochs=1"]
    found = {line.split()[0]: line.split()[1:] for line in lines}
    assert found["rank"] == ["8", "64"]
    assert found["epochs"][-1] == "1"


def test_what_if_as_json_has_every_change(ftui: Ftui, words: tuple[object, ...]) -> None:
    got = ftui(*words, "--what-if", "rank=64", "--what-if", "method=full", "--json").json["what_if"]
    assert [one["name"] for one in got] == ["rank=64", "method=full"]
    first = got[0]["changes"][0]
    assert (first["name"], first["after"], first["kind"]) == ("rank", 64, "setting")
    assert {"method"} <= {change["name"] for change in got[1]["changes"]}


@pytest.mark.parametrize(
    ("asked", "code"), [("rank", Exit.USAGE), ("rank=many", Exit.RECIPE_INVALID), ("speed=1", Exit.RECIPE_INVALID)]
)
def test_a_what_if_that_cannot_be(ftui: Ftui, words: tuple[object, ...], asked: str, code: Exit) -> None:
    assert ftui(*words, "--what-if", asked).code == code


def test_two_recipes_side_by_side(ftui: Ftui, words: tuple[object, ...], tmp_path: Path) -> None:
    for name, rank in (("a", "8"), ("b", "16")):
        recipe = ftui(*words, "--rank", rank, "--name", name, "--json").json["recipe"]
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    said = ftui("plan", tmp_path / "a.yaml", "--against", tmp_path / "b.yaml")
    assert said.code == 0
    table = [line.split() for line in said.out.splitlines()]
    assert ["a.yaml", "b.yaml"] in table
    assert any(line[:3] == ["rank", "8", "16"] for line in table)
    assert not any(line[:1] == ["seed"] for line in table)
    got = ftui("plan", tmp_path / "a.yaml", "--against", tmp_path / "b.yaml", "--json").json["against"]
    assert got["name"] == "b.yaml"
    assert {"name": "rank", "before": 8, "after": 16}.items() <= got["changes"][0].items()
    same = ftui("plan", tmp_path / "a.yaml", "--against", tmp_path / "a.yaml")
    assert "nothing changes" in same.out


def test_against_other_rows_says_so(ftui: Ftui, words: tuple[object, ...], tmp_path: Path, rows: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(rows.read_text(encoding="utf-8") * 2, encoding="utf-8")
    recipe = ftui("plan", "--data", more, "--model", words[-1], "--json").json["recipe"]
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    changes = ftui(*words, "--against", tmp_path / "more.yaml", "--json").json["against"]["changes"]
    (moved,) = [change for change in changes if change["name"] == "rows"]
    assert (moved["before"], moved["after"]) == ("12 of rows.jsonl", "24 of more.jsonl")


def test_against_a_preset_and_a_run(ftui: Ftui, words: tuple[object, ...]) -> None:
    against = ftui(*words, "--edit", "dropout=0.2", "--against", "instructions", "--json").json["against"]
    assert {"dropout"} <= {change["name"] for change in against["changes"]}
    planned = ftui(*words, "--rank", "16", "--name", "earlier", "--json").json
    from engine import recipe

    directory.create(recipe.from_yaml(json.dumps(planned["recipe"])), planned["plan"])
    changes = ftui(*words, "--against", "earlier", "--json").json["against"]["changes"]
    assert {"name": "rank", "before": 8, "after": 16}.items() <= changes[0].items()
    assert ftui("plan", "earlier", "--json").json["recipe"]["settings"] == planned["recipe"]["settings"]
    assert ftui(*words, "--against", "nobody").code == Exit.RUN_UNKNOWN


def test_a_plan_is_kept_as_a_preset(ftui: Ftui, words: tuple[object, ...]) -> None:
    said = ftui(*words, "--rank", "16", "--save", "mine")
    assert said.code == 0
    assert "ftui plan --preset mine" in said.out
    listed = {preset["name"]: preset["own"] for preset in ftui("presets", "--json").json}
    assert listed["mine"] and not listed["identity"]
    assert "you" in next(line for line in ftui("presets").out.splitlines() if line.startswith("mine"))
    shown = ftui("presets", "mine").out
    assert "set by hand" in shown
    assert "Saved from a plan" in shown
    assert ftui(*words, "--save", "mine").code == Exit.USAGE
    assert ftui(*words, "--save", "mine", "--force").code == 0
    assert ftui(*words, "--preset", "mine", "--json").code == 0


def test_a_preset_is_shown_whole(ftui: Ftui) -> None:
    shown = ftui("presets", "dialogsum").out
    assert "The tutorial warms up for 1 step of 1000." in shown  # a note
    assert "the tutorial's, equal to the rank" in shown  # a reason
    assert "paged_adamw_8bit" in shown
    assert "Summarize the following conversation.⏎⏎{dialogue}" in shown
    measured = presets.load("identity").measured[0]
    assert f"loss {measured.first_loss} to {measured.last_loss}" in ftui("presets", "identity").out


@pytest.fixture
def factory(tmp_path: Path, rows: Path, tiny_model: Path) -> Path:
    """A LLaMA-Factory configuration on the twelve rows."""
    (tmp_path / "data").mkdir()
    info = {"ours": {"file_name": str(rows)}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    file = tmp_path / "sft.yaml"
    keys = {"model_name_or_path": str(tiny_model), "stage": "sft", "finetuning_type": "lora", "dataset": "ours"}
    keys |= {"lora_rank": 4, "template": "other\x1b[31m", "num_train_epochs": 2.0, "output_dir": "saves/tiny/lora"}
    file.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return file


def test_a_llamafactory_yaml_is_planned(ftui: Ftui, factory: Path) -> None:
    said = ftui("plan", factory)
    assert said.code == 0
    assert "left out: template other␛[31m, because the model's own chat template is used" in said.out
    got = ftui("plan", factory, "--json").json
    assert got["plan"]["edits"] == {"method": "lora", "rank": 4, "epochs": 2.0}
    assert got["recipe"]["name"] == "tiny-lora"
    assert got["recipe"]["data"]["source"].endswith("dataset_info.json:ours")
    assert any("template" in line for line in got["imported"]["left"])
    assert got["imported"]["kept"]["lora_rank"] == "rank 4"


def test_options_go_over_what_the_yaml_says(ftui: Ftui, factory: Path, rows: Path) -> None:
    got = ftui("plan", factory, "--data", rows, "--rank", "6", "--name", "mine", "--json").json
    assert (got["recipe"]["data"]["source"], got["recipe"]["name"]) == (str(rows), "mine")
    assert got["plan"]["edits"]["rank"] == 6
    assert got["plan"]["edits"]["epochs"] == 2.0


def test_train_takes_such_a_yaml_too(ftui: Ftui, factory: Path) -> None:
    said = ftui("train", factory, "--length", "100000", "-e", "rope=none")
    assert said.code == Exit.PLAN_REFUSED
    assert "100,000" in said.err
    assert directory.all_runs() == []


def test_a_yaml_that_is_neither_a_recipe_nor_an_import(ftui: Ftui, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("colour: red\n", encoding="utf-8")
    assert ftui("plan", file).code == Exit.RECIPE_INVALID
    assert ftui("plan", tmp_path / "absent.yaml").code == Exit.RECIPE_INVALID
    assert ftui("plan", "absent").code == Exit.RUN_UNKNOWN
