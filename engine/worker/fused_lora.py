"""LoRA's small products added into the large one in place, forward and backward, with a quicker dropout.

peft computes x W^T, then dropout, A, B, the scale and a sum as steps of their own, each of which writes a whole matrix; and
on a processor torch draws a dropout mask more slowly than it multiplies by A. Here they are one step with a backward of
its own. Without dropout the numbers are those of peft, but for the order of sums; with it other places are left out.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear


class _Step(torch.autograd.Function):
    """x [tokens, in], weight [out, in], down [rank, in], up [out, rank] -> [tokens, out]; weight and bias do not learn.

    mask  as x, True for what dropout keeps; or None
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        inside = (x if mask is None else x * mask) @ down.t()
        result = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        result.addmm_(inside, up.t(), alpha=scale)
        ctx.save_for_backward(x, weight, down, up, inside, mask)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, down, up, inside, mask = ctx.saved_tensors
        above = (gradient @ up).mul_(ctx.scale)
        to_up = (gradient.t() @ inside).mul_(ctx.scale)
        to_down = above.t() @ (x if mask is None else x * mask)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ weight
            if mask is None:
                to_x.addmm_(above, down)
            else:
                to_x += (above @ down).mul_(mask)
        return to_x, None, None, to_down, to_up, None, None


def dropout_mask(x: torch.Tensor, share: float) -> torch.Tensor:
    """As large as `x`: False for a `share` of the places, to the nearest 1/65536."""
    count = x.numel()
    # One draw of 64 bits is good for four places.
    bits = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return bits.view(torch.int16)[:count].view(x.shape) >= round(share * 65536) - 32768


def _forward(self: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    base: Any = self.base_layer
    name = self.active_adapters[0]
    if (
        args
        or kwargs
        or self.disable_adapters
        or self.merged
        or len(self.active_adapters) > 1
        or not self.training
        or torch.is_autocast_enabled(x.device.type)
    ):
        return Linear.forward(self, x, *args, **kwargs)
    down, up = self.lora_A[name].weight, self.lora_B[name].weight
    if not x.dtype == base.weight.dtype == down.dtype:
        return Linear.forward(self, x)
    dropout = self.lora_dropout[name]
    flat = x.reshape(-1, x.shape[-1])
    scale, mask = self.scaling[name], None
    if isinstance(dropout, torch.nn.Dropout):
        mask = dropout_mask(flat, dropout.p)
        scale /= 1 - dropout.p
    result = _Step.apply(flat, base.weight, base.bias, down, up, scale, mask)
    return result.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def fuse(model: Any) -> int:
    """Let the plain LoRA layers of `model` compute in one step; returns how many there are.

    Layers of packed weights, DoRA, and layers whose adapter has a bias stay as they are.
    """
    count = 0
    for module in model.modules():
        if (
            type(module) is Linear
            and type(module.base_layer) is torch.nn.Linear
            and not module.base_layer.weight.requires_grad
            and not module.fan_in_fan_out
            and not module.lora_variant
            and not any(module.lora_bias.values())
        ):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
            count += 1
    return count
