"""Log-probabilities of given tokens through an output head that does not learn, on a processor.

TRL's fused head computes every product with the vocabulary twice forward and once backward, and writes each step of its
softmax to fresh memory. The gradient of one log-probability to its hidden state, W[token] - p W, needs nothing from later:
it is computed forward, while the logits are at hand, and backward is a scaling. Logits exist for a tile of places at a time,
and the next tile takes their memory. On a card TRL has kernels of its own, which stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

TILE = 4 << 20  # logits at a time


class Found(NamedTuple):
    """Of each place: the log-probability of its token, and of the whole distribution the entropy and the mean of the logits."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    mean_logits: torch.Tensor
    is_top1: torch.Tensor


class _LogProbs(torch.autograd.Function):
    """hidden [places, size], weight [tokens, size], targets [places] -> `Found`'s four, of which only the first has a gradient."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        places, learns = len(hidden), ctx.needs_input_grad[0]
        log_probs, entropy, mean = (hidden.new_empty(places) for _ in range(3))
        best = targets.new_empty(places)
        slope = torch.empty_like(hidden) if learns else None
        step = max(1, TILE // len(weight))
        logits = hidden.new_empty(min(step, places), len(weight))
        exponents = torch.empty_like(logits)
        for begin in range(0, places, step):
            own = slice(begin, min(places, begin + step))
            z, e, target = logits[: own.stop - begin], exponents[: own.stop - begin], targets[own]
            torch.mm(hidden[own], weight.t(), out=z)
            if bias is not None:
                z += bias
            most, best[own] = z.max(-1)
            mean[own] = z.mean(-1)
            torch.sub(z, most[:, None], out=e).exp_()
            total = e.sum(-1)
            log_total = most + total.log()
            log_probs[own] = z.gather(1, target[:, None])[:, 0] - log_total
            entropy[own] = log_total - torch.linalg.vecdot(e, z) / total
            if slope is not None:
                torch.mm(e, weight, out=slope[own])
                slope[own] = weight[target] - slope[own] / total[:, None]
        ctx.save_for_backward(slope)
        found = log_probs, entropy, mean, best == targets
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None], None, None, None


def log_probs(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> Found:
    """hidden [places, size] in fp32; targets [places], the token that follows each."""
    return Found(*_LogProbs.apply(hidden, head.weight, head.bias, targets))


def fits(model: Any) -> bool:
    """Whether the head of `model` is a plain product in fp32 on a processor, and does not learn.

    A head that scales or bends what comes out of it gives other numbers, which whoever uses this finds by trying.
    """
    head = model.get_output_embeddings()
    return (
        type(head) is torch.nn.Linear
        and not head.weight.requires_grad
        and head.weight.device.type == "cpu"
        and head.weight.dtype == torch.float32
    )
