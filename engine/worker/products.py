"""What stands for the matrices of a model that nobody trains: merged with their adapter, side by side, in 16 bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import linear

from engine import hardware

Product = Callable[[torch.Tensor], torch.Tensor]
MEMORY_SHARE = 0.5  # of the free memory that copies may take


class Products:
    """Makes them: the model's own matrices, or copies where an adapter is merged or 16 bit is asked for.

    The adapter is merged as an export merges it. One that cannot be merged stays beside its matrix, as peft has it.
    """

    def __init__(self, model: Any, tuned: bool, short: bool) -> None:
        """tuned  with what the adapter makes of the model.
        short  16-bit copies of all matrices, for a processor: a token is read in the time that memory needs to deliver
               them. Their products are added up in fp32, but what they multiply is rounded to 16 bit, too
        """
        self._tuned, self._short = tuned, short
        self._merge = tuned and sum(map(_bytes, model.modules())) <= _free(model)

    def of(self, *modules: Any) -> Product:
        """One function for `modules`, each a matrix with or without an adapter: their outputs for the same input, one
        behind the other in the last dimension."""
        plain = [self._plain(module) for module in modules]
        known = [one for one in plain if one is not None]
        # Matrices that were merged are copies already: putting them side by side takes no more memory.
        merged = self._merge and all(isinstance(module, BaseTunerLayer) for module in modules)
        if len(known) == len(modules) and (self._short or merged):
            weight = torch.cat([one.weight for one in known]) if len(known) > 1 else known[0].weight
            return self.matrix(weight, _biases(known))
        parts: list[Product] = [module if one is None else one for one, module in zip(plain, modules, strict=True)]
        return parts[0] if len(parts) == 1 else lambda x: torch.cat([part(x) for part in parts], -1)

    def matrix(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
        """The product with `weight` [out, in]."""
        if not self._short:
            return partial(linear, weight=weight, bias=bias)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), None)
        short = None if bias is None else bias.detach().bfloat16()
        product = torch.ops.mkldnn._linear_pointwise
        return lambda x: product(x.bfloat16(), packed, short, "none", [], "")

    def _plain(self, module: Any) -> Any:
        """`module` as one plain matrix; None where it is none."""
        if not isinstance(module, BaseTunerLayer):
            return module if type(module) is torch.nn.Linear and not module._forward_hooks else None
        base: Any = module.get_base_layer()
        if not self._tuned:
            return base if type(base) is torch.nn.Linear else None  # None: its adapter is switched off by who asks
        # Packed matrices would lose bits by merging, and hooks (PiSSA's start) say something of their own.
        if not self._merge or type(base) is not torch.nn.Linear or module._forward_hooks:  # type: ignore[attr-defined]
            return None
        one: Any = copy.deepcopy(module)
        one.merge()
        return one.get_base_layer()


def short_pays(model: Any) -> bool:
    """Whether 16-bit copies of fp32 weights are read sooner, by a processor that multiplies bf16 itself, and have room."""
    if model.dtype != torch.float32 or model.device.type != "cpu" or not hardware.read().cpu_bf16:
        return False
    return 2 * sum(one.numel() for one in model.parameters()) <= _free(model)


def _free(model: Any) -> float:
    """Bytes that copies may take."""
    found = hardware.read()
    return MEMORY_SHARE * (found.gpu.memory_free if found.gpu and model.device.type == "cuda" else found.memory_free)


def _biases(plain: list[Any]) -> torch.Tensor | None:
    if all(one.bias is None for one in plain):
        return None
    return torch.cat([one.weight.new_zeros(len(one.weight)) if one.bias is None else one.bias for one in plain])


def _bytes(module: Any) -> int:
    """Of the matrix that an adapter changes."""
    weight = getattr(module.get_base_layer(), "weight", None) if isinstance(module, BaseTunerLayer) else None
    return 0 if weight is None else weight.numel() * weight.element_size()
