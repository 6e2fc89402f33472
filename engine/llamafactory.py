"""A LLaMA-Factory YAML, read as what a person picked: what it sets becomes edits, and what has no counterpart is named.

The keys are those of its model, data, fine-tuning and training arguments (release 0.9). What the file does not say is
left to the plan's advice, not to LLaMA-Factory's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct, field

from engine import recipe, recipe_words
from engine.choice import Choice
from engine.errors import Exit, FtuiError
from engine.text import number, shorten

# Keys that are a setting under another name.
_SETTINGS = {
    "cutoff_len": "max_length",
    "learning_rate": "learning_rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "micro_batch",
    "gradient_accumulation_steps": "accumulation",
    "warmup_ratio": "warmup",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "use_rslora": "rslora",
    "use_dora": "dora",
    "pissa_init": "init",
    "loraplus_lr_ratio": "lora_plus",
    "neftune_noise_alpha": "neftune",
    "val_size": "eval_fraction",
    "freeze_trainable_layers": "trained_layers",
    "double_quantization": "double_quantization",
    "gradient_checkpointing": "gradient_checkpointing",
    "lr_scheduler_type": "schedule",
    "optim": "optimizer",
    "rope_scaling": "rope",
    "add_tokens": "added_tokens",
    "pref_beta": "beta",
    "save_steps": "save_every",
    "seed": "seed",
    "packing": "packing",
}
# Values that have another name here.
_VALUES: dict[tuple[str, str], str] = {
    ("lr_scheduler_type", "constant_with_warmup"): "constant",
    ("pissa_init", "True"): "pissa",
    ("pissa_init", "False"): "default",
    ("flash_attn", "disabled"): "eager",
    ("flash_attn", "sdpa"): "sdpa",
    ("flash_attn", "fa2"): "flash_attention_2",
}
_ATTENTION = "q_proj k_proj v_proj o_proj qkv_proj query key value query_key_value dense out_proj c_attn W_pack Wqkv"
_STAGES = ("sft", "pt", "dpo", "kto")  # as the columns of the rows tell
_CHOSEN: dict[str, recipe.Stage] = {"rm": "reward", "ppo": "ppo"}  # what a person chooses
# Keys whose meaning holds here anyway when they have one of these values; else why they are left out.
_SAME: dict[str, tuple[tuple[Any, ...], str]] = {
    "train_on_prompt": ((False,), "only answers are trained"),
    "resize_vocab": ((False, True), "rows for added_tokens are made where there are none"),
    "add_special_tokens": ((), "added tokens are ordinary ones, which stay in sight in answers: added_tokens"),
    "new_special_tokens": ((), "added tokens are ordinary ones, which stay in sight in answers: added_tokens"),
    "mask_history": ((False,), "every answer of a conversation is trained"),
    "neat_packing": ((True,), "no row of a pack sees another"),
    "mix_strategy": (("concat",), "weights mix sources: --data 'FILE*2'"),
    "interleave_probs": ((), "weights mix sources: --data 'FILE*2'"),
    "streaming": ((False,), "rows are read from the disk as they are needed"),
    "max_samples": ((), "all rows of a source are used; a weight below 1 takes a part: --data 'FILE*0.1'"),
    "eval_dataset": ((), "rows are held out from the training data (eval_fraction)"),
    "quantization_method": (("bnb", "bitsandbytes"), "a base is packed by bitsandbytes only"),
    "quantization_type": (("nf4",), "4 bit is nf4 here"),
    "trust_remote_code": ((False,), "code that comes with a model runs only with --trust-remote-code"),
    "pref_loss": (("sigmoid",), "DPO has the sigmoid loss only"),
    "pref_ftx": ((0,), "DPO has no part of the SFT loss"),
    "freeze_trainable_modules": (("all",), "whole layers are trained"),
    "freeze_extra_modules": ((), "whole layers are trained"),
    "additional_target": ((), "an adapter is for linear layers only"),
    "create_new_adapter": ((False,), "an adapter to start from is trained further"),
    "galore_rank": ((), "it counts with full tuning and use_galore"),
    "galore_scale": ((recipe.GALORE_SCALE,), f"a step of GaLore counts {recipe.GALORE_SCALE:g} of itself"),
    "galore_update_interval": ((200,), "GaLore's directions are renewed every 200 steps"),
    "galore_target": (("all",), "GaLore projects every matrix of a layer"),
    "galore_layerwise": ((False,), "gradients are kept until the step"),
    "reward_model": ((), "the judge is a run of ftui: --reward RUN"),
    "ref_model": ((), "the reference is the model itself, its adapter switched off"),
    "model_revision": (("main",), "a hub model is taken as it is on its main branch"),
    "do_train": ((True,), "a run trains"),
    "do_predict": ((False,), "checks and the probe are answered instead"),
    "predict_with_generate": ((False,), "checks and the probe are answered instead"),
    "use_cpu": ((False,), "the hardware decides"),
    "pure_bf16": ((False,), "trained weights are kept in fp32"),
    "resume_from_checkpoint": ((False,), "`ftui resume` goes on with a run of ftui"),
    "max_steps": ((-1,), "epochs decide how long a run is"),
    "deepspeed": ((), "one process trains, on one GPU"),
    "fsdp": (("",), "one process trains, on one GPU"),
}
# Switches and numbers that nothing here answers to: nothing is lost where they are off.
_SWITCHES = """
    use_unsloth use_unsloth_gc enable_liger_kernel use_galore use_apollo use_badam use_muon use_adam_mini use_llama_pro
    shift_attn upcast_layernorm train_from_scratch use_dft_loss
    group_by_length load_best_model_at_end mixture_of_depths
    label_smoothing_factor
