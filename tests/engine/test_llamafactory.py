"""A LLaMA-Factory YAML becomes a choice, and nothing that it says is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine import llamafactory
from engine.errors import Exit, FtuiError
from engine.llamafactory import Imported

LORA = """
### model
model_name_or_path: some-maker/Some-Model-8B
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_alpha: 32
lora_dropout: 0.1
lora_target: q_proj,v_proj

### dataset
dataset: ours, theirs
dataset_dir: data
template: some-template
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
overwrite_cache: true

### output
output_dir: saves/some-model-8b/lora/sft
logging_steps: 10
save_steps: 500

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
a_key_of_tomorrow: 7
"""


def imported(folder: Path, text: str, name: str = "run.yaml") -> Imported:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return llamafactory.read(file)


def of(folder: Path, **keys: Any) -> Imported:
    return imported(folder, yaml.safe_dump({"model_name_or_path": "maker/model", **keys}))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "dataset_info.json"
    file.write_text(json.dumps({"ours": {"file_name": "ours.json"}, "theirs": {"file_name": "theirs.json"}}))
    return file


def test_settings_become_edits_and_names_sources(tmp_path: Path, registry: Path) -> None:
    got = imported(tmp_path, LORA)
    choice = got.choice
    assert choice.model == "some-maker/Some-Model-8B"
    assert choice.edits == {
        "method": "lora",
        "rank": 16,
        "alpha": 32,
        "dropout": 0.1,
        "targets": "attention",
        "max_length": 2048,
        "micro_batch": 1,
        "accumulation": 8,
        "learning_rate": 1e-4,
        "epochs": 3.0,
        "schedule": "cosine",
        "warmup": 0.1,
        "precision": "bf16",
        "eval_fraction": 0.1,
        "save_every": 500,
    }
    assert (choice.data, choice.more) == (f"{registry}:ours", [f"{registry}:theirs"])
    assert choice.name == "some-model-8b-lora-sft"


def test_no_key_is_dropped_in_silence(tmp_path: Path, registry: Path) -> None:
    got = imported(tmp_path, LORA)
    said = {word.split(" ")[0] for line in got.left for word in line.partition(", because ")[0].split(", ")}
    given = {key for key, value in yaml.safe_load(LORA).items() if value is not None}
    assert said | set(got.kept) == given
    assert not said & set(got.kept)
    assert all(", because " in line for line in got.left)


def test_what_is_left_out_is_named_with_its_value_and_reason(tmp_path: Path, registry: Path) -> None:
    left = "\n".join(imported(tmp_path, LORA).left)
    assert "template some-template, because the model's own chat template" in left
    assert "trust_remote_code true, because code that comes with a model runs only with --trust-remote-code" in left
    assert "max_samples 1000, because all rows" in left
    assert "a_key_of_tomorrow 7, because ftui does not know this key" in left
    (workings,) = [line for line in left.splitlines() if "logging_steps 10" in line]
    assert "ddp_timeout 180000000" in workings


def test_a_registry_is_found_where_the_examples_lie(tmp_path: Path, registry: Path) -> None:
    """LLaMA-Factory's examples lie two folders below the one that it is started from."""
    got = imported(tmp_path, LORA, "examples/train_lora/run.yaml")
    assert got.choice.data == f"{registry}:ours"


def test_without_a_registry_the_person_is_asked_for_rows(tmp_path: Path) -> None:
    got = imported(tmp_path, LORA)
    assert got.choice.data is None
    assert any(line.startswith("dataset ours, theirs, because there is no data/dataset_info.json") for line in got.left)


def test_data_sets_on_the_hub(tmp_path: Path) -> None:
    got = of(tmp_path, dataset=["owner/one", "owner/two"], dataset_dir="ONLINE")
    assert (got.choice.data, got.choice.more) == ("hub:owner/one", ["hub:owner/two"])


