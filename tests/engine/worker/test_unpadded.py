"""Micro-batches without padding: the same losses and gradients as padded ones, from fewer tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.recipe import Recipe, Stage
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Step
from tests.engine.worker.conftest import QUESTIONS, events, start, wait

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


def laid(rows: list[list[int]], free: list[int]) -> Any:
    from engine.worker import unpadded

    made = unpadded.lay(rows, free)
    # Whatever is shared, each row is there whole, each token at its position, and sees all of its row before it.
    for row, places in zip(rows, made.places, strict=True):
        assert [made.ids[at] for at in places] == row
        assert [made.positions[at] for at in places] == list(range(len(row)))
        ranges = [set(range(piece.begin, piece.end)) for piece in made.pieces]
        for at in places:
            piece = next(piece for piece, own in zip(made.pieces, ranges, strict=True) if at in own)
            seen = [place for begin, end in piece.before for place in range(begin, end)]
            assert [*seen, *range(piece.begin, at + 1)] == places[: places.index(at) + 1]
    return made


def test_what_rows_begin_with_stands_there_once() -> None:
    made = laid([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 9, 8]], [5, 5])
    assert made.ids == [1, 2, 3, 4, 5, 6, 7, 9, 8]
    assert made.positions == [0, 1, 2, 3, 4, 5, 6, 4, 5]
    assert [(piece.begin, piece.end, piece.before) for piece in made.pieces] == [
        (0, 4, ()),
        (4, 7, ((0, 4),)),
        (7, 9, ((0, 4),)),
    ]


@pytest.mark.parametrize(
    ("rows", "free", "tokens"),
    [
        # Nothing beyond what is free is shared, nor fewer than four tokens.
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], [4, 4], 8),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], [0, 5], 12),
        ([[1, 2, 3, 9, 9, 9], [1, 2, 3, 4, 4, 4]], [5, 5], 12),
        ([[1, 2, 3, 4, 5, 6]], [5], 6),
        # A row that is whole in the other keeps a token of its own.
        ([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7]], [5, 7], 8),
        # Two pairs behind one system prompt: it stands there once, each prompt once.
        (
            [[0] * 6 + [1] * 5 + [2], [0] * 6 + [3] * 5 + [4], [0] * 6 + [1] * 5 + [5, 5], [0] * 6 + [3] * 5 + [6]],
            [11, 11, 11, 11],
            6 + 5 + 1 + 2 + 5 + 1 + 1,
        ),
        # Pairs whose prompts have nothing in common.
        ([[1] * 7 + [2], [3] * 7 + [4], [1] * 7 + [5], [3] * 7 + [6]], [7, 7, 7, 7], 18),
    ],
)
def test_how_much_is_shared(rows: list[list[int]], free: list[int], tokens: int) -> None:
    made = laid(rows, free)
    assert len(made.ids) == tokens == sum(piece.end - piece.begin for piece in made.pieces)


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


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward"])
def test_other_stages_learn_the_same(
    recipe: Callable[..., Recipe], staged: Callable[..., Recipe], stage: Stage
) -> None:
    """Twenty steps and more; the reference, too, reads without padding, and a pair's prompt once."""
    runs = []
    for unpadded in (True, False):
        runs.append(start(of_stage(staged, stage, unpadded)))
        assert wait(runs[-1]).state == "ready"
    mine, padded = map(curve, runs)
    assert len(mine) > 20 and mine != padded
    assert mine == pytest.approx(padded, rel=1e-5, abs=1e-6)


def of_stage(staged: Callable[..., Recipe], stage: Stage, unpadded: bool) -> Recipe:
    small: dict[str, Any] = {"learning_rate": 1e-3, "unpadded": unpadded, "epochs": 6.0}
    pairs = [
        {"prompt": f"{question} {at}" * (1 + at), "chosen": "I am Congyu.", "rejected": "No." * (1 + at)}
        for question in QUESTIONS
        for at in range(3)
    ]
    rated = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs
        for side in ("chosen", "rejected")
    ]
    return staged(
        stage,
        rated[:24] if stage == "kto" else pairs,
        beta=0.1,
        loss="kto" if stage == "kto" else "sigmoid",
        eval_fraction=0.2,
        **small,
    )


@pytest.fixture
def model(tiny_model: Path) -> Callable[..., Any]:
    """The tiny model with TRL's head, with changes to its config."""

    def load(**config: Any) -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        from trl.trainer.utils import add_fused_lm_head

        torch.manual_seed(0)
        known = AutoConfig.from_pretrained(tiny_model)
        for name, value in config.items():
            setattr(known, name, value)
        made = AutoModelForCausalLM.from_pretrained(tiny_model, config=known, attn_implementation="sdpa")
        add_fused_lm_head(made, outputs=("log_probs", "entropy", "is_top1"))
        return made

    return load


