"""Models, adapters and tokenizers of somebody else run no code of theirs unless a person allows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import recipe
from engine.cli import main
from engine.errors import Exit, FtuiError
from engine.models import trust
from tests.engine.runs.conftest import loose_umask, make_recipe  # noqa: F401

ROOT = Path(__file__).parents[2]
ANOTHER = 65534  # nobody
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def folder(where: Path, **files: Any) -> Path:
    where.mkdir(exist_ok=True)
    for name, content in {"config": CONFIG, **files}.items():
        (where / f"{name}.json").write_text(json.dumps(content))
    return where


OWN = {"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config": {**CONFIG, "_attn_implementation": "somebody/kernels"}}, "fetches code"),
        ({"config": {**CONFIG, "experts_implementation": "somebody/kernels:x"}}, "fetches code"),
        ({"config": {**CONFIG, "architectures": ["../../x.Y"]}}, "more than a name"),
        ({"config": {**CONFIG, "model_type": "../../x"}}, "strange model_type"),
        ({"config": {**CONFIG, "transformers_weights": "x.bin"}}, "weights file of its own"),
        ({"tokenizer_config": {"tokenizer_class": "os.path.Tokenizer"}}, "more than a name"),
        ({"tokenizer_config": {"tokenizer_class": ["a", "b"]}}, "more than a name"),
        ({"adapter_config": {"base_model_name_or_path": "somebody/else"}}, "beside the model"),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_config_that_brings_code_in_unseen_is_refused(
    tmp_path: Path, files: dict[str, Any], reason: str, allowed: bool
) -> None:
    with pytest.raises(FtuiError, match=reason) as caught:
        trust.check(folder(tmp_path, **files), allowed)
    assert caught.value.code == Exit.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    "files",
    [
        {"config": OWN},
        {"config": {**CONFIG, "model_type": "own", "custom_pipelines": {"x": {"impl": "pipe.Own"}}}},
        {"config": {"model_type": "own"}, "tokenizer_config": {"auto_map": {"AutoTokenizer": ["tok.Own", None]}}},
    ],
)
def test_code_of_a_models_own_needs_a_word(tmp_path: Path, files: dict[str, Any]) -> None:
    where = folder(tmp_path / "model", **files)
    with pytest.raises(FtuiError, match="code of its own") as caught:
        trust.check(where)
    assert caught.value.code == Exit.MODEL_CODE and "--trust-remote-code" in caught.value.next_step
    (file,) = trust.code(where)
    assert file in caught.value.cause
    # Allowed, but its code lies elsewhere, where it can change after it was read.
    with pytest.raises(FtuiError, match="does not lie in its folder"):
        trust.check(where, True)
    (where / file).write_text("")
    trust.check(where, True)


def test_code_that_is_not_needed_is_not_asked_for(tmp_path: Path) -> None:
    """Many models of known kinds still name the code of the time before transformers knew them; it is never run."""
    trust.check(folder(tmp_path, config={**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling_old.Old"}}))


def test_a_recipe_of_somebody_else_allows_nothing(tmp_path: Path, tiny_model: Path) -> None:
    made = make_recipe()
    made.data.source = str(tmp_path / "rows.jsonl")
    Path(made.data.source).write_text('{"prompt": "Who?", "completion": "I."}\n')
    made.model = recipe.Model(source=str(folder(tmp_path / "model", config=OWN)), trust_remote_code=True)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(made))
    assert main(["plan", str(file)]) == Exit.MODEL_CODE
    assert main(["plan", "--model", made.model.source, "--data", made.data.source]) == Exit.MODEL_CODE


LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "megatron_core": "megatron.core"}


@pytest.mark.parametrize(
    ("config", "weights", "reason"),
    [
        (
            {**LORA, "auto_mapping": {"parent_library": "os", "base_model_class": "x"}},
            "safetensors",
            "classes to import",
        ),
        ({**LORA, "megatron_core": "os"}, "safetensors", "module to import"),
        ({**LORA, "megatron_config": {"x": 1}}, "safetensors", "module to import"),
        ({**LORA, "peft_type": "P_TUNING"}, "safetensors", "kind P_TUNING"),
        ({"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT"}, "safetensors", "a tokenizer to load"),
        ({"peft_type": "PREFIX_TUNING", "prefix_projection": True}, "safetensors", "out of a network"),
        (LORA, "bin", "pickled"),
        (LORA, "", "no weights"),
    ],
)
def test_an_adapter_that_brings_code_is_refused(
    tmp_path: Path, config: dict[str, Any], weights: str, reason: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    if weights:
        (tmp_path / f"adapter_model.{weights}").touch()
    with pytest.raises(FtuiError, match=reason):
        trust.check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    (tmp_path / "adapter_model.safetensors").touch()
    trust.check_adapter(tmp_path)


LIBRARIES = """
import json, os, pickle, sys, warnings
from pathlib import Path
fetched = Path(sys.argv[2]) / "site" / "kernels.py"
fetched.parent.mkdir()
fetched.write_text("raise SystemExit('the hub was asked for compiled code')")
sys.path.insert(0, str(fetched.parent))
import engine.worker
import torch
from engine.errors import FtuiError
from engine.recipe import Model
from engine.worker import build
from tests.engine.settings import settings