@pytest.mark.parametrize(
    ("keys", "edits"),
    [
        ({"finetuning_type": "lora", "quantization_bit": 4}, {"method": "qlora", "bits": 4}),
        ({"quantization_bit": 8, "double_quantization": False}, {"bits": 8, "double_quantization": False}),
        ({"finetuning_type": "full"}, {"method": "full"}),
        ({"finetuning_type": "full", "use_galore": True, "galore_rank": 128}, {"method": "galore", "rank": 128}),
        ({"use_rslora": True, "use_dora": True}, {"rslora": True, "dora": True}),
        ({"pissa_init": True, "loraplus_lr_ratio": 16.0}, {"init": "pissa", "lora_plus": 16.0}),
        ({"pissa_init": False, "neftune_noise_alpha": 5}, {"init": "default", "neftune": 5.0}),
        ({"finetuning_type": "full", "use_galore": False}, {"method": "full"}),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 3}, {"method": "freeze", "trained_layers": 3}),
        ({"stage": "dpo", "pref_beta": 0.2, "pref_loss": "sigmoid"}, {"beta": 0.2}),
        ({"rope_scaling": "yarn"}, {"rope": "yarn"}),
        ({"rope_scaling": "llama3"}, {"rope": "llama3"}),
        ({"add_tokens": "<a>, <b>", "resize_vocab": True}, {"added_tokens": ("<a>", "<b>")}),
        ({"flash_attn": "fa2"}, {"attention": "flash_attention_2"}),
        ({"flash_attn": "disabled"}, {"attention": "eager"}),
        ({"lora_target": "all"}, {"targets": "all-linear"}),
        ({"lora_target": ["q_proj", "gate_proj"]}, {"targets": "all-linear"}),
        ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
        ({"lr_scheduler_type": "constant_with_warmup"}, {"schedule": "constant"}),
        ({"warmup_steps": 0}, {"warmup": 0.0}),
        ({"optim": "paged_adamw_8bit"}, {"optimizer": "paged_adamw_8bit"}),
        ({"fp16": True}, {"precision": "fp16"}),
        ({"early_stopping_steps": 3}, {"stop_on_plateau": True}),
        ({"seed": 7}, {"seed": 7}),
    ],
)
def test_a_key_and_the_setting_that_it_is(tmp_path: Path, keys: dict[str, Any], edits: dict[str, Any]) -> None:
    got = of(tmp_path, **keys)
    assert edits.items() <= got.choice.edits.items()
    assert keys.keys() <= got.kept.keys()


@pytest.mark.parametrize(("word", "stage"), [("rm", "reward"), ("ppo", "ppo"), ("sft", None), ("dpo", None)])
def test_a_stage_that_the_rows_do_not_tell(tmp_path: Path, word: str, stage: str | None) -> None:
    got = of(tmp_path, stage=word)
    assert got.choice.stage == stage and "stage" in got.kept


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("quantization_bit", 3, "4 or 8 bit"),
        ("finetuning_type", "oft", "methods that are known here"),
        ("stage", "orpo", "no such stage"),
        ("galore_scale", 2.0, "counts 0.25"),
        ("galore_layerwise", True, "until the step"),
        ("galore_rank", 16, "with full tuning and use_galore"),
        ("reward_model", "saves/rm", "--reward RUN"),
        ("val_size", 200, "a share of the rows"),
        ("warmup_steps", 20, "a share of the steps"),
        ("rope_scaling", "longrope", "longrope"),
        ("optim", "adafactor", "adafactor"),
        ("learning_rate", "fast", "learning_rate cannot be"),
        ("max_grad_norm", 0, "max_grad_norm cannot be"),
        ("freeze_trainable_layers", -2, "the last layers"),
        ("neat_packing", False, "no row of a pack sees another"),
        ("train_on_prompt", True, "only answers are trained"),
        ("use_badam", True, "no such setting"),
        ("deepspeed", "ds_z3.json", "on one GPU"),
        ("pref_loss", "simpo", "sigmoid"),
        ("adapter_name_or_path", "a,b", "one adapter"),
        ("lora_rank", {"a": 1}, "rank cannot be"),
    ],
)
def test_what_cannot_be_taken_says_why(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    got = of(tmp_path, **{key: value})
    (line,) = [line for line in got.left if line.startswith(f"{key} ")]
    assert reason in line
    assert key not in got.kept


def test_switches_that_are_off_say_what_holds_anyway(tmp_path: Path) -> None:
    got = of(tmp_path, packing=False, use_badam=False, train_on_prompt=False, bf16=False, neftune_noise_alpha=None)
    assert got.left == []
    assert got.kept["packing"] == "packing no" and got.kept["use_badam"] == "as it is here"
    assert "precision" not in got.choice.edits


def test_a_model_and_an_adapter_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    got = of(tmp_path, model_name_or_path="models/base", adapter_name_or_path="models/base", default_system="Be brief.")
    assert got.choice.model == got.choice.adapter == str(tmp_path / "models" / "base")
    assert got.choice.system == "Be brief."


def test_a_recipe_of_ours_is_not_taken_for_one() -> None:
    assert not llamafactory.recognises({"name": "x", "stage": "sft", "model": {}, "data": {}, "settings": {}})
    assert not llamafactory.recognises(["model_name_or_path"])
    assert llamafactory.recognises({"stage": "sft", "finetuning_type": "lora"})


@pytest.mark.parametrize("text", ["a: [", "- 1", "name: x", ""])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FtuiError) as caught:
        imported(tmp_path, text)
    assert caught.value.code == Exit.RECIPE_INVALID
    assert caught.value.where.endswith("run.yaml")
