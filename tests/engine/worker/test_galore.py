"""GaLore: what it does to a step, and whole runs of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from engine.models import facts
from engine.models.memory import moments
from engine.recipe import GALORE_SCALE, Model, Recipe
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Start
from engine.worker import build, galore
from engine.worker.galore import GaLore
from tests.engine.settings import settings
from tests.engine.worker.conftest import events, pairs, steps

Make = Callable[..., Recipe]


def weights(*shapes: tuple[int, ...]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


def copies(given: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(weight.detach().clone()) for weight in given]


def test_what_is_not_larger_than_the_rank_learns_by_adamw_to_the_bit() -> None:
    torch.manual_seed(0)
    mine = weights((6, 9), (9, 6), (5,))
    theirs = copies(mine)
    one = GaLore([{"params": mine}], lr=1e-2, rank=6, matrices=mine[:2], weight_decay=0.1)
    other = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        one.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("tall", [False, True])
def test_where_gradients_lie_in_the_space_a_step_is_a_quarter_of_adamws(tall: bool) -> None:
    """Gradients of two rows of six, which share no column in the first step: the directions are these rows, each up to its
    sign, which Adam does not mind."""
    torch.manual_seed(0)
    (mine,) = weights((9, 6) if tall else (6, 9))
    (theirs,) = copies([mine])
    one = GaLore([mine], lr=1e-2, rank=2, matrices=[mine])
    other = torch.optim.AdamW([theirs], lr=GALORE_SCALE * 1e-2, weight_decay=0.0)
    start = mine.detach().clone()
    for step in range(20):
        gradient = torch.zeros(6, 9)
        gradient[1], gradient[4] = 3 * torch.randn(9), torch.randn(9)
        if step == 0:
            gradient[1, 5:] = gradient[4, :5] = 0
        mine.grad = gradient.T.clone() if tall else gradient
        theirs.grad = mine.grad.clone()
        one.step()
        other.step()
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    still = [0, 2, 3, 5]
    assert (mine - start).abs().max() > 0.01
    torch.testing.assert_close(*(w[:, still] if tall else w[still] for w in (mine.detach(), start)), atol=1e-6, rtol=0)


def test_directions_are_the_main_singular_vectors_and_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(5, 2) @ torch.diag(torch.tensor([9.0, 3.0])) @ torch.randn(2, 8) + 0.01 * torch.randn(5, 8)
    basis = galore.directions(gradient, 2)
    u = torch.linalg.svd(gradient)[0][:, :2]
    torch.testing.assert_close(basis @ basis.T, u @ u.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(galore.directions(gradient.T.contiguous(), 2), basis, atol=1e-4, rtol=1e-4)
    assert galore.directions(torch.full((3, 4), torch.nan), 2).isfinite().all()

    monkeypatch.setattr(galore, "RENEWED", 3)
    (weight,) = weights((4, 6))
    optimizer = GaLore([weight], lr=1e-2, rank=2, matrices=[weight])
    seen = []
    for _ in range(7):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        seen.append(optimizer.state[weight]["directions"].clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [False, False, True, False, False, True]


def test_its_state_is_as_large_as_was_forecast(tiny_model: Path) -> None:
    chosen = settings(method="galore", rank=8)
    model = build.trained(build.base_model(tiny_model, Model(source=str(tiny_model)), chosen), chosen)
    made = build.optimizer(model, chosen)
    assert made is not None
    optimizer = made[0]([weight for weight in model.parameters() if weight.requires_grad], **made[1])
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    held = sum(
        one.nbytes for state in optimizer.state.values() for one in state.values() if isinstance(one, torch.Tensor)
    )
    assert (
        held == moments(facts.read(tiny_model), chosen) < 0.9 * moments(facts.read(tiny_model), settings(method="full"))
    )


def test_it_learns_and_goes_on_to_the_same_bits(
    recipe: Make,
    train: Callable[..., RunDir],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over a renewal of the directions, and across one."""
    monkeypatch.setattr(galore, "RENEWED", 10)
    made = recipe("small", method="galore", learning_rate=1e-2, epochs=12.0, gradient_checkpointing=True)
    made.probe = ""
    undisturbed = train(made)
    losses = [e.loss for e in steps(undisturbed)]
    assert losses[-1] < 0.3 * losses[0]
    (begun,) = [e for e in events(undisturbed) if isinstance(e, Start)]
    assert begun.trained_parameters == begun.parameters
    again = train(made, train(made, stop=8))
    for a, b in zip(*(sorted(run.model.glob("*.safetensors")) for run in (undisturbed, again)), strict=True):
        assert a.read_bytes() == b.read_bytes()
    told = {e.step: (e.loss, e.grad_norm, e.learning_rate) for e in steps(again)}
    assert told == {e.step: (e.loss, e.grad_norm, e.learning_rate) for e in steps(undisturbed)}


def test_it_learns_to_rank_answers(staged: Make, train: Callable[..., RunDir]) -> None:
    """Whose head is no matrix of a layer."""
    run = train(staged("reward", pairs(), method="galore", learning_rate=5e-3, eval_fraction=0.25))
    measured = [e for e in events(run) if isinstance(e, Evaluated)]
    assert measured[-1].accuracy == 1.0
    assert run.result == run.model
