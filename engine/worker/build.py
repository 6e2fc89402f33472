"""Base model, adapter and tokenizer from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase

from engine.errors import Exit, FtuiError
from engine.recipe import Model, Recipe, Settings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What the attention projections are called in the families of models that people tune.
ATTENTION = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "dense",
    "out_proj",
    "qkv_proj",
    "c_attn",
    "query_key_value",
    "Wqkv",
)


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of `folder`; one without a padding token pads with its end token (padding has no loss)."""
    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def base_model(folder: Path, model: Model, settings: Settings, *, quantised: bool | None = None) -> Any:
    """The base model on the training device, in the precision its method wants.

    Full tuning keeps fp32 weights and computes in 16 bit by autocast (16-bit weights would lose small updates);
    LoRA holds the frozen base in the compute precision; QLoRA in nf4 with double quantisation (QLoRA paper, §3).
    quantised  overrides what the method says (an export merges into unquantised weights)
    """
    compute = DTYPES[settings.precision]
    four_bit = settings.method == "qlora" if quantised is None else quantised
    options: dict[str, Any] = {}
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if settings.method == "full" else compute,
            device_map={"": device()},
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,  # pickled weights can run code
            **options,
        )
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise FtuiError(
                Exit.MODEL_UNSUPPORTED,
                "this model wants to run code of its own",
                str(folder),
                "read that code first; then set model.trust_remote_code: true in the recipe",
            ) from None
        raise
    loaded.config.use_cache = True
    if four_bit:
        # On processors with AVX512-bf16, bitsandbytes 0.50 repacks a layer at its first forward in evaluation mode, and
        # training on repacked weights gets wrong gradients without a word: one sample before step 1 was enough.
        layers: Any = loaded.modules()
        for module in layers:
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return loaded


def with_adapter(model: Any, settings: Settings, start: Path | None = None) -> PeftModel:
    """`model` with a trainable LoRA adapter: a new one, or the one in folder `start`."""
    if start is not None:
        return PeftModel.from_pretrained(model, start, is_trainable=True)
    targets: str | list[str] = "all-linear"
    if settings.targets == "attention":
        targets = _attention_modules(model)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=targets,
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


def _attention_modules(model: Any) -> list[str]:
    leaves = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if "attn" in name or "attention" in name}
    found = [name for name in ATTENTION if name in leaves]
    if not found:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the attention matrices of this model have names that ftui does not know",
            next_step="use targets: all-linear",
        )
    return found


def for_training(recipe: Recipe, folder: Path, adapter: Path | None = None) -> Any:
    """The model as it is trained: base and adapter, or the whole model for full tuning.

    adapter  a folder with adapter weights to start from; overrides recipe.adapter
    """
    settings = recipe.settings
    start = adapter or (Path(recipe.adapter) if recipe.adapter else None)
    if settings.method == "full" and start is not None:
        raise FtuiError(Exit.RECIPE_INVALID, "full tuning cannot start from an adapter", next_step="merge it first")
    model = base_model(folder, recipe.model, settings)
    if settings.gradient_checkpointing:
        # The embedding is frozen, so its output must be told to carry gradients into the checkpointed layers.
        model.enable_input_require_grads()
    return model if settings.method == "full" else with_adapter(model, settings, start)


def for_chat(recipe: Recipe, folder: Path, result: Path) -> Any:
    """The finished run: base with its adapter, or the fully tuned model, ready to answer."""
    if recipe.settings.method == "full":
        return base_model(result, recipe.model, recipe.settings).eval()
    model = base_model(folder, recipe.model, recipe.settings)
    return PeftModel.from_pretrained(model, result).eval()


def sizes(model: Any) -> tuple[int, int]:
    """(all parameters, trained parameters), counted as if nothing were packed into 4 bits."""
    total = trained = 0
    for parameter in model.parameters():
        # bitsandbytes packs two 4-bit weights into a byte
        count = parameter.numel() * 2 if type(parameter).__name__ == "Params4bit" else parameter.numel()
        total += count
        if parameter.requires_grad:
            trained += count
    return total, trained
