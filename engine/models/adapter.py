"""An adapter that was trained, as settings: what it fixes for a run that goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import Exit, FtuiError
from engine.models import trust
from engine.models.files import json_object
from engine.recipe import ADDING, LOW_RANK, Method, Settings

# How the matrices of a feed-forward block are named in the families in use; an adapter without them is attention only.
_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h", "c_fc")
_METHODS: dict[str, Method] = {  # by peft's names; a LoRA sits on a plain base as well as on a packed one
    "IA3": "ia3",
    "PROMPT_TUNING": "prompt",
    "PREFIX_TUNING": "prefix",
    "BOTTLENECK": "bottleneck",
}


def left_by(settings: Settings) -> dict[str, Any]:
    """The method and the shape of the adapter that a run leaves. What PiSSA began becomes a LoRA of twice the rank."""
    shape: dict[str, Any] = {"method": settings.method}
    if settings.method in ADDING:
        shape["added_tokens"] = settings.added_tokens
    match settings.method:
        case "lora" | "qlora":
            shape |= {name: getattr(settings, name) for name in ("rank", "alpha", "targets", "rslora", "dora", "init")}
            if settings.init == "pissa":
                shape |= {"rank": 2 * settings.rank, "alpha": 2 * settings.rank, "rslora": False, "init": "default"}
        case "bottleneck":
            shape["rank"] = settings.rank
        case "prompt" | "prefix":
            shape["virtual_tokens"] = settings.virtual_tokens
    return shape


def read(folder: Path) -> dict[str, Any]:
    """The same of the adapter in `folder`; without a method where it is a LoRA. Raises FtuiError(RECIPE_INVALID)."""
    trust.check_adapter(folder)
    config = json_object(folder / "adapter_config.json") or {}
    try:
        return _shape(config, folder)
    except (ValueError, KeyError, TypeError):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            "the adapter to start from cannot be read",
            str(folder / "adapter_config.json"),
            "give the adapter of a finished run",
        ) from None


def check(folder: Path, method: Method) -> None:
    """Raise FtuiError(RECIPE_INVALID) where `method` cannot go on with the adapter in `folder`."""
    own = read(folder).get("method")
    if method not in ((own,) if own else LOW_RANK):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            f"{method} tuning cannot start from this adapter, which {own or 'LoRA'} made",
            str(folder),
            f"take method {own or 'lora'}",
        )


def _added(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The tokens whose rows it trains, as the tokenizer beside it writes them. Raises ValueError where there is none."""
    rows = config.get("trainable_token_indices") or []
    numbers = sorted({int(one) for part in (rows.values() if isinstance(rows, dict) else [rows]) for one in part})
    if not numbers:
        return ()
    known = json_object(folder / "tokenizer.json") or {}
    words = {int(one["id"]): str(one["content"]) for one in known.get("added_tokens", [])}
    if not words.keys() >= set(numbers):
        raise ValueError("rows of tokens that no tokenizer beside it knows")
    return tuple(words[number] for number in numbers)


def _shape(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    method = _METHODS.get(str(config["peft_type"]))
    match method:
        case None:
            modules = config["target_modules"]
            everything = modules == "all-linear" or any(str(module).endswith(_MLP) for module in modules)
            return {
                "rank": int(config["r"]),
                "alpha": int(config["lora_alpha"]),
                "targets": "all-linear" if everything else "attention",
                "rslora": bool(config.get("use_rslora")),
                "dora": bool(config.get("use_dora")),
                "init": "default",
                "added_tokens": _added(config, folder),
            }
        case "prompt" | "prefix":
            return {"method": method, "virtual_tokens": int(config["num_virtual_tokens"])}
        case "bottleneck":
            return {"method": method, "rank": int(config["width"]), "added_tokens": _added(config, folder)}
        case _:
            return {"method": method}
