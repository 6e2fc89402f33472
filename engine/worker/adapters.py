"""The adapters that peft has: made anew, begun from one that was trained, and written down."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from engine.errors import Exit, FtuiError
from engine.models import shape, trust
from engine.models.facts import ATTENTION_WORDS
from engine.models.trainable import feed_forward, scaled_by_ia3
from engine.recipe import Settings
from engine.worker import added_rows
from engine.worker.bottleneck import BottleneckConfig

_TASKS = {"causal": "CAUSAL_LM", "masked": None, "seq2seq": "SEQ_2_SEQ_LM"}  # peft has none for masked words
NAME = "default"  # peft's, for the adapter that learns
_WEIGHTS = "adapter_model.safetensors"
_ITERATIONS = 16  # of the fast decomposition: as good as the whole one (PiSSA paper, section 5.4)


def new(model: Any, settings: Settings) -> PeftModel:
    """`model` with a trainable adapter that leaves what it says as it is; only virtual tokens change it from the start.
    With it learn the rows of added tokens."""
    return cast(PeftModel, added_rows.settle(_new(model, settings)))


def _new(model: Any, settings: Settings) -> PeftModel:
    judge = hasattr(model, "score")
    task = "SEQ_CLS" if judge else _TASKS[shape.of(model.config.to_dict())]  # the first trains the head, too
    match settings.method:
        case "ia3":
            keys, features = scaled_by_ia3(name for name, _ in model.named_modules())
            return get_peft_model(
                model, IA3Config(target_modules=[*keys, *features], feedforward_modules=features, task_type=task)
            )
        case "bottleneck":
            part = feed_forward(name for name, _ in model.named_modules())
            features = model.config.get_text_config().hidden_size
            return get_peft_model(
                model,
                BottleneckConfig(
                    features=features,
                    width=settings.rank,
                    target_modules=part,
                    task_type=task,
                    trainable_token_indices=added_rows.alone(model),
                ),
            )
        case "prompt":
            # Words of the vocabulary: far better than noise (prompt tuning paper, section 3.2).
            return get_peft_model(
                model,
                PromptTuningConfig(
                    num_virtual_tokens=settings.virtual_tokens,
                    prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
                    task_type=task,
                ),
            )
        case "prefix":
            config = PrefixTuningConfig(num_virtual_tokens=settings.virtual_tokens, task_type=task)
            words = _read(model, settings.virtual_tokens)
            made = get_peft_model(model, config)
            set_peft_model_state_dict(made, {"prompt_embeddings": words})
            return made
        case _:
            made = get_peft_model(model, _lora(model, settings, task))
            if settings.init == "pissa":
                _from_main_components(made)
            return made


def begun(model: Any, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, to be trained on."""
    trust.check_adapter(folder)
    config = PeftConfig.from_pretrained(str(folder))
    if not config.is_prompt_learning:
        return cast(PeftModel, added_rows.settle(PeftModel.from_pretrained(model, folder, is_trainable=True)))
    # peft loads virtual tokens for use only.
    config.inference_mode = False
    made = get_peft_model(model, config)
    set_peft_model_state_dict(made, load_file(folder / _WEIGHTS))
    return made


def save(model: Any, folder: Path) -> None:
    """Write the adapter as plain peft reads it. One that PiSSA started becomes an ordinary LoRA of twice the rank."""
    model.save_pretrained(folder, selected_adapters=[NAME])
    started = {name: layer for name, layer in model.named_modules() if hasattr(layer, "start_a")}
    if not started:
        return
    weights = load_file(folder / _WEIGHTS)
    for name, layer in started.items():
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        weights[a] = torch.cat([weights[a], layer.start_a.cpu()])
        weights[b] = torch.cat([weights[b], -layer.start_b.cpu()], 1) * layer.scaling[NAME]
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    config = copy.copy(model.peft_config[NAME])
    config.r = config.lora_alpha = 2 * config.r  # weighs 1
    config.use_rslora, config.inference_mode = False, True
    config.save_pretrained(folder)


def quicken(optimizer: torch.optim.Optimizer, model: Any, ratio: float) -> None:
    """LoRA+: every B learns at `ratio` times the rate of the rest."""
    quick = {id(weight) for name, weight in model.named_parameters() if ".lora_B." in name}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in quick]
        if moved:
            group["params"] = [weight for weight in group["params"] if id(weight) not in quick]
            optimizer.add_param_group({**group, "params": moved, "lr": ratio * group["lr"]})


def _lora(model: Any, settings: Settings, task: str | None) -> LoraConfig:
    targets: str | list[str] = "all-linear"
    if settings.targets == "attention":
        targets = _attention_modules(model)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        bias="none",
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        task_type=task,
        trainable_token_indices=added_rows.alone(model),
    )


def _attention_modules(model: Any) -> list[str]:
    """The matrices of attention, by the same words in their names as the model's facts know them by."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and any(word in name.lower() for word in ATTENTION_WORDS)
    ]
    if not found:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the attention matrices of this model have names that ftui does not know",
            next_step="use targets: all-linear",
        )
    return found


@torch.no_grad()
def _read(model: Any, count: int) -> torch.Tensor:
    """What `model` keeps of `count` random words of its vocabulary, [words, layers x 2 x heads x features].

    Keys and values of real words, where noise would drown what the model knows (prefix tuning paper, section 7.4).
    """
    words = torch.randint(model.config.vocab_size, (1, count), device=model.device)
    cache = model(input_ids=words, use_cache=True).past_key_values
    kept = [one for layer in cache.layers for one in (layer.keys, layer.values)]  # [1, heads, words, features] each
    return torch.cat([one[0].transpose(0, 1).flatten(1) for one in kept], 1).float()


@torch.no_grad()
def _from_main_components(model: Any) -> None:
    """PiSSA: A and B start as the largest components of each matrix W, so that those learn: W - B0 A0 + B A.

    peft takes B0 A0 out of W itself. Here W stays, and what the adapter started from is taken off again while it is on:
    switched off, the base is the base, bit for bit.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        weight = layer.get_base_layer().weight.float()
        a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        u, s, v = torch.svd_lowrank(weight.T if layer.fan_in_fan_out else weight, a.shape[0], _ITERATIONS)
        root = (s / layer.scaling[NAME]).sqrt()
        a.copy_((v * root).T)
        b.copy_(u * root)
        layer.register_buffer("start_a", a.clone(), persistent=False)
        layer.register_buffer("start_b", b.clone(), persistent=False)
        layer.register_forward_hook(_less_the_start)


def _less_the_start(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    if layer.disable_adapters:
        return output
    start = inputs[0].to(layer.start_a.dtype) @ layer.start_a.T @ layer.start_b.T
    return output - (layer.scaling[NAME] * start).to(output.dtype)
