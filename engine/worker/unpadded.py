"""Micro-batches without padding: rows laid end to end, attention kept inside each, what rows begin with computed once.

A padded micro-batch of short rows computes many tokens that no loss looks at: padding, and in every row again the system
prompt and the template around it; in a preference pair the whole prompt is there twice. Here a micro-batch becomes one
sequence of pieces. A piece holds what some rows have in common, or the rest of one row; its tokens stand at the positions
that they have in their rows, and see the pieces that their rows begin with, and their own. Only places whose next token
has a loss leave the last layer. TRL's fused head then finds what it finds in the padded rows, and puts it where they have it:
losses and gradients are the same but for rounding, in every stage whose trainer asks that head.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from msgspec import Struct
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.trainer.utils import FusedCausalLMOutput

from engine.models import facts
from engine.worker import build, head

NAME = "sdpa_pieces"  # of the attention, for transformers
LEAST_SHARED = 4  # tokens; fewer are not worth a piece of their own
SHORT = 256  # tokens, up to which one product with a mask takes less than one for each piece
IGNORED = -100
# Of a log-probability: rounding alone. In 16 bit the same row differs by some hundredths from batch to batch.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.2}


class Piece(Struct, frozen=True):
    """Places [begin, end) of the sequence, which see those of `before`, too: (begin, end) each, in the order of the row."""

    begin: int
    end: int
    before: tuple[tuple[int, int], ...] = ()


class Layout(Struct):
    """Rows as one sequence. `places[r]` says where in it each token of row r stands."""

    ids: list[int]
    positions: list[int]
    pieces: list[Piece]
    places: list[list[int]]


def lay(rows: Sequence[Sequence[int]], free: Sequence[int]) -> Layout:
    """The layout of `rows` (token ids), none of them empty.

    free  of each row, how many of its first tokens may be shared. The last of these must be no place that a loss is told
          from, because a place has one next token only
    """
    made = Layout([], [], [], [[] for _ in rows])
    _branch(made, rows, free, list(range(len(rows))), 0, ())
    return made


def _branch(
    made: Layout,
    rows: Sequence[Sequence[int]],
    free: Sequence[int],
    group: list[int],
    begin: int,
    before: tuple[tuple[int, int], ...],
) -> None:
    """Lay what the rows of `group`, equal up to `begin`, have in common, then each part of them that goes on alike."""
    if len(group) > 1:
        end = _alike([rows[at] for at in group], begin, min(min(free[at], len(rows[at]) - 1) for at in group))
        if end - begin >= LEAST_SHARED:
            before = (*before, _put(made, rows[group[0]], group, begin, end, before))
            begin = end
    parts: dict[tuple[int, ...], list[int]] = {}
    for at in group:
        # Rows that begin with the same few tokens may have more in common than all of the group have.
        alone = len(group) == 1 or free[at] < begin + LEAST_SHARED
        parts.setdefault((at,) if alone else (-1, *rows[at][begin : begin + LEAST_SHARED]), []).append(at)
    for part in parts.values():
        if len(part) > 1 and len(part) < len(group):
            _branch(made, rows, free, part, begin, before)
        else:
            for at in part:
                _put(made, rows[at], [at], begin, len(rows[at]), before)


def _alike(rows: Sequence[Sequence[int]], begin: int, most: int) -> int:
    """Up to where all rows are the same, from `begin` on, where they are; at most `most`."""
    for at in range(begin, most):
        if any(row[at] != rows[0][at] for row in rows):
            return at
    return max(begin, most)


def _put(
    made: Layout, row: Sequence[int], group: list[int], begin: int, end: int, before: tuple[tuple[int, int], ...]
) -> tuple[int, int]:
    """Lay tokens [begin, end) of `row` for all rows of the group; returns the places."""
    places = range(len(made.ids), len(made.ids) + end - begin)
    made.ids += row[begin:end]
    made.positions += range(begin, end)
    made.pieces.append(Piece(places.start, places.stop, before))
    for at in group:
        made.places[at] += places
    return places.start, places.stop


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pieces: Sequence[Piece] | None = None,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' own attention by SDPA; where the sequence has `pieces`, all at once if it is short, else piece by piece.

    query [1, heads, tokens, size], key and value [1, key heads, tokens, size]; returns [1, tokens, heads, size].
    bias  of a short sequence, see `visible`
    """
    if pieces is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    groups = query.shape[1] // key.shape[1]
    if bias is not None:
        bias = bias.to(query.dtype)
        if dropout or query.dtype != torch.float32 or query.device.type != "cpu":
            return sdpa_attention_forward(module, query, key, value, bias, dropout=dropout, scaling=scaling, **rest)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        short = _Short.apply(query, key, value, bias[0].repeat(1, groups, 1).expand(key.shape[1], -1, -1), scaling)
        return short.transpose(1, 2).contiguous(), None
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    found = []
    for piece in pieces:
        length = piece.end - piece.begin
        keys, values = (
            torch.cat([whole[:, :, begin:end] for begin, end in (*piece.before, (piece.begin, piece.end))], 2)
            for whole in (key, value)
        )
        seen = keys.shape[2] - length
        mask = torch.ones(length, seen + length, dtype=torch.bool, device=query.device).tril(seen) if seen else None
        own = query[:, :, piece.begin : piece.end]
        found.append(
            scaled_dot_product_attention(
                own, keys, values, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling
            )
        )
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