"""
_WORKINGS = """
    overwrite_cache overwrite_output_dir preprocessing_num_workers preprocessing_batch_size dataloader_num_workers
    tokenized_path logging_steps logging_dir logging_strategy plot_loss report_to save_strategy save_total_limit
    save_only_model ddp_timeout cache_dir use_fast_tokenizer do_eval eval_strategy evaluation_strategy eval_steps
    per_device_eval_batch_size run_name include_num_input_tokens_seen include_effective_tokens_per_second
    compute_accuracy media_dir low_cpu_mem_usage print_param_status dataloader_pin_memory remove_unused_columns
    disable_tqdm ddp_find_unused_parameters hf_hub_token ms_hub_token use_swanlab buffer_size
    eval_on_each_dataset
"""


class Imported(Struct, kw_only=True):
    """What a LLaMA-Factory file comes to.

    choice  the model, the rows, and as edits the settings that it sets
    kept    its keys -> what became of each, in words: {"lora_rank": "rank 8"}
    left    what has no counterpart here and why: "template llama3, because …"
    """

    choice: Choice
    kept: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def recognises(raw: object) -> bool:
    """Whether a YAML document is a LLaMA-Factory configuration (and no recipe of ours)."""
    return isinstance(raw, dict) and ("model_name_or_path" in raw or {"stage", "finetuning_type"} <= raw.keys())


def read(path: Path) -> Imported:
    """Read a LLaMA-Factory YAML. `dataset` names are looked up in the dataset_info.json of `dataset_dir`.

    A folder is taken relative to the file, then to its parents, then to where the person is (LLaMA-Factory is started
    from its own folder, and its examples lie two folders deeper).
    Raises FtuiError(RECIPE_INVALID) for a file that is none, or a stage or method that cannot be trained.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FtuiError(Exit.RECIPE_INVALID, f"cannot read the file: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise FtuiError(Exit.RECIPE_INVALID, "the file is not UTF-8 text", str(path)) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise FtuiError(Exit.RECIPE_INVALID, recipe_words.no_yaml(error), str(path), "mend the YAML") from None
    if not recognises(raw):
        raise FtuiError(Exit.RECIPE_INVALID, "this is no LLaMA-Factory configuration", str(path))
    return _Reading(path, {str(key): value for key, value in raw.items() if value is not None}).imported()


class _Reading:
    """One pass over the keys; what is taken and what is left is written down as it goes."""

    def __init__(self, path: Path, raw: Mapping[str, Any]) -> None:
        self._path = path
        self._raw = raw
        self._edits: dict[str, Any] = {}
        self._kept: dict[str, str] = {}
        self._left: dict[str, list[str]] = {}  # reason -> keys with their values
        self._seen: set[str] = set()

    def imported(self) -> Imported:
        choice = Choice(edits=self._edits)
        self._method()
        self._precision()
        self._what(choice)
        self._rows(choice)
        for key, value in self._raw.items():
            if key not in self._seen:
                self._other(key, value)
        left = [f"{', '.join(keys)}, because {reason}" for reason, keys in self._left.items()]
        return Imported(choice=choice, kept=self._kept, left=left)

    def _set(self, key: str, name: str, value: Any) -> None:
        """Take `key` as the setting `name`; a value that it cannot have is left, with the reason."""
        try:
            self._edits[name] = recipe.setting(name, value)
        except FtuiError as error:
            self._leave(key, error.cause)
        else:
            self._keep(key, f"{name} {number(self._edits[name])}")

    def _keep(self, key: str, words: str) -> None:
        if key in self._raw:
            self._seen.add(key)
            self._kept[key] = words

    def _leave(self, key: str, reason: str) -> None:
        value = self._raw[key]
        shown = str(value).lower() if isinstance(value, bool) else shorten(" ".join(str(value).split()), 40)
        self._seen.add(key)
        self._left.setdefault(reason, []).append(f"{key} {shown}")

    def _method(self) -> None:
        kind, bits = self._raw.get("finetuning_type", "lora"), self._raw.get("quantization_bit")
        if kind == "lora" and bits in (4, 8):
            self._set("quantization_bit", "bits", bits)
            self._edits["method"] = "qlora"
            self._keep("finetuning_type", "method qlora")
            return
        method = "galore" if kind == "full" and self._raw.get("use_galore") is True else kind
        if method in ("lora", "freeze", "galore", "full"):
            self._edits["method"] = method
            for key in ("finetuning_type", *(("use_galore",) if method == "galore" else ())):
                self._keep(key, f"method {method}")
        else:
            self._leave("finetuning_type", "LLaMA-Factory's methods that are known here are lora, freeze and full")
        if method == "galore" and "galore_rank" in self._raw:
            self._set("galore_rank", "rank", self._raw["galore_rank"])
        if bits is not None:
            only = "only the base under an adapter is packed" if kind != "lora" else "a base is packed into 4 or 8 bit"
            self._leave("quantization_bit", only)

    def _precision(self) -> None:
        for key in ("bf16", "fp16"):
            if self._raw.get(key) is True:
                self._set(key, "precision", key)
            elif key in self._raw:
                self._keep(key, "the hardware decides")

    def _what(self, choice: Choice) -> None:
        """The model, the adapter to start from, the run's name, the stage."""
        raw = self._raw
        if "model_name_or_path" in raw:
            choice.model = self._place(str(raw["model_name_or_path"]))
            self._keep("model_name_or_path", f"model {choice.model}")
        if "adapter_name_or_path" in raw:
            adapters = _listed(raw["adapter_name_or_path"])
            if len(adapters) == 1:
                choice.adapter = self._place(adapters[0])
                self._keep("adapter_name_or_path", f"the adapter {choice.adapter} is trained further")
            else:
                self._leave("adapter_name_or_path", "one adapter can be trained further, not several")
        if "default_system" in raw:
            choice.system = str(raw["default_system"])
            self._keep("default_system", "the system prompt")
        if "output_dir" in raw:
            parts = [part for part in Path(str(raw["output_dir"])).parts if part.strip("./~")]
            choice.name = recipe.slug("-".join(parts[1:] or parts))
            self._keep("output_dir", f"the run's name, {choice.name}")
        if "stage" in raw:
            if raw["stage"] in _STAGES:
                self._keep("stage", "told by the columns of the rows")
            elif raw["stage"] in _CHOSEN:
                choice.stage = _CHOSEN[raw["stage"]]
                self._keep("stage", f"stage {choice.stage}")
            else:
                self._leave("stage", "there is no such stage here")
        if "template" in raw:
            self._leave("template", "the model's own chat template is used, in training and in chat")

    def _rows(self, choice: Choice) -> None:
        folder = str(self._raw.get("dataset_dir", "data"))
        if "dataset_dir" in self._raw:
            self._keep("dataset_dir", "where the data sets are looked up")
        if "dataset" not in self._raw:
            return
        names = _listed(self._raw["dataset"])
        if folder == "ONLINE":
            found = [f"hub:{name}" for name in names]
        else:
            registry = self._place(folder) + "/dataset_info.json"
            if not Path(registry).is_file():
                self._leave("dataset", f"there is no {folder}/dataset_info.json beside it; give --data")
                return
            found = [f"{registry}:{name}" for name in names]
        if found:
            choice.data, *choice.more = found
            self._keep("dataset", "data " + ", ".join(found))

    def _place(self, name: str) -> str:
        """A file or folder that the configuration names, where it is found; else the name (a hub id, say) as it is."""
        beside = self._path.absolute().parent
        for folder in (beside, *list(beside.parents)[:3], Path.cwd()):
            if (folder / name).exists():
                return str((folder / name).resolve())
        return name

    def _other(self, key: str, value: Any) -> None:
        """Every key that stands for itself."""
        if key in _SETTINGS:
            self._setting(key, value)
        elif key == "lora_target":
            self._targets(key, _listed(value))
        elif key == "flash_attn":
            if value == "auto":
                self._keep(key, "the plan decides")
            else:
                self._set(key, "attention", _VALUES.get((key, str(value)), value))
        elif key == "disable_gradient_checkpointing" and isinstance(value, bool):
            self._set(key, "gradient_checkpointing", not value)
        elif key == "early_stopping_steps":
            self._set(key, "stop_on_plateau", True)
        elif key == "warmup_steps":
            if isinstance(value, (int, float)) and 0 <= value < 1:
                self._set(key, "warmup", value)
            else:
                self._leave(key, "warm-up is a share of the steps: --edit warmup=0.05")
        elif key in _SAME:
            same, reason = _SAME[key]
            if value in same:
                self._keep(key, "as it is here")
            else:
                self._leave(key, reason)
        elif key in _SWITCHES.split():
            if value:
                self._leave(key, "ftui has no such setting")
            else:
                self._keep(key, "as it is here")
        elif key in _WORKINGS.split():
            self._leave(key, "it is how LLaMA-Factory works and not what is learned")
        else:
            self._leave(key, "ftui does not know this key")

    def _setting(self, key: str, value: Any) -> None:
        if key == "val_size" and isinstance(value, (int, float)) and value >= 1:
            self._leave(key, "a share of the rows is held out and not a number of them: --edit eval_fraction=0.1")
        elif key == "freeze_trainable_layers" and isinstance(value, int) and value < 1:
            self._leave(key, "freeze trains the last layers")
        else:
            self._set(key, _SETTINGS[key], _VALUES.get((key, str(value)), value))

    def _targets(self, key: str, names: list[str]) -> None:
        everything = names == ["all"] or any(name not in _ATTENTION.split() for name in names)
        self._set(key, "targets", "all-linear" if everything else "attention")
        if names != ["all"]:
            self._kept[key] += f", for {', '.join(names)}"


def _listed(value: Any) -> list[str]:
    """ "a, b" or ["a", "b"] as a list of names."""
    words = value if isinstance(value, list) else str(value).split(",")
    return [str(word).strip() for word in words if str(word).strip()]
