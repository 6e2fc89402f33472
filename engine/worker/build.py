"""Base model, adapter and tokenizer from a recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from engine import hardware
from engine.errors import Exit, FtuiError
from engine.models import adapter as trained_adapter
from engine.models import added_tokens, shape, support
from engine.models import facts as model_facts
from engine.recipe import ALL, Model, Recipe, Settings
from engine.worker import adapters, added_rows, fused_lora
from engine.worker.galore import GaLore

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Frequencies whose waves fit into the old context this many times at most are slowed down whole, those that fit this many
# times at least not at all (the configuration of Llama 3.1).
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_KINDS = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def tokenizer(folder: Path, trust_remote_code: bool = False, added: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    """The tokenizer of `folder`, with the words that the run makes tokens of; one without a padding token pads with its
    end token (padding has no loss)."""
    with _code_refused(folder):
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    if added:
        added_tokens.add(loaded.backend_tokenizer, added)
    return loaded


def base_model(
    folder: Path, model: Model, settings: Settings, *, quantised: bool | None = None, judge: bool = False
) -> Any:
    """The base model on the training device, in the precision its method wants.

    Full tuning keeps fp32 weights and computes in 16 bit by autocast (16-bit weights would lose small updates);
    LoRA and freeze tuning hold what is frozen in the compute precision; QLoRA packs the layers' matrices: see `packing`.
    quantised  overrides what the method says (an export merges into unquantised weights)
    judge      with a head that gives one score for a text, instead of the one that says what comes next, or what is left out
    """
    packed = settings.method == "qlora" if quantised is None else quantised
    options: dict[str, Any] = {"quantization_config": packing(settings)} if packed else {}
    known = config(folder, model, settings)
    if judge:
        known.num_labels = 1
    with _code_refused(folder):
        loaded = kind(known, judge).from_pretrained(
            folder,
            config=known,
            dtype=torch.float32 if settings.method in ALL else DTYPES[settings.precision],
            device_map={"": device()},
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,  # pickled weights can run code
            attn_implementation=settings.attention,
            **options,
        )
    loaded.config.use_cache = True
    if settings.added_tokens:
        added_rows.grow(loaded, folder, settings.added_tokens)
    if packed:
        keep_unpacked(loaded)
        _let_go(loaded)
    return loaded


def kind(config: PretrainedConfig, judge: bool = False) -> Any:
    """The class of transformers that loads such a model with its head."""
    return AutoModelForSequenceClassification if judge else _KINDS[shape.of(config.to_dict())]


@contextlib.contextmanager
def _code_refused(folder: Path) -> Iterator[None]:
    """What transformers says where it needs code of the model's that nobody allowed, in our words."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise FtuiError(
            Exit.MODEL_CODE,
            "this model wants to run code of its own",
            str(folder),
            "read that code first; then begin a run with --trust-remote-code",
        ) from None


def config(folder: Path, model: Model, settings: Settings) -> PretrainedConfig:
    """The model's config, its rotary positions stretched to `max_length` where the settings say so.

    linear, YaRN and llama3 raise the context that the config names; dynamic stretching is computed from the old one,
    which therefore stays (`context` knows). A result of ours that is stretched already is left as it is.
    """
    with _code_refused(folder):
        found = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    limit = getattr(found, "max_position_embeddings", None)
    if settings.rope == "none" or limit is None or settings.max_length <= limit:
        return found
    parameters = dict(found.rope_parameters)
    if parameters.get("rope_type") == settings.rope:
        return found
    parameters |= {"rope_type": settings.rope, "factor": settings.max_length / limit}
    if settings.rope in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = limit
    if settings.rope == "llama3":
        parameters |= LLAMA3
    found.rope_parameters = parameters
    if settings.rope != "dynamic":
        found.max_position_embeddings = settings.max_length
    return found


def context(model: Any) -> int | None:
    """Tokens that `model` can look back on, None where its config does not say."""
    limit = getattr(model.config, "max_position_embeddings", None)
    rope = getattr(model.config, "rope_parameters", None) or {}
    return int(limit * rope["factor"]) if limit and rope.get("rope_type") == "dynamic" else limit


