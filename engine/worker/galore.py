"""GaLore: all weights learn, and Adam keeps its moments in a small space (Zhao and others, 2024).

A matrix's gradient G, [rows, columns] with rows <= columns, lies mostly in few directions. Its main ones, P [rows, rank], are
taken from G every 200 steps; Adam works on P^T G, and its step, brought back by P, counts a quarter. Moments take rank
numbers a column instead of twice that many rows. What is no matrix of a layer, or not larger than the rank, learns by plain AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from engine.recipe import GALORE_SCALE

RENEWED = 200  # optimizer steps after which the directions are taken anew (the paper's)


def directions(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """[shorter side, rank]: the singular vectors of the largest singular values, as a basis.

    They are the last eigenvectors of the smaller of the products of `gradient` with itself: far quicker than decomposing it.
    """
    product = gradient @ gradient.T if _wide(gradient) else gradient.T @ gradient
    # A gradient that is no number shows in the loss, where it is told in words.
    found: torch.Tensor = torch.linalg.eigh(product.nan_to_num(0.0, 0.0, 0.0))[1]
    return found[:, -rank:].contiguous()


class GaLore(torch.optim.Optimizer):
    """AdamW, in a small space for `matrices` larger than `rank`; its state is saved and loaded to the same bits.

    groups    parameters, or groups of them, as other optimizers take them
    matrices  those of them that are projected
    """

    def __init__(
        self,
        groups: Iterable[Any],
        *,
        lr: float,
        rank: int,
        matrices: Iterable[torch.Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._rank = rank
        self._projected = {id(weight) for weight in matrices if min(weight.shape) > rank}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        projected = id(weight) in self._projected
        if projected:
            if state.get("step", 0) % RENEWED == 0:
                state["directions"] = directions(gradient, self._rank)
            gradient = _into(gradient, state["directions"])
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = (state["square"].sqrt() / (1 - second ** state["step"]) ** 0.5).add_(group["eps"])
        length = group["lr"] / (1 - first ** state["step"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        if projected:
            change = _back(state["mean"] / spread, state["directions"], _wide(weight))
            weight.add_(change, alpha=-length * GALORE_SCALE)
        else:
            weight.addcdiv_(state["mean"], spread, value=-length)


def _wide(matrix: torch.Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _into(gradient: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """[rank, columns], or [rows, rank] of a tall one."""
    return basis.T @ gradient if _wide(gradient) else gradient @ basis


def _back(change: torch.Tensor, basis: torch.Tensor, wide: bool) -> torch.Tensor:
    return basis @ change if wide else change @ basis.T
