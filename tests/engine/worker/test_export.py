"""Exports of every kind, in this process, of a tiny model with an adapter that changes what it answers."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.errors import Exit, FtuiError
from engine.recipe import Check, Checks, Data, Model, Recipe, Stage
from engine.runs import directory
from engine.runs.directory import RunDir
from engine.runs.events import Answer, Evaluation, Exported, Failure, Note, Progress, Start
from engine.runs.job import Job
from engine.runs.journal import Reader, Writer
from engine.worker import adapters, build, export, jobs
from engine.worker.session import Session
from tests.engine.settings import settings


@pytest.fixture
def make(tiny_model: Path) -> Callable[..., RunDir]:
    """A run as training leaves it, with an adapter that is not nothing."""

    def run(
        name: str = "tiny", model: Path = tiny_model, system: str | None = None, stage: Stage = "sft", **changes: Any
    ) -> RunDir:
        recipe = Recipe(
            name=name,
            preset="identity",
            stage=stage,
            model=Model(source=str(model)),
            data=Data(source="/home/secret-place/rows.jsonl", values={"name": "Congyu"}, system=system),
            settings=settings(**changes),
            checks=Checks(identity=[Check(ask="Who are you?", expect=["Congyu"])]),
        )
        made = directory.create(recipe, {})
        torch.manual_seed(3)
        loaded = build.base_model(model, recipe.model, recipe.settings, quantised=False, judge=stage == "reward")
        if recipe.settings.adapts:
            loaded = adapters.new(loaded, recipe.settings)
            for parameter_name, parameter in loaded.named_parameters():
                if "lora_B" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.05)
        target = made.adapter if recipe.settings.adapts else made.model
        loaded.save_pretrained(target)
        build.tokenizer(model).save_pretrained(target)
        return made

    return run


def exported(run: RunDir, to: Path, **options: Any) -> Exported:
    export.run(Session(run), {"to": str(to), **options})
    found = [event for event in Reader(run.journal_path).poll() if isinstance(event, Exported)]
    return found[-1]


def refused(run: RunDir, to: Path, **options: Any) -> FtuiError:
    with pytest.raises(FtuiError) as caught:
        export.run(Session(run), {"to": str(to), **options})
    assert not to.exists() or not any(to.iterdir())
    assert not list(to.parent.glob(".*.stage"))
    return caught.value


def test_gguf_in_both_formats_is_read_back_and_answers_alike(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make(system="Be brief.")
    small = exported(run, tmp_path / "q8", kind="gguf", format="q8_0")
    half = exported(run, tmp_path / "f16", kind="gguf")
    assert (half.kind, half.form) == ("gguf", "f16") and half.difference < 0.02
    assert (small.form, small.asked) == ("q8_0", 4) and small.difference > half.difference
    assert half.alike == half.asked == 4 and small.alike == 4
    assert half.bytes > small.bytes > 100_000
    # The file says what llama.cpp needs, as gguf's own reader sees it.
    import gguf

    read = gguf.GGUFReader(tmp_path / "f16" / "tiny-f16.gguf")
    told = {name: field.contents() for name, field in read.fields.items()}
    assert told["general.architecture"] == "llama" and told["tokenizer.ggml.model"] == "gpt2"
    assert told["tokenizer.ggml.pre"] == "gpt-2" and told["tokenizer.ggml.eos_token_id"] == 2
    # BOS is also how every turn of ChatML begins: were it put first as well, it would stand there twice.
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>" in told["tokenizer.chat_template"]
    assert {tensor.tensor_type.name for tensor in read.tensors if len(tensor.shape) == 2} == {"F16"}
    assert "output.weight" not in {tensor.name for tensor in read.tensors}  # tied
    modelfile = (tmp_path / "q8" / "Modelfile").read_text()
    assert modelfile.startswith('FROM ./tiny-q8_0.gguf\nTEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n')
    assert 'SYSTEM """Be brief."""\nPARAMETER stop "<|im_end|>"\n' in modelfile


def test_positions_in_the_way_of_llama_3_1_go_with_the_export(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make("far", rope="llama3", max_length=2048)
    assert exported(run, tmp_path / "merged", kind="merged").difference < 1e-3
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["max_position_embeddings"] == 2048
    assert config["rope_parameters"] == {
        **{"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 512, "rope_theta": 10000.0},
    }
    assert exported(run, tmp_path / "gguf", kind="gguf").alike == 4
    import gguf

    read = gguf.GGUFReader(tmp_path / "gguf" / "far-f16.gguf")
    (factors,) = [tensor.data.tolist() for tensor in read.tensors if tensor.name == "rope_freqs.weight"]
    # Eight frequencies: a wave of the first is far shorter than 512 / 4 tokens, of the last far longer than 512.
    assert factors[0] == 1 and factors[-1] == pytest.approx(4) and factors == sorted(factors)
    assert read.fields["llama.context_length"].contents() == 2048


def test_merged_in_shards_and_in_16_bit(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make()
    (tmp_path / "whole").mkdir()  # an empty folder will do
    whole = exported(run, tmp_path / "whole", kind="merged", shard_size="0.2MB")
    assert whole.form == "fp32" and whole.difference < 1e-3
    shards = list((tmp_path / "whole").glob("model-*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "whole" / "model.safetensors.index.json").exists()
    half = exported(run, tmp_path / "half", kind="merged", dtype="bf16")
    assert half.form == "bf16" and 0 < half.difference < 0.75
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert half.bytes < 0.6 * whole.bytes


def test_a_whole_model_and_a_packed_base(make: Callable[..., RunDir], tmp_path: Path) -> None:
    full = make("full", method="full")
    assert exported(full, tmp_path / "full", kind="gguf").alike == 4
    assert "leaves no adapter" in refused(full, tmp_path / "none", kind="adapter").cause
    packed = make("packed", method="qlora")
    assert exported(packed, tmp_path / "packed", kind="merged").difference < 1e-3
    notes = [event.text for event in Reader(packed.journal_path).poll() if isinstance(event, Note)]
    assert any("unquantised base" in note for note in notes)


def test_a_reward_model_keeps_its_score(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make("judge", method="full", stage="reward")
    assert exported(run, tmp_path / "m", kind="merged").difference == 0.0
    assert "SequenceClassification" in (tmp_path / "m" / "config.json").read_text()
    assert "scores, not text" in refused(run, tmp_path / "g", kind="gguf").cause


def test_a_worker_exports_a_reward_model_and_is_no_chat_of_one(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make("judge", method="full", stage="reward")
    to = tmp_path / "merged"
    assert jobs.run(Job("export", str(run.path), {"kind": "merged", "to": str(to)}), 0.0, 0.0) == 0
    assert (to / "model.safetensors").exists()
    assert jobs.run(Job("serve", str(run.path)), 0.0, 0.0) == 1
    failures = [event for event in Reader(run.journal_path).poll() if isinstance(event, Failure)]
    assert [failure.cause for failure in failures] == ["a reward model gives scores, not answers"]


def test_an_adapter_for_plain_peft_with_a_card_that_states_only_what_is_known(
    make: Callable[..., RunDir], tmp_path: Path, tiny_model: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    run = make()
    journal = Writer(run.journal_path)
    journal.write(
        Start(
            attempt=1,
            from_step=0,
            total_steps=8,
            epochs=2.0,
            rows=12,
            eval_rows=3,
            parameters=1000,
            trained_parameters=50,
            device="a card",
            versions={"ftui": "9.9"},
        )
    )
    answer = Answer(
        ask="Who | are\nyou?", expect=["C"], before="<b>me</b>", after="I am *C*", before_right=False, after_right=True
    )
    journal.write(Evaluation(identity=[answer]))
    event = exported(run, tmp_path / "a", kind="adapter")
    assert event.difference == 0.0
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "a").peft_config
    card = (tmp_path / "a" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["ftui", "sft", "lora"]}
    assert "12 rows trained on; 3 held out" in card and "`rows.jsonl`" in card
    assert "| identity checks right, before and after | 0 of 1 → 1 of 1 |" in card
    assert r"| Who \| are you? | ✗ \<b\>me\</b\> | ✓ I am \*C\* |" in card
    assert "50 of 1,000 (5.00%)" in card and "ftui 9.9" in card
    for place in ("secret-place", str(tiny_model.parent), str(tmp_path)):
        assert place not in card


def test_what_cannot_be_exported_is_refused_before_anything_loads(
    make: Callable[..., RunDir], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()
    monkeypatch.setattr(export, "_reference", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(FtuiError, match="is there and not empty"):
        export.run(Session(run), {"kind": "merged", "to": str(tmp_path / "taken")})
    with pytest.raises(FtuiError, match="nothing can be written to /proc"):
        export.run(Session(run), {"kind": "merged", "to": "/proc/x"})
    assert refused(run, tmp_path / "x", kind="merged", shard_size="huge").code == Exit.USAGE
    assert refused(run, tmp_path / "x", kind="gguf", format="q3").code == Exit.USAGE
    assert refused(run, tmp_path / "x", kind="merged", push="../up").code == Exit.USAGE
    recipe = run.recipe_path.read_text()
    run.recipe_path.write_text(recipe.replace("method: lora", "method: prefix"))
    assert "virtual tokens, which cannot be merged" in refused(run, tmp_path / "x", kind="merged").cause
    run.recipe_path.write_text(recipe)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 100))
    error = refused(run, tmp_path / "x", kind="gguf")
    assert error.code == Exit.DISK_FULL and "needs 0.0 GB" in error.cause


def test_an_export_that_does_not_answer_like_the_run_does_not_count(
    make: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.worker.exports import gguf_file

    run = make()
    right = gguf_file._values

    def wrong(name: str, tensor: torch.Tensor, *rest: Any) -> Any:  # some matrices are not what they were
        return right(name, tensor * 50 if "ffn_down" in name else tensor, *rest)

    monkeypatch.setattr(gguf_file, "_values", wrong)
    for form, words in (("f16", "logits differ"), ("q8_0", "distribution is off")):
        error = refused(run, tmp_path / form, kind="gguf", format=form)
        assert error.code == Exit.EXPORT_FAILED and words in error.cause


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_a_stop_leaves_nothing_half(
    make: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = make()
    written = export.gguf_file.write

    def interrupted(*arguments: Any) -> None:
        if how == "stop":
            run.stop_path.touch()
        else:
            signal.raise_signal(signal.SIGTERM)
        written(*arguments)

    monkeypatch.setattr(export.gguf_file, "write", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    error = refused(run, tmp_path / "x", kind="gguf")
    assert error.code == Exit.INTERRUPTED and "stopped" in error.cause
    assert signal.getsignal(signal.SIGTERM) == before and not run.stop_path.exists()
    stages = [event.what for event in Reader(run.journal_path).poll() if isinstance(event, Progress)]
    assert stages == ["export: load", "export: write"]


def test_no_file_of_an_export_but_the_adapters_pointer_names_a_folder_of_this_machine(
    make: Callable[..., RunDir], tmp_path: Path, tiny_model: Path
) -> None:
    run = make()
    for kind in ("merged", "gguf"):
        exported(run, tmp_path / kind, kind=kind)
        for path in (tmp_path / kind).iterdir():
            assert not re.search(re.escape(str(tiny_model.parent)).encode(), path.read_bytes()), path