tiny, place = Path(sys.argv[1]), Path(sys.argv[2])
said = {}

class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(place / "exploded"),))

# As a checkpoint's optimizer.pt would hold it, and a library that asks torch for everything.
torch.save({"state": Bomb()}, place / "optimizer.pt")
with open(place / "legacy.bin", "wb") as file:
    pickle.dump(Bomb(), file)
for name in ("optimizer.pt", "legacy.bin"):
    try:
        torch.load(place / name, weights_only=False)
        said[name] = "loaded"
    except pickle.UnpicklingError as error:
        said[name] = "refused"

# A model with code of its own.
own = place / "own"
own.mkdir()
for file in tiny.iterdir():
    (own / file.name).write_bytes(file.read_bytes())
config = json.loads((own / "config.json").read_text())
config |= {"model_type": "own", "architectures": ["Own"]}
config["auto_map"] = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
(own / "config.json").write_text(json.dumps(config))
(own / "modeling_own.py").write_text(f'''
import os
from transformers import LlamaConfig, LlamaForCausalLM
os.makedirs({str(place / "ran")!r}, exist_ok=True)
class OwnConfig(LlamaConfig):
    model_type = "own"
class Own(LlamaForCausalLM):
    config_class = OwnConfig
''')
chosen = settings(max_length=64)
try:
    build.base_model(own, Model(source=str(own)), chosen)
except FtuiError as error:
    said["own code"] = error.code.name
said["ran unasked"] = (place / "ran").exists()
said["allowed"] = type(build.base_model(own, Model(source=str(own), trust_remote_code=True), chosen)).__name__
said["ran allowed"] = (place / "ran").exists()
# A tokenizer with code of its own.
(own / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["tok.Own", None]}}))
(own / "tok.py").write_text("raise SystemExit('it ran')")
try:
    build.tokenizer(own)
    said["tokenizer"] = "loaded without its code"
except FtuiError as error:
    said["tokenizer"] = error.code.name
# Pickled weights only.
(own / "model.safetensors").rename(own / "pytorch_model.bin")
try:
    build.base_model(own, Model(source=str(own), trust_remote_code=True), chosen)
except OSError as error:
    said["pickled"] = "refused"
said["exploded"] = (place / "exploded").exists()
print(json.dumps(said))
"""


def test_what_the_libraries_refuse_under_our_worker(tiny_model: Path, tmp_path: Path) -> None:
    """torch and transformers themselves, in a process of their own: no pickle, no code that nobody allowed."""
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES, str(tiny_model), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("tokenizer") in ("MODEL_CODE", "loaded without its code")
    assert said == {
        "optimizer.pt": "refused",
        "legacy.bin": "refused",
        "own code": "MODEL_CODE",
        "ran unasked": False,
        "allowed": "Own",
        "ran allowed": True,
        "pickled": "refused",
        "exploded": False,
    }
