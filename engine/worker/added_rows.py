"""Rows of the embedding, and of the head, for tokens that a run adds: made, and found again by what trains them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.utils import TrainableTokensWrapper
from tokenizers import Tokenizer

from engine.errors import Exit, FtuiError
from engine.models import added_tokens


@torch.no_grad()
def grow(model: Any, folder: Path, words: tuple[str, ...]) -> None:
    """Give `model` a row for each of `words` that the tokenizer in `folder` has no token for.

    A row begins as the mean of those before (as transformers' `resize_token_embeddings` begins them, but for its noise:
    the same each time a run is resumed or loaded). Matrices with rows to spare do not grow.
    """
    new = added_tokens.add(Tokenizer.from_file(str(folder / "tokenizer.json")), words)
    if not new:
        return
    rows = model.get_input_embeddings().num_embeddings
    if new[-1] >= rows:
        model.resize_token_embeddings(new[-1] + 1, mean_resizing=False)
    for part in ends(model):
        part.weight[new] = part.weight[: new[0]].float().mean(0).to(part.weight.dtype)
        if getattr(part, "bias", None) is not None:
            part.bias[new] = part.bias[: new[0]].float().mean().to(part.bias.dtype)
    model.added_rows = new


def of(model: Any) -> list[int]:
    """The rows that `grow` made."""
    return getattr(model, "added_rows", [])


def ends(model: Any) -> list[Any]:
    """The embedding; and the head, where it is another matrix."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return [first] if last is None or last.weight is first.weight else [first, last]


def alone(model: Any) -> dict[str, list[int]] | None:
    """What peft is told to train of the embedding and the head: those rows; None where there are none.

    Raises FtuiError(MODEL_UNSUPPORTED) for a head with a bias, which peft would leave out.
    """
    rows = of(model)
    if not rows:
        return None
    names = {id(module): name for name, module in model.named_modules()}
    parts = ends(model)
    if any(getattr(part, "bias", None) is not None for part in parts):
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the head of this model has a bias, beside which rows of added tokens cannot be trained alone",
            next_step="take method full, or leave added_tokens out",
        )
    return {names[id(part)].rpartition(".")[2]: rows for part in parts}


def settle(made: Any) -> Any:
    """The peft model `made`, so that its head still looks like one, and saves the new rows alone."""
    wrapped = [module for module in made.modules() if isinstance(module, TrainableTokensWrapper)]
    for module in wrapped:
        module.register_parameter("bias", None)  # of a head, which TRL asks for; `alone` has looked
    if wrapped:
        made.save_pretrained = partial(made.save_pretrained, save_embedding_layers=False)
    return made


def train(model: Any) -> None:
    """Let the new rows of a model without adapter learn, and no other row of theirs."""
    for part in ends(model) if of(model) else []:
        part.float().requires_grad_(True)
        part.weight.register_hook(partial(_only, of(model)[0]))


def _only(first: int, gradient: torch.Tensor) -> torch.Tensor:
    gradient = gradient.clone()
    gradient[:first] = 0
    return gradient


def mirror(made: Any, name: str, other: str) -> None:
    """Give the adapter `other` of the peft model the rows that `name` has: TRL copies all of it but these."""
    for module in made.modules():
        if isinstance(module, TrainableTokensWrapper):
            rows = module.token_adapter.trainable_tokens_delta
            rows[other].data.copy_(rows[name].data)


def reading(core: Any, tuned: bool) -> tuple[Any, Any]:
    """The embedding and the head as plain functions, with the rows that an adapter trains in their places, once for all."""
    first, last = core.get_input_embeddings(), core.get_output_embeddings()
    if not isinstance(first, TrainableTokensWrapper):
        return first, last
    if not tuned:
        return first.original_module, last.original_module
    weight = first.weight.detach()
    other = weight if last.original_module.weight is first.original_module.weight else last.weight.detach()
    scale = getattr(first.original_module, "embed_scale", None)  # some embeddings of transformers scale what they give

    def embed(ids: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.embedding(ids, weight)
        return found if scale is None else found * scale.to(found.dtype)

    return embed, partial(torch.nn.functional.linear, weight=other)