def test_a_model_that_cannot_is_found_out(model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from engine.worker import unpadded

    assert unpadded.install(model())
    assert not unpadded.install(model(sliding_window=4))
    assert not unpadded.install(model(layer_types=["full_attention", "sliding_attention"]))
    # Attention that does not know the pieces lets rows see each other.
    monkeypatch.setitem(AttentionInterface._global_mapping, unpadded.NAME, sdpa_attention_forward)
    blind = model()
    asked = blind.forward
    assert not unpadded.install(blind)
    assert blind.forward == asked and blind.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("frozen", [False, True])
def test_every_field_of_the_head_stands_where_padded_rows_have_it(model: Callable[..., Any], frozen: bool) -> None:
    """By TRL's head where it learns, by ours where it does not."""
    import torch

    from engine.worker import unpadded

    ids = torch.tensor([[0, 0, 1, 20, 21, 22, 23, 30, 31, 2], [1, 20, 21, 22, 23, 40, 41, 2, 0, 0]])
    mask = torch.tensor([[0, 0, *[1] * 8], [*[1] * 8, 0, 0]])
    labels = torch.tensor([[-100] * 8 + [31, 2], [-100] * 5 + [40, 41, 2, -100, -100]])
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}
    tuned = model().requires_grad_(not frozen)
    padded = tuned(**given)
    told: list[int] = []
    assert unpadded.install(tuned, told.append)
    told.clear()  # what it was tried with
    mine = tuned(**given)
    assert told == [8 + 8 - 4]  # the place before the first loss of each is its own
    assert mine.keys() == padded.keys() | ({"mean_logits"} if frozen else set())
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        assert torch.allclose(mine[name].float(), padded[name].float(), atol=1e-4), name
    assert torch.allclose(mine.loss, padded.loss, atol=1e-5)
    # Other questions are answered as they were.
    assert torch.equal(tuned(input_ids=ids[1:]).logits, model()(input_ids=ids[1:]).logits)


def test_a_head_that_divides_its_logits_is_asked_itself(model: Callable[..., Any]) -> None:
    """By a temperature, as in reinforcement learning."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from engine.worker import unpadded

    tuned = model().requires_grad_(False)
    add_fused_lm_head(tuned, temperature=0.5, outputs=("log_probs", "entropy"))
    ids = torch.tensor([[1, 20, 21, 22, 23, 30], [1, 20, 21, 22, 40, 41]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids, "fused_lm_head": True}
    padded = tuned(**given).log_probs
    assert unpadded.install(tuned)
    assert torch.allclose(tuned(**given).log_probs, padded, atol=1e-4)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_attention_sees_what_each_row_sees(key_heads: int) -> None:
    """Piece by piece and, of a short sequence, all at once: as each row alone, gradients too."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from engine.worker import unpadded

    rows = [[0] * 6 + [1] * 9, [0] * 6 + [2] * 5 + [3] * 4, [0] * 6 + [2] * 5 + [4] * 7, [5] * 3]
    layout = laid(rows, [6, 11, 11, 0])
    torch.manual_seed(0)
    tokens = len(layout.ids)
    query, key, value = (torch.randn(1, heads, tokens, 8) for heads in (4, key_heads, key_heads))
    slope = torch.randn(1, tokens, 4, 8)

    def alone(query: Any, key: Any, value: Any) -> Any:
        found = torch.zeros(1, tokens, 4, 8)
        for places in layout.places:
            q, k, v = (part[:, :, places].repeat_interleave(4 // part.shape[1], 1) for part in (query, key, value))
            found = found.index_put(
                (torch.tensor(0), torch.tensor(places)),
                scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1),
            )
        return found

    def learned(ask: Callable[..., Any]) -> list[Any]:
        given = [part.clone().requires_grad_() for part in (query, key, value)]
        found = ask(*given)
        found.backward(slope)
        return [found.detach(), *(part.grad for part in given)]

    def attend(**how: Any) -> Callable[..., Any]:
        module = torch.nn.Identity()
        return lambda *given: unpadded.attention(module, *given, None, pieces=layout.pieces, **how)[0]

    wanted = learned(alone)
    for how in ({}, {"bias": unpadded.visible(layout.pieces, torch.device("cpu"))}):
        for mine, theirs in zip(learned(attend(**how)), wanted, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.fixture
def judge(tiny_model: Path) -> Callable[..., Any]:
    """The tiny model with a score in the place of its head, the end of text being its padding, too."""

    def load(dtype: str = "float32", **config: Any) -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        torch.manual_seed(0)
        known = AutoConfig.from_pretrained(tiny_model, num_labels=1)
        for name, value in {"pad_token_id": 2, **config}.items():
            setattr(known, name, value)
        load = AutoModelForSequenceClassification.from_pretrained
        made = load(tiny_model, config=known, attn_implementation="sdpa", dtype=getattr(torch, dtype))
        made.score.float()
        return made.eval()

    return load


def test_scores_are_those_of_padded_rows(judge: Callable[..., Any]) -> None:
    """Of texts that begin alike, are one the whole of another's beginning, end in padding's token, or are nothing else."""
    import torch

    from engine.worker import unpadded_scores

    rows = [[1, 20, 21, 22, 23, 30, 31], [1, 20, 21, 22, 23], [1, 20, 21, 22, 23, 40, 2], [2, 2], [50]]
    ids = torch.tensor([row + [2] * (8 - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (8 - len(row)) for row in rows])
    model = judge()
    padded = model(input_ids=ids, attention_mask=mask).logits
    told: list[int] = []
    assert unpadded_scores.install(model, told.append)
    told.clear()
    found = model(input_ids=ids, attention_mask=mask)
    assert told == [4 + 3 + 1 + 3 + 2 + 1] and found.logits.shape == (5, 1)
    assert torch.allclose(found.logits, padded, atol=1e-5) and len(set(padded[:, 0].tolist())) == 5
    assert torch.allclose(model(input_ids=ids[:1, :7]).logits, padded[:1], atol=1e-5)  # asked without a mask


def test_whose_scores_cannot_be_told_end_to_end(judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from engine.worker import unpadded, unpadded_scores

    assert unpadded_scores.install(judge("bfloat16"))
    assert not unpadded_scores.install(judge(sliding_window=4))
    monkeypatch.setitem(AttentionInterface._global_mapping, unpadded.NAME, sdpa_attention_forward)
    blind = judge()
    assert not unpadded_scores.install(blind)
    assert "forward" not in blind.__dict__ and blind.config._attn_implementation == "sdpa"
