"""Code that comes with a model runs only where the person allowed it; what would bring code in unseen is refused.

What the keys do was read in transformers 5.23 (auto_factory.py, dynamic_module_utils.py, modeling_utils.py) and peft 0.21
(config.py, tuners/lora/tp_layer.py).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Exit, FtuiError
from engine.models.files import json_object

_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")
_CLASS = re.compile(r"\w{1,100}", re.ASCII)
_TYPE = re.compile(r"[\w.-]{1,100}", re.ASCII)
_REFERENCE = re.compile(r"\w{1,100}\.\w{1,100}", re.ASCII)  # modeling_x.XForCausalLM, in the model's own folder
_SETTLED = "take another model, or the same one from its own author"


def check(folder: Path, allowed: bool = False) -> None:
    """Look through the configs of the model in `folder` before any library does.

    allowed  the person said that this model's code may run
    Raises FtuiError(MODEL_CODE) where the model cannot do without code of its own and that is not allowed, naming its files;
    FtuiError(MODEL_UNSUPPORTED) for what is refused in any case.
    """
    if (folder / "config.json").is_file() and (folder / "adapter_config.json").exists():
        raise _refused("an adapter lies beside the model, and would be put on it without a word", folder)
    configs = [found for name in _CONFIGS if (found := json_object(folder / name)) is not None]
    for config in configs:
        _check_names(config, folder)
    files = code(folder)
    if not files:
        return
    if allowed:
        for file in files:
            if not (folder / file).is_file():
                raise _refused(f"its code, {file}, does not lie in its folder, so that it can change unseen", folder)
    elif not _known(configs[0] if configs else {}):
        raise FtuiError(
            Exit.MODEL_CODE,
            f"this model wants to run code of its own: {', '.join(files[:3])}",
            str(folder),
            "read that code first; then allow it with --trust-remote-code",
        )


def code(folder: Path) -> list[str]:
    """Names of the files of code that the configs in `folder` refer to, sorted."""
    found: set[str] = set()
    for name in _CONFIGS:
        config = json_object(folder / name) or {}
        found |= {_file(reference) for key in ("auto_map", "custom_pipelines") for reference in _words(config.get(key))}
    return sorted(found)


ADAPTERS = (
    "LORA",
    "IA3",
    "PROMPT_TUNING",
    "PREFIX_TUNING",
    "BOTTLENECK",
)  # peft's names for what an adapter to start from can be


def check_adapter(folder: Path) -> None:
    """The same for an adapter to start from: of a kind known here, in safetensors. Raises FtuiError(RECIPE_INVALID)."""
    config = json_object(folder / "adapter_config.json")
    if config is None:
        raise FtuiError(
            Exit.RECIPE_INVALID,
            "this folder holds no adapter: adapter_config.json is missing",
            str(folder),
            "give the adapter of a run, or one saved by peft",
        )
    reason = ""
    if config.get("peft_type") not in ADAPTERS:
        reason = f"it is of kind {config.get('peft_type')}, which ftui does not train"
    elif config.get("peft_type") == "PROMPT_TUNING" and config.get("prompt_tuning_init") == "TEXT":
        reason = "it names a tokenizer to load"
    elif config.get("prefix_projection"):
        reason = "its prefix comes out of a network, which is not kept with it"
    elif config.get("auto_mapping") or config.get("auto_map"):
        reason = "it names classes to import"
    elif config.get("megatron_config") or config.get("megatron_core") not in (None, "megatron.core"):
        reason = "it names a module to import"
    elif not (folder / "adapter_model.safetensors").is_file():
        pickled = (folder / "adapter_model.bin").exists()
        reason = (
            "its weights are pickled, and opening a pickle can run any code it holds"
            if pickled
            else "it has no weights"
        )
    if reason:
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"this adapter cannot be trained on: {reason}",
            str(folder),
            "start from the adapter of a run, or from one saved by peft as safetensors",
        )


def _check_names(config: Mapping[str, Any], folder: Path) -> None:
    """Names that libraries look up or fetch must be names."""
    architectures = config.get("architectures") or []
    classes = [*(architectures if isinstance(architectures, list) else [architectures])]
    classes += [config[key] for key in ("tokenizer_class", "processor_class") if config.get(key) is not None]
    for word in classes:
        if not isinstance(word, str) or not _CLASS.fullmatch(word):
            raise _refused(f"its config names a class by more than a name: {str(word)[:80]!r}", folder)
    kind = config.get("model_type")
    if kind is not None and (not isinstance(kind, str) or not _TYPE.fullmatch(kind)):
        raise _refused(f"its config has a strange model_type: {str(kind)[:80]!r}", folder)
    for key, value in config.items():
        # "owner/name" there is a repository, whose compiled code transformers fetches and runs.
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise _refused(f"its config fetches code from {value[:80]!r}", folder)
    if config.get("transformers_weights"):
        raise _refused("its config names a weights file of its own choice", folder)


def _words(value: object) -> Iterator[str]:
    """Every string in a value of JSON, however it is nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _words(one)
    elif isinstance(value, list):
        for one in value:
            yield from _words(one)


def _file(reference: str) -> str:
    """The file that "modeling_x.Class" means; what is no such reference stands for itself."""
    return f"{reference.partition('.')[0]}.py" if _REFERENCE.fullmatch(reference) else reference


def _known(config: Mapping[str, Any]) -> bool:
    """Whether transformers has this architecture itself and therefore needs no code of the model's. Imports nothing."""
    spec = importlib.util.find_spec("transformers")
    kind = config.get("model_type")
    if spec is None or spec.origin is None or not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        return False
    return (Path(spec.origin).parent / "models" / kind.replace("-", "_") / "__init__.py").is_file()


def _refused(reason: str, folder: Path) -> FtuiError:
    return FtuiError(Exit.MODEL_UNSUPPORTED, f"this model is refused: {reason}", str(folder), _SETTLED)