class _Short(torch.autograd.Function):
    """Attention of a short sequence as plain products, which on a processor take two thirds of what torch's kernel takes.

    query [1, heads, tokens, size], key and value [1, key heads, tokens, size]; heads that share a key are one product.
    bias [key heads, heads / key heads * tokens, tokens], 0 or minus infinity
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scale: float
    ) -> torch.Tensor:
        grouped = query.reshape(key.shape[1], -1, query.shape[-1])
        seen = torch.baddbmm(bias, grouped, key[0].transpose(1, 2), alpha=scale).softmax(-1)
        found = torch.bmm(seen, value[0])
        ctx.save_for_backward(grouped, key, value, seen, found)
        ctx.scale = scale
        return found.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        grouped, key, value, seen, found = ctx.saved_tensors
        above = gradient.reshape(found.shape)
        to_value = torch.bmm(seen.transpose(1, 2), above)
        slope = torch.bmm(above, value[0].transpose(1, 2))
        slope.sub_(torch.linalg.vecdot(above, found)[..., None]).mul_(seen).mul_(ctx.scale)
        to_query, to_key = torch.bmm(slope, key[0]), torch.bmm(slope.transpose(1, 2), grouped)
        return to_query.view(gradient.shape), to_key[None], to_value[None], None, None


def visible(pieces: Sequence[Piece], device: torch.device) -> torch.Tensor:
    """[1, 1, tokens, tokens]: 0 where a token (third) sees another (fourth), else minus infinity."""
    tokens = pieces[-1].end
    seen = torch.zeros(tokens, tokens, dtype=torch.bool)
    for piece in pieces:
        for begin, end in piece.before:
            seen[piece.begin : piece.end, begin:end] = True
        seen[piece.begin : piece.end, piece.begin : piece.end] = True
    return torch.zeros(1, 1, tokens, tokens).masked_fill_(~seen.tril_(), -torch.inf).to(device)


def inputs(layout: Layout, place: torch.device) -> dict[str, Any]:
    """What a model is given to read `layout`."""
    return {
        "input_ids": torch.tensor([layout.ids], device=place),
        "position_ids": torch.tensor([layout.positions], device=place),
        "attention_mask": torch.ones(1, 1, 1, 1, device=place),  # says to transformers that a mask is there already
        "pieces": layout.pieces,
        "bias": visible(layout.pieces, place) if len(layout.ids) <= SHORT else None,
    }


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def install(model: Any, told: Callable[[int], None] = lambda tokens: None) -> bool:
    """Let `model`, which has TRL's fused head, read the padded micro-batches that it is asked about without their padding.

    told  called with how many tokens each is computed as
    Returns False, and leaves the model as it is, where it cannot be done or where a trial finds other numbers.
    """
    core = build.core(model)
    padded = core.__dict__.get("forward")  # TRL's
    if padded is None or not fits(model):
        return False
    before = core.config.get_text_config()._attn_implementation
    core.set_attn_implementation(NAME)
    hook = core.base_model.register_forward_hook(only_wanted, with_kwargs=True)
    for read in (functools.partial(_read, core), padded) if head.fits(core) else (padded,):

        @functools.wraps(type(core).forward)  # generate looks at the signature
        def forward(self: Any, *args: Any, read: Any = read, **given: Any) -> Any:
            return _forward(padded, read, told, args, given)

        core.forward = MethodType(forward, core)
        if _agrees(core, padded):
            return True
    core.forward = padded
    core.set_attn_implementation(before)
    hook.remove()
    return False


def fits(model: Any) -> bool:
    """Whether this model can read a sequence of pieces: plain SDPA attention of all layers to everything before.

    It can still be one of a kind that is not known here, which `install` finds out by trying.
    """
    core = build.core(model)
    config = core.config.get_text_config()
    return (
        not getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)  # virtual tokens go first
        and config._attn_implementation in ("sdpa", NAME)
        and getattr(core, "_supports_attention_backend", False)
        and "position_ids" in inspect.signature(type(core).forward).parameters
        and not facts.windowed(config.to_dict())
        and not getattr(config, "num_experts", None)  # how experts are balanced goes by the mask of the padding
        and not getattr(config, "num_local_experts", None)
    )


def only_wanted(module: torch.nn.Module, args: Any, given: dict[str, Any], output: Any) -> Any:
    """A hook: of the last hidden states, those of the places `wanted`, where some are."""
    if given.get("wanted") is not None:
        output.last_hidden_state = output.last_hidden_state[:, given["wanted"]]
    return output


def _read(
    core: Any, *, shift_labels: torch.Tensor, fused_lm_head: bool, num_items_in_batch: Any = None, **rest: Any
) -> FusedCausalLMOutput:
    """What TRL's fused forward says of one sequence, by a head that is quicker here. `shift_labels` is [1, places]."""
    hidden = core.base_model(**{**rest, "use_cache": False}).last_hidden_state[0]
    found = head.log_probs(hidden, core.get_output_embeddings(), shift_labels[0])
    told = {name: value[None] for name, value in found._asdict().items()}
    loss = -found.log_probs.sum() / (num_items_in_batch or len(hidden))
    return FusedCausalLMOutput(loss=loss, label_mask=torch.ones_like(shift_labels, dtype=torch.bool), **told)


