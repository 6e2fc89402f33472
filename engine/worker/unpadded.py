"""Micro-batches without padding: rows laid end to end, attention kept inside each, what all begin with computed once.

A padded micro-batch of short rows computes many tokens that no loss looks at: padding, and in every row again the system
prompt and the template around it. Here a micro-batch is one sequence: first what the rows have in common, then the rest of
each row, whose tokens stand at the positions that they have in their row and see what is common and their own row only.
Losses and gradients are those of the padded rows, but for rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_rows"  # of the attention, for transformers
LEAST_SHARED = 4  # tokens; fewer are not worth a piece of their own
IGNORED = -100
MOST_LOGITS = 1 << 28  # in fp32 1 GB
# Of a loss in nats: rounding alone. In 16 bit the same rows differ by some thousandths from batch to batch.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}

# (begin, end) of each piece in the sequence, the common one first; it is empty where the rows begin differently.
Pieces = list[tuple[int, int]]


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pieces: Pieces | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' own attention by SDPA; where the sequence has `pieces`, each sees the common one and itself.

    query [1, heads, tokens, size], key and value [1, key heads, tokens, size]; returns [1, tokens, heads, size].
    """
    if pieces is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    (_, common), *rows = pieces
    found = []
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    if common:
        head = slice(0, common)
        found.append(
            scaled_dot_product_attention(
                query[:, :, head], key[:, :, head], value[:, :, head], is_causal=True, **options
            )
        )
    for begin, end in rows:
        own = slice(begin, end)
        if not common:
            seen: dict[str, Any] = {"is_causal": True}
            keys, values = key[:, :, own], value[:, :, own]
        else:
            length = end - begin
            causal = torch.ones(length, common + length, dtype=torch.bool, device=query.device).tril(common)
            seen = {"attn_mask": causal}
            keys = torch.cat([key[:, :, :common], key[:, :, own]], 2)
            values = torch.cat([value[:, :, :common], value[:, :, own]], 2)
        found.append(scaled_dot_product_attention(query[:, :, own], keys, values, **seen, **options))
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """A micro-batch of rows with `input_ids` and `labels`, as one sequence.

    input_ids, position_ids, shift_labels [1, tokens]: the label of a position is the token after it in its row
    pieces                                see `attention`
    attention_mask                        [1, 1, 1, 1]: says to transformers that a mask is there already
    """
    common = _shared(rows)
    ids, positions, labels = list(rows[0]["input_ids"][:common]), list(range(common)), [IGNORED] * common
    pieces: Pieces = [(0, common)]
    for row in rows:
        begin = len(ids)
        ids += row["input_ids"][common:]
        positions += range(common, len(row["input_ids"]))
        labels += [*row["labels"][common + 1 :], IGNORED]
        pieces.append((begin, len(ids)))
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "shift_labels": torch.tensor([labels]),
        "labels": torch.tensor([labels]),  # the trainer looks whether there are any
        "attention_mask": torch.ones(1, 1, 1, 1),
        "pieces": pieces,
    }


def _shared(rows: Sequence[dict[str, list[int]]]) -> int:
    """Tokens that all rows begin with, as long as none of them has a loss, nor the first one after them."""
    first = rows[0]["input_ids"]
    most = min(_first_label(row["labels"]) - 1 for row in rows)
    if len(rows) < 2:
        return 0
    for other in rows[1:]:
        ids = other["input_ids"]
        most = min(most, len(ids) - 1)
        for at in range(max(0, most)):
            if ids[at] != first[at]:
                most = at
                break
    most = min(most, len(first) - 1)
    return most if most >= LEAST_SHARED else 0


def _first_label(labels: Sequence[int]) -> int:
    return next((at for at, label in enumerate(labels) if label != IGNORED), len(labels))


def loss(model: Any, inputs: dict[str, Any], items: torch.Tensor | None = None) -> torch.Tensor:
    """Cross entropy of the labels, summed and divided by `items`, or by their number.

    Only positions with a label go through the output head; where their logits would take much memory, through TRL's head,
    which never holds all of them.
    """
    labels = inputs["shift_labels"]
    at = (labels[0] != IGNORED).nonzero()[:, 0]
    given = {name: inputs[name] for name in ("input_ids", "position_ids", "attention_mask", "pieces")}
    if len(at) * model.config.get_text_config().vocab_size > MOST_LOGITS:
        total = -model(**given, shift_labels=labels, fused_lm_head=True).log_probs.sum()
    else:
        logits = model(**given, logits_to_keep=at, use_cache=False).logits[0]
        total = torch.nn.functional.cross_entropy(logits.float(), labels[0, at], reduction="sum")
    return total / (len(at) if items is None else items)


def fits(model: Any) -> bool:
    """Whether this model can read a sequence of pieces: plain SDPA attention of all layers to everything before.

    It can still be one of a kind that is not known here: `agrees` tries it out.
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = core.config.get_text_config()
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # virtual tokens stand before each row
    return (
        config._attn_implementation in ("sdpa", NAME)
        and getattr(core, "_supports_attention_backend", False)
        and "logits_to_keep" in inspect.signature(type(core).forward).parameters
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))
        and not getattr(config, "num_experts", None)  # what experts balance is told padding by the mask
        and not getattr(config, "num_local_experts", None)
    )


@torch.no_grad()
def agrees(model: Any, rows: Sequence[dict[str, list[int]]]) -> bool:
    """Whether `rows` have the same loss in pieces as one by one, without any padding or pieces."""
    training, place = model.training, next(model.parameters()).device
    model.eval()
    try:
        sequence = {name: v.to(place) if torch.is_tensor(v) else v for name, v in collate(rows).items()}
        mine = float(loss(model, sequence))
        total = count = 0.0
        for row in rows:
            labels = torch.tensor([row["labels"]], device=place)
            logits = model(input_ids=torch.tensor([row["input_ids"]], device=place), use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits.float(), labels[0, 1:], reduction="sum"))
            count += int((labels[0, 1:] != IGNORED).sum())
    except (TypeError, ValueError, RuntimeError):  # a model with attention of its own
        return False
    finally:
        model.train(training)
    return abs(mine - total / count) <= TOLERANCE[next(model.parameters()).dtype] * max(1.0, total / count)