def packing(settings: Settings) -> BitsAndBytesConfig:
    """How bitsandbytes packs a base: nf4 (QLoRA paper, §3; its scales packed too, if set), or LLM.int8 in 8 bit."""
    if settings.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=settings.double_quantization,
        bnb_4bit_compute_dtype=DTYPES[settings.precision],
    )


def keep_unpacked(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit layers that are trained through.

    On processors with AVX512-bf16, bitsandbytes 0.50 repacks a layer at its first forward in evaluation mode, and
    training on repacked weights gets wrong gradients without a word: one sample before step 1 was enough.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _let_go(model: Any) -> None:
    """Copy what was not packed, so that the file of the unpacked weights is mapped no longer.

    On a processor, weights that need no conversion are views of their file: a single one keeps all of it in memory.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def layers(model: Any) -> torch.nn.ModuleList:
    """The decoder layers."""
    depth = model.config.num_hidden_layers
    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth]
    if not stacks:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED, "the layers of this model cannot be found", next_step="take method lora"
        )
    return stacks[0]


def optimizer(model: Any, settings: Settings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """What trains `model` with what options, where that is not one of the trainers' own optimizers."""
    if settings.method != "galore":
        return None
    matrices = [weight for weight in layers(model).parameters() if weight.ndim == 2]
    return GaLore, {"lr": settings.learning_rate, "rank": settings.rank, "matrices": matrices}


def freeze(model: Any, count: int) -> Any:
    """`model` with its last `count` decoder layers trained, whole and in fp32, with the rows of added tokens, and everything
    else frozen."""
    model.requires_grad_(False)
    for layer in [*layers(model)[-count:], *([model.score] if hasattr(model, "score") else [])]:
        layer.float().requires_grad_(True)
    added_rows.train(model)
    return model


def for_training(recipe: Recipe, folder: Path, adapter: Path | None = None) -> Any:
    """The model as it is trained: base and adapter, or the whole model with all or some of its layers trained.

    adapter  a folder with adapter weights to start from; overrides recipe.adapter
    Raises FtuiError(PLAN_REFUSED | RECIPE_INVALID) before anything is loaded, for what cannot be done here.
    """
    settings = recipe.settings
    start = adapter or (Path(recipe.adapter) if recipe.adapter else None)
    if not settings.adapts and start is not None:
        raise FtuiError(
            Exit.RECIPE_INVALID, f"{settings.method} tuning cannot start from an adapter", next_step="merge it first"
        )
    for reason in support.reasons(model_facts.read(folder), settings, hardware.read(), recipe.stage):
        raise FtuiError(Exit.PLAN_REFUSED, reason)
    judge = recipe.stage == "reward"
    if judge and start is not None:
        raise FtuiError(Exit.RECIPE_INVALID, "a reward model cannot start from an adapter", next_step="merge it first")
    if start is not None:
        trained_adapter.check(start, settings.method)
    model = base_model(folder, recipe.model, settings, judge=judge)
    return trained(model, settings, start)


def trained(model: Any, settings: Settings, start: Path | None = None) -> Any:
    """The base `model` with what the method trains in it."""
    if settings.method == "freeze":
        return freeze(model, settings.trained_layers)
    if settings.gradient_checkpointing:
        # The embedding is frozen, so its output must be told to carry gradients into the checkpointed layers.
        model.enable_input_require_grads()
    if not settings.adapts:
        return model
    tuned = adapters.begun(model, start) if start else adapters.new(model, settings)
    if settings.fused_lora:
        fused_lora.fuse(tuned)
    return tuned


def for_chat(recipe: Recipe, folder: Path, result: Path) -> Any:
    """The finished run: base with its adapter, or the tuned whole model, ready to answer, or to judge."""
    judge = recipe.stage == "reward"
    if not recipe.settings.adapts:
        return base_model(result, recipe.model, recipe.settings, judge=judge).eval()
    model = base_model(folder, recipe.model, recipe.settings, judge=judge)
    return PeftModel.from_pretrained(model, result).eval()


def core(model: Any) -> Any:
    """The model of transformers that an adapter sits in, or `model` itself where there is none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


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