def _forward(padded: Any, read: Any, told: Callable[[int], None], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """What TRL's head finds for input_ids, attention_mask and labels [rows, length]; anything else is asked as it is.

    read  TRL's own forward, `padded`, or what stands in its place where the sequence has no padding
    told  as `install`
    """
    ids, mask, labels = (given.get(name) for name in ("input_ids", "attention_mask", "labels"))
    if (
        args
        or not given.get("fused_lm_head")
        or ids is None
        or labels is None
        or mask is None
        or mask.ndim != 2
        or given.get("position_ids") is not None
    ):
        return padded(*args, **given)
    columns = [row.nonzero()[:, 0].tolist() for row in mask]
    known, marked = ids.tolist(), labels.tolist()
    rows = [[known[r][at] for at in kept] for r, kept in enumerate(columns)]
    # Of each row, its tokens with a loss; the first token has none, since nothing is before it.
    trained = [[n for n, at in enumerate(kept) if n and marked[r][at] != IGNORED] for r, kept in enumerate(columns)]
    if not any(trained) or not all(rows):
        return padded(**given)
    layout = lay(rows, [one[0] - 1 if one else len(row) for one, row in zip(trained, rows, strict=True)])
    told(len(layout.ids))
    place = ids.device
    wanted = [layout.places[r][n - 1] for r, one in enumerate(trained) for n in one]
    targets = [rows[r][n] for r, one in enumerate(trained) for n in one]
    there = (
        torch.tensor([r for r, one in enumerate(trained) for _ in one], device=place),
        torch.tensor([columns[r][n] - 1 for r, one in enumerate(trained) for n in one], device=place),
    )
    rest = {name: value for name, value in given.items() if name not in ("input_ids", "attention_mask", "labels")}
    output = read(
        **inputs(layout, place),
        wanted=torch.tensor(wanted, device=place),
        shift_labels=torch.tensor([targets], device=place),
        **rest,
    )
    shape = (ids.shape[0], ids.shape[1] - 1)
    for name, value in output.items():
        if value is not None and value.shape == (1, len(wanted)):
            output[name] = value.new_zeros(shape).index_put(there, value[0])
    return output


def trial(core: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, mask) [3, 14]: rows of several lengths, of which some begin alike."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, core.config.get_text_config().vocab_size, (3, 14), generator=draw)
    ids[1:, :6] = ids[0, :6]
    ids[1, :9] = ids[2, :9]
    mask = torch.ones_like(ids)
    mask[0, 11:] = mask[1, 12:] = 0
    return ids, mask


@torch.no_grad()
def _agrees(core: Any, padded: Any) -> bool:
    """Whether rows of many tokens, some of them shared, have the same log-probabilities in pieces as when they are padded."""
    training, place = core.training, next(core.parameters()).device
    core.eval()
    ids, mask = trial(core)
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :10] = IGNORED
    given = {"input_ids": ids.to(place), "attention_mask": mask.to(place), "labels": labels.to(place)}
    try:
        mine, theirs = (ask(**given, fused_lm_head=True).log_probs for ask in (core.forward, padded))
    except (TypeError, ValueError, RuntimeError):  # attention of its own
        return False
    finally:
        core.train(training)
    return float((mine - theirs).abs().max()) <= TOLERANCE[next(core.parameters()).dtype]
