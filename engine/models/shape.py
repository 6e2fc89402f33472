"""What a model does with a text, told from config.json alone: goes on with it, fills in words, or writes another.

Which of them it is decides how it is pre-trained; only what goes on with a text can be trained to answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from engine.errors import Exit, FtuiError

Shape = Literal["causal", "masked", "seq2seq"]

NAMES: dict[Shape, str] = {
    "causal": "goes on with a text",
    "masked": "fills in masked words",
    "seq2seq": "reads a text and writes another",
}
# Families that were seen to learn here, or that differ from one of them by their tokenizer only.
_MASKED = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert")
_SEQ2SEQ = ("t5", "mt5", "umt5")
# Their positions are counted from behind the padding token's number, so the table has two that no token stands at.
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
_SEQ2SEQ_CONTEXT = 512  # tokens that T5 was pre-trained on; its positions are relative and have no end (T5 paper)


def of(config: Mapping[str, Any]) -> Shape:
    """The shape of a model with this config.json."""
    name = architecture(config)
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    if name.endswith(("ForMaskedLM", "ForPreTraining")) or (not name and config.get("model_type") in _MASKED):
        return "masked"
    return "causal"


def architecture(config: Mapping[str, Any]) -> str:
    """The class that the weights were saved from ("LlamaForCausalLM"); empty where config.json names none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def context(config: Mapping[str, Any], positions: int | None) -> int | None:
    """Tokens that the model can read, of `positions` that config.json names; None where it says nothing of it."""
    if positions is None:
        return _SEQ2SEQ_CONTEXT if of(config) == "seq2seq" else None
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        return max(1, positions - 1 - (padding if isinstance(padding, int) else 1))
    return positions


def check(config: Mapping[str, Any], where: str) -> None:
    """Raise FtuiError(MODEL_UNSUPPORTED) for what cannot be tuned here as a text model."""
    quantized = config.get("quantization_config")
    step = "take another model"
    if any(key in config for key in ("vision_config", "audio_config", "text_config")):
        reason = "it is a model of text with images or sound; ftui tunes text models"
    elif any(config.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        reason = "it is a mixture of experts, which ftui does not tune yet"
    elif isinstance(quantized, Mapping):
        packed = quantized.get("quant_method", "quantised")
        reason = f"its weights are packed already ({packed}), so they cannot be tuned"
        step = "take the original weights; QLoRA packs them itself"
    else:
        reason = _other_kind(config)
    if reason:
        raise FtuiError(Exit.MODEL_UNSUPPORTED, f"this model cannot be tuned: {reason}", where, step)


def _other_kind(config: Mapping[str, Any]) -> str:
    name, family = architecture(config), config.get("model_type")
    match of(config):
        case "seq2seq" if family not in _SEQ2SEQ:
            return f"of encoder-decoder models ftui pre-trains {', '.join(_SEQ2SEQ)} only, not {family}"
        case "seq2seq" if name and not name.endswith(("ForConditionalGeneration", "WithLMHeadModel")):
            return f"{name} is not a whole encoder-decoder that writes a text"
        case "masked" if family not in _MASKED:
            return f"of models that fill in words ftui pre-trains {', '.join(_MASKED)} only, not {family}"
        case "causal" if name and not name.endswith(("ForCausalLM", "LMHeadModel")):
            return f"{name} is not a model that continues a text"
    return ""
