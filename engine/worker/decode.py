"""What a model says next of a text that grows: keys and values kept, the adapter merged where it can be.

Asked for one token after another, a small model spends more time around its matrix products than in them: modules that call
modules, masks built anew, caches copied to grow by one, three products where an adapter stands beside a matrix. `Reader`
walks the layers itself. It knows decoders of the common build (rotary positions, RMS norms, gated feed-forward); whether a
model is one is found by trying once. Any other, and one that still learns, is read by `Plain`, as transformers would.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from engine import hardware
from engine.worker import added_rows, build, unpadded

Product = Callable[[torch.Tensor], torch.Tensor]
# Of a logit: a merged matrix rounds otherwise than one with its adapter beside it (as for exports).
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.75, torch.float16: 0.1}
LEAST_ROOM = 256  # tokens that the first buffer holds; it doubles from there
MEMORY_SHARE = 0.5  # of the free memory that merged copies may take


class Next(Protocol):
    """What reads a text and tells what may come next."""

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[vocabulary] in fp32, for what follows `ids`, which are not empty. What the text before had in common with this
        one is not read again."""
        ...


class Plain:
    """Any model of transformers with its own cache, which can only go on from where it is."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._read: list[int] = []
        self._cache: Any = None

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        known = len(self._read)
        model = self._model
        if self._cache is None or known >= len(ids) or list(ids[:known]) != self._read:
            known, self._cache = 0, None
        elif hasattr(model, "get_base_model"):
            # An adapter that puts virtual tokens ahead of the text would do so at every token; the cache has them already.
            model = model.get_base_model()
        inputs = torch.tensor([ids[known:]], device=model.device)
        with mixed(self._model):
            output = model(input_ids=inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache, self._read = output.past_key_values, list(ids)
        found: torch.Tensor = output.logits[0, -1].float()
        return found


def mixed(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Autocast for a model whose trained layers are in fp32 above frozen ones in 16 bit; adapters see to it themselves."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    short = dtypes - {torch.float32}
    if hasattr(model, "peft_config") or len(dtypes) < 2:
        return contextlib.nullcontext()
    return torch.autocast(model.device.type, short.pop())


class Reader:
    """A decoder of the common build, read layer by layer.

    The weights are the model's own, or merged copies of those that an adapter changes: it must not be trained meanwhile.
    Keys and values stand in buffers with room to grow; what a text has in common with the one before stays in them, and a
    shorter or changed text takes their place from there on. Base and tuned model each have a reader of their own: from the
    first adapted matrix on, the same text has other keys and values.
    """

    def __init__(self, model: Any, tuned: bool = True) -> None:
        """tuned  with what its adapter makes of the model. Raises AttributeError where the build is another."""
        core = build.core(model)
        body = core.base_model
        self._embed, self._head = added_rows.reading(core, tuned)
        self._rotary = body.rotary_emb
        merge = tuned and _room(model)
        self._layers = [_Layer(layer, lambda one: _product(one, tuned, merge)) for layer in body.layers]
        self._norm = _norm(body.norm)
        self._device = core.device
        self._read: list[int] = []

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        known = min(_alike(self._read, ids), len(ids) - 1)
        self._read = self._read[:known]  # what follows may be cut short
        new = torch.tensor([ids[known:]], device=self._device)
        places = torch.arange(known, len(ids), device=self._device)[None]
        x = self._embed(new)
        cos, sin = (part[:, None] for part in self._rotary(x, position_ids=places))
        mask = None
        if known and new.shape[1] > 1:
            mask = torch.ones(new.shape[1], len(ids), dtype=torch.bool, device=self._device).tril(known)
        for layer in self._layers:
            x = layer(x, cos, sin, known, mask)
        self._read = list(ids)
        found: torch.Tensor = self._head(self._norm(x[:, -1]))[0].float()
        return found


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class _Layer:
    """One layer with its buffers of keys and values, [1, key heads, room, size] each."""

    def __init__(self, layer: Any, product: Callable[[Any], Product]) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._q, self._k, self._v, self._o = (
            product(getattr(attention, f"{name}_proj")) for name in ("q", "k", "v", "o")
        )
        self._q_norm, self._k_norm = (
            _norm(getattr(attention, name)) if hasattr(attention, name) else None for name in ("q_norm", "k_norm")
        )
        self._feed: Product = _feed(feed, product)
        self._size, self._scale = attention.head_dim, attention.scaling
        self._keys = self._values = torch.empty(0)

    def __call__(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, known: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """x [1, tokens, features], which follow `known` tokens; cos and sin [1, 1, tokens, size]."""
        tokens = x.shape[1]
        normed = self._before(x)
        q, k, v = (p(normed).view(1, tokens, -1, self._size) for p in (self._q, self._k, self._v))
        if self._q_norm is not None and self._k_norm is not None:
            q, k = self._q_norm(q), self._k_norm(k)
        q, k, v = _turned(q.transpose(1, 2), cos, sin), _turned(k.transpose(1, 2), cos, sin), v.transpose(1, 2)
        end = known + tokens
        if not known or end > self._keys.shape[2]:
            self._grow(k, known, end)
        self._keys[:, :, known:end], self._values[:, :, known:end] = k, v
        seen = scaled_dot_product_attention(
            q,
            self._keys[:, :, :end],
            self._values[:, :, :end],
            attn_mask=mask,
            is_causal=mask is None and tokens > 1,
            scale=self._scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        x = x + self._o(seen.transpose(1, 2).reshape(1, tokens, -1))
        return x + self._feed(self._between(x))

    def _grow(self, like: torch.Tensor, known: int, needed: int) -> None:
        room = LEAST_ROOM
        while room < needed:
            room *= 2
        shape = (1, like.shape[1], room, self._size)
        for name in ("_keys", "_values"):
            grown = like.new_empty(shape)
            if known:
                grown[:, :, :known] = getattr(self, name)[:, :, :known]
            setattr(self, name, grown)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [1, heads, tokens, size] turned by its position."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def _norm(module: Any) -> Product:
    weight, epsilon = module.weight, module.variance_epsilon
    return lambda x: rms_norm(x, weight.shape, weight, epsilon)


def _feed(module: Any, product: Callable[[Any], Product]) -> Product:
    """The gated feed-forward part; called as it is where something was put around it (bottleneck)."""
    if not hasattr(module, "gate_proj") or isinstance(module, BaseTunerLayer) or module._forward_hooks:
        whole: Product = module
        return whole
    gate, up, down = (product(getattr(module, f"{name}_proj")) for name in ("gate", "up", "down"))
    act = module.act_fn
    return lambda x: down(act(gate(x)) * up(x))


def _product(module: Any, tuned: bool, merge: bool) -> Product:
    """What stands for `module`, one matrix with or without an adapter beside it."""
    found: Product = module
    if not isinstance(module, BaseTunerLayer):
        return found
    plain: Any = module.get_base_layer()
    if not tuned:
        return plain if isinstance(plain, torch.nn.Linear) else found  # found: its adapter is switched off by who asks
    # Merged as an export merges. Packed matrices would lose bits, and hooks (PiSSA's start) say something of their own.
    if not merge or type(plain) is not torch.nn.Linear or module._forward_hooks:  # type: ignore[attr-defined]
        return found
    one: Any = copy.deepcopy(module)
    one.merge()
    merged: Product = one.get_base_layer()
    return merged


def _room(model: Any) -> bool:
    """Whether copies of the matrices that the adapter changes leave enough memory."""
    layers: list[Any] = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    needed = sum(
        weight.numel() * weight.element_size()
        for weight in (getattr(one.get_base_layer(), "weight", None) for one in layers)
        if weight is not None
    )
    found = hardware.read()
    gpu = found.gpu if next(model.parameters()).is_cuda else None
    return needed <= MEMORY_SHARE * (gpu.memory_free if gpu else found.memory_free)


def reader(model: Any, tuned: bool = True) -> Next:
    """What reads for `model` while it is not trained; with `tuned` false, for the base, its adapter switched off by the caller."""
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    core = build.core(model)
    if (tuned and virtual) or not unpadded.fits(core) or not isinstance(mixed(model), contextlib.nullcontext):
        return Plain(model)
    try:
        made = Reader(model, tuned)
        if _agrees(made, model):
            return made
    except (AttributeError, TypeError, ValueError, RuntimeError):  # built in another way
        pass
    return Plain(model)


def _agrees(made: Reader, model: Any) -> bool:
    """Whether a few tokens, read in parts, one cut back and one by one, have the logits that the model gives them."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.get_text_config().vocab_size, (8,), generator=draw).tolist()
    made.logits([*ids[:4], ids[0], ids[0]])
    made.logits(ids[:7])
    mine = made.logits(ids)
    apart = float((mine - Plain(model).logits(ids)).abs().max())
    return apart <= TOLERANCE[model.dtype]
