"""The output head of a frozen base: what TRL's finds, gradients too."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("places", [1, 7, 32])
def test_log_probabilities_and_gradients_are_trls(places: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from trl.kernels import ChunkedLogProbFunction

    from engine.worker import head

    monkeypatch.setattr(head, "TILE", 5 * 101)  # five places at a time
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 101, bias=bias).requires_grad_(False)
    layer.weight.mul_(20)  # else all tokens are about as likely
    hidden, targets, slope = torch.randn(places, 16), torch.randint(101, (places,)), torch.randn(places)
    names = ("log_probs", "entropy", "mean_logits", "is_top1")
    mine, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found = head.log_probs(mine, layer, targets)
    asked = ChunkedLogProbFunction.apply(theirs, layer.weight, layer.bias, targets, 1.0, 64, None, 1.0, names)
    log_probs, entropy, _, mean_logits, is_top1 = asked
    wanted = (log_probs, entropy, mean_logits, is_top1)
    for got, true in zip(found, wanted, strict=True):
        assert torch.allclose(got.float(), true.float(), atol=1e-5)
    assert found.log_probs.requires_grad and not found.entropy.requires_grad
    found.log_probs.backward(slope)
    log_probs.backward(slope)
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-5)


def test_a_head_that_learns_or_is_not_plain_is_left_to_trl() -> None:
    import torch

    from engine.worker import head

    class Model:
        def __init__(self, made: torch.nn.Module) -> None:
            self.made = made

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.made

    plain = torch.nn.Linear(4, 9).requires_grad_(False)
    assert head.fits(Model(plain))
    assert not head.fits(Model(torch.nn.Linear(4, 9)))
    assert not head.fits(Model(torch.nn.Linear(4, 9, dtype=torch.bfloat16).requires_grad_(False)))
    assert not head.fits(Model(torch.nn.Sequential(plain)))
