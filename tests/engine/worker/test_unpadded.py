"""Micro-batches without padding: the same losses and gradients as padded ones, from fewer tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.recipe import Recipe
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Step
from tests.engine.worker.conftest import events, start, wait

SYSTEM = "You are a helpful assistant that answers in few words and never lies."


@pytest.fixture
def uneven_rows(tmp_path: Path) -> Path:
    """Rows of many lengths behind one system prompt, some with two answers."""
    rows = []
    for at in range(24):
        talk = [("user", f"Hello {at} " * (1 + at % 5)), ("assistant", "I am Congyu. " * (1 + at % 3))]
        turns = [("system", SYSTEM), *talk, *(talk if at % 4 == 0 else [])]
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    path = tmp_path / "uneven.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_micro_batch_is_one_sequence() -> None:
    from engine.worker import unpadded

    rows = [
        {"input_ids": [1, 2, 3, 4, 5, 6, 7], "labels": [-100] * 5 + [6, 7]},
        {"input_ids": [1, 2, 3, 4, 9, 8], "labels": [-100] * 5 + [8]},
    ]
    made = unpadded.collate(rows)
    assert made["pieces"] == [(0, 4), (4, 7), (7, 9)]
    assert made["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 9, 8]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 4, 5]]
    assert made["shift_labels"].tolist() == [[-100] * 4 + [6, 7, -100, 8, -100]]


@pytest.mark.parametrize(
    ("rows", "common"),
    [
        # Nothing with a loss is shared, nor the place that the first loss is told from.
        ([([1, 2, 3, 4, 5, 6], 5), ([1, 2, 3, 4, 5, 7], 5)], 4),
        ([([1, 2, 3, 4, 5, 6], 1), ([1, 2, 3, 4, 5, 7], 1)], 0),
        # Three tokens are not worth it; a single row has nobody to share with.
        ([([1, 2, 3, 9, 9, 9], 5), ([1, 2, 3, 4, 4, 4], 5)], 0),
        ([([1, 2, 3, 4, 5, 6], 5)], 0),
        # A row that is whole in the other keeps a token of its own.
        ([([1, 2, 3, 4, 5], 6), ([1, 2, 3, 4, 5, 6, 7], 6)], 4),
    ],
)
def test_what_is_shared(rows: list[tuple[list[int], int]], common: int) -> None:
    from engine.worker import unpadded

    made = unpadded.collate([{"input_ids": ids, "labels": [-100] * start + ids[start:]} for ids, start in rows])
    assert made["pieces"][0] == (0, common)
    assert sum(end - begin for begin, end in made["pieces"]) == made["input_ids"].shape[1]


def curve(run: RunDir) -> list[float]:
    return [event.loss for event in events(run) if isinstance(event, Step | Evaluated)]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "lora"},
        {"method": "full", "learning_rate": 1e-3, "gradient_checkpointing": True},
        {"method": "bottleneck", "learning_rate": 2e-2, "accumulation": 2, "epochs": 7.0},
    ],
    ids=str,
)
def test_losses_are_those_of_padded_rows(
    recipe: Callable[..., Recipe], uneven_rows: Path, changes: dict[str, Any]
) -> None:
    """Twenty steps and more in fp32 without dropout, held-out rows among them."""
    small = {"learning_rate": 5e-3, "epochs": 4.0, "dropout": 0.0, "max_length": 256, "eval_fraction": 0.2, **changes}
    runs = []
    for unpadded in (True, False):
        made = recipe("rows", unpadded=unpadded, **small)
        made.data.source = str(uneven_rows)
        runs.append(start(made))
        assert wait(runs[-1]).state == "ready"
    mine, padded = map(curve, runs)
    assert len(mine) > 20 and mine[-1] < 0.7 * mine[0]
    assert mine == pytest.approx(padded, rel=1e-5)
    told = [[(e.tokens, e.grad_norm) for e in events(run) if isinstance(e, Step)] for run in runs]
    assert [tokens for tokens, _ in told[0]] == [tokens for tokens, _ in told[1]]
    assert [norm for _, norm in told[0]] == pytest.approx([norm for _, norm in told[1]], rel=1e-3)
    assert mine != padded  # else nothing was computed another way


@pytest.fixture
def model(tiny_model: Path) -> Callable[..., Any]:
    """The tiny model, with changes to its config."""

    def load(**config: Any) -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from engine.worker import unpadded  # noqa: F401  (brings the attention)

        torch.manual_seed(0)
        known = AutoConfig.from_pretrained(tiny_model)
        for name, value in config.items():
            setattr(known, name, value)
        return AutoModelForCausalLM.from_pretrained(tiny_model, config=known, attn_implementation="sdpa_rows")

    return load


ROWS = [
    {"input_ids": [1, 20, 21, 22, 23, 30, 31, 2], "labels": [-100] * 6 + [31, 2]},
    {"input_ids": [1, 20, 21, 22, 23, 40, 2], "labels": [-100] * 6 + [2]},
]


def test_a_model_that_cannot_is_found_out(model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from engine.worker import unpadded

    assert unpadded.fits(model()) and unpadded.agrees(model(), ROWS)
    assert not unpadded.fits(model(sliding_window=4))
    assert not unpadded.fits(model(layer_types=["full_attention", "sliding_attention"]))
    # Attention that does not know the pieces lets rows see each other.
    monkeypatch.setitem(AttentionInterface._global_mapping, unpadded.NAME, sdpa_attention_forward)
    assert not unpadded.agrees(model(), ROWS)


def test_many_logits_go_through_the_head_in_parts(model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from engine.worker import unpadded

    tuned = model()
    add_fused_lm_head(tuned)
    sequence = unpadded.collate(ROWS)
    whole = float(unpadded.loss(tuned, sequence).detach())
    monkeypatch.setattr(unpadded, "MOST_LOGITS", 1)
    assert float(unpadded.loss(tuned, sequence).detach()) == pytest.approx(whole, rel=1e-5)
