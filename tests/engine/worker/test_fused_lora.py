"""LoRA in one step: peft's numbers without dropout, dropout's share with it, and hands off where it does not belong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.recipe import Recipe
from engine.runs.events import Step
from tests.engine.worker.conftest import events, start, wait


def test_losses_are_those_of_peft(recipe: Callable[..., Recipe]) -> None:
    """Twenty steps and more in fp32 without dropout."""
    small = {"learning_rate": 5e-3, "epochs": 8.0, "dropout": 0.0}
    runs = [start(recipe("fused", fused_lora=fused, **small)) for fused in (True, False)]
    assert all(wait(run).state == "ready" for run in runs)
    mine, theirs = ([event for event in events(run) if isinstance(event, Step)] for run in runs)
    assert len(mine) > 20 and mine[-1].loss < 0.8 * mine[0].loss
    assert [step.loss for step in mine] == pytest.approx([step.loss for step in theirs], rel=1e-5)
    assert [step.grad_norm for step in mine] == pytest.approx([step.grad_norm for step in theirs], rel=1e-3)
    assert [step.grad_norm for step in mine] != [step.grad_norm for step in theirs]  # it was computed another way


@pytest.fixture
def layer() -> Callable[..., Any]:
    """A network of one linear layer with LoRA whose B is not 0."""

    def make(**options: Any) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(3)
        options = {"r": 4, "lora_alpha": 6, "lora_dropout": 0.0, "target_modules": ["0"], **options}
        model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(30, 20)), LoraConfig(**options))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        return model.train()

    return make


def test_every_gradient_is_pefts(layer: Callable[..., Any]) -> None:
    import torch

    from engine.worker import fused_lora

    def gradients(fused: bool) -> list[Any]:
        model = layer()
        assert not fused or fused_lora.fuse(model) == 1
        x = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(1), requires_grad=True)
        model(x).square().sum().backward()
        return [x.grad, *(weight.grad for weight in model.parameters() if weight.requires_grad)]

    for mine, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_leaves_its_share_out_and_its_gradient_fits(layer: Callable[..., Any]) -> None:
    import torch

    from engine.worker import fused_lora

    torch.manual_seed(0)
    mask = fused_lora.dropout_mask(torch.empty(400, 501), 0.05)
    assert float((~mask).float().mean()) == pytest.approx(0.05, abs=0.002)
    for lane in range(4):  # of the 64 bits that are drawn at once
        assert float((~mask.flatten()[lane::4]).float().mean()) == pytest.approx(0.05, abs=0.004)
    step = fused_lora._Step.apply
    double = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 6), (2, 6), (4, 2))]
    weight, bias = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    small = fused_lora.dropout_mask(torch.empty(3, 6, dtype=torch.float64), 0.5)
    for left_out in (None, small):
        assert torch.autograd.gradcheck(
            lambda x, down, up, left_out=left_out: step(x, weight, bias, down, up, 1.5, left_out), double
        )
    with_dropout = layer(lora_dropout=0.5)
    fused_lora.fuse(with_dropout)
    x = torch.randn(1, 30)
    assert not torch.equal(with_dropout(x), with_dropout(x))
    assert torch.equal(with_dropout.eval()(x), with_dropout(x))
    # On average it gives what it gives without dropout.
    many = torch.stack([with_dropout.train()(x) for _ in range(2000)]).mean(0)
    assert torch.allclose(many, with_dropout.eval()(x), atol=0.5)


def test_what_is_not_plain_stays(layer: Callable[..., Any], tiny_model: Path) -> None:
    import torch

    from engine.worker import fused_lora

    assert fused_lora.fuse(layer(use_dora=True)) == 0
    assert fused_lora.fuse(layer(lora_bias=True)) == 0
    model = layer()
    fused_lora.fuse(model)
    x = torch.randn(2, 30)
    with model.disable_adapter():
        assert torch.equal(model(x), model.base_model.model[0].base_layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
