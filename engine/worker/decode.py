"""What a model says next of a text that grows: keys and values kept, the adapter merged where it can be.

Asked for one token after another, a small model spends more time around its matrix products than in them: modules that call
modules, masks built anew, caches copied to grow by one, three products where an adapter stands beside a matrix. `Reader`
walks the layers itself. It knows decoders of the common build (rotary positions, RMS norms, gated feed-forward); whether a
model is one is found by trying once. Any other, and one that still learns, is read by `Plain`, as transformers would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from engine.worker import added_rows, build, unpadded
from engine.worker.products import Product, Products, short_pays
from engine.worker.recorded import Work, recorded

# Of a logit: a merged matrix rounds otherwise than one with its adapter beside it (as for exports).
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.75, torch.float16: 0.1}
LEAST_ROOM = 256  # tokens that the first buffer holds; it doubles from there


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

    def __init__(self, model: Any, tuned: bool = True, short: bool = False, again: bool = False) -> None:
        """tuned, short  as `Products` has them
        again  one token after another is read by the same work each time, which a card plays as one (`recorded`): over
               all the room that the buffers have. Raises AttributeError where the build is another.
        """
        core = build.core(model)
        body = core.base_model
        products = Products(model, tuned, short)
        self._embed, head = added_rows.reading(core, tuned)
        self._head = products.of(head)
        self._rotary = body.rotary_emb
        self._layers = [_Layer(layer, products) for layer in body.layers]
        self._norm = _norm(body.norm)
        self._device = core.device
        self._read: list[int] = []
        self._again = again
        self._token, self._place = (torch.zeros(1, dtype=torch.long, device=self._device) for _ in range(2))
        self._play: tuple[torch.Tensor, Work] | None = None  # and the buffer that it was recorded with

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        known = min(_alike(self._read, ids), len(ids) - 1)
        self._read = self._read[:known]  # what follows may be cut short
        if self._again and known == len(ids) - 1 and known < self._layers[0].keys.shape[2]:
            found = self._next(ids[-1], known)
        else:
            places = torch.arange(known, len(ids), device=self._device)
            mask = None
            if known and len(places) > 1:
                mask = torch.ones(len(places), len(ids), dtype=torch.bool, device=self._device).tril(known)
            found = self._through(torch.tensor(ids[known:], device=self._device), places, len(ids), mask)
        self._read = list(ids)
        return found

    def _next(self, token: int, place: int) -> torch.Tensor:
        self._token.fill_(token)
        self._place.fill_(place)
        keys = self._layers[0].keys
        if self._play is None or self._play[0] is not keys:
            self._play = keys, recorded(self._one, self._device)
        return self._play[1]().clone()

    def _one(self) -> torch.Tensor:
        room = self._layers[0].keys.shape[2]
        mask = torch.arange(room, device=self._device) <= self._place
        return self._through(self._token, self._place, room, mask[None])

    def _through(self, tokens: torch.Tensor, places: torch.Tensor, end: int, mask: torch.Tensor | None) -> torch.Tensor:
        """tokens and their places [new]; those before `end` are seen, as far as mask [new, end] lets them."""
        x = self._embed(tokens[None])
        cos, sin = (part[:, None] for part in self._rotary(x, position_ids=places[None]))
        half = sin.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        for layer in self._layers:
            x = layer(x, cos, sin, places, end, mask)
        found: torch.Tensor = self._head(self._norm(x[:, -1]))[0].float()
        return found


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class _Layer:
    """One layer with its buffers of keys and values, [1, key heads, room, size] each."""

    def __init__(self, layer: Any, products: Products) -> None:
        attention = layer.self_attn
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._qkv = products.of(*(getattr(attention, f"{name}_proj") for name in ("q", "k", "v")))
        self._o = products.of(attention.o_proj)
        self._q_norm, self._k_norm = (
            _norm(getattr(attention, name)) if hasattr(attention, name) else None for name in ("q_norm", "k_norm")
        )
        self._feed = _feed(layer.mlp, products)
        self._size, self._groups, self._scale = attention.head_dim, attention.num_key_value_groups, attention.scaling
        self.keys = self._values = torch.empty(1, 0, 0, self._size)

    def __call__(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        places: torch.Tensor,
        end: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """x [1, tokens, features], which stand at `places` and see what is before `end`; cos and sin [1, 1, tokens, size]."""
        tokens = x.shape[1]
        heads = self._qkv(self._before(x)).to(x.dtype).view(1, tokens, -1, self._size).transpose(1, 2)
        keys = heads.shape[1] // (self._groups + 2)
        queries = keys * self._groups
        turning = heads[:, :-keys]
        if self._q_norm is not None and self._k_norm is not None:
            turning = torch.cat((self._q_norm(turning[:, :queries]), self._k_norm(turning[:, queries:])), 1)
        turned = _turned(turning, cos, sin)
        if tokens == end or end > self.keys.shape[2]:
            self._make_room(heads[:, -keys:], end - tokens, end)
        self.keys.index_copy_(2, places, turned[:, queries:])
        self._values.index_copy_(2, places, heads[:, -keys:])
        seen = scaled_dot_product_attention(
            turned[:, :queries],
            self.keys[:, :, :end],
            self._values[:, :, :end],
            attn_mask=mask,
            is_causal=mask is None and tokens > 1,
            scale=self._scale,
            enable_gqa=self._groups > 1,
        )
        x = x.add_(self._o(seen.transpose(1, 2).reshape(1, tokens, -1)))
        return x.add_(self._feed(self._between(x)))

    def _make_room(self, like: torch.Tensor, known: int, needed: int) -> None:
        """For `needed` tokens, of which `known` stay; a text that begins anew gives back what a long one before it took."""
        room = LEAST_ROOM
        while room < needed:
            room *= 2
        if room == self.keys.shape[2]:
            return
        shape = (1, like.shape[1], room, self._size)
        for name in ("keys", "_values"):
            # Zeros: what nobody may see is added up with a weight of zero, and must be a number.
            grown = like.new_zeros(shape)
            if known:
                grown[:, :, :known] = getattr(self, name)[:, :, :known]
            setattr(self, name, grown)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [1, heads, tokens, size] turned by its position; sin is negative in its first half."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _norm(module: Any) -> Product:
    weight, epsilon = module.weight, module.variance_epsilon
    size = len(weight)

    def norm(x: torch.Tensor) -> torch.Tensor:
        if x.numel() > size or x.is_cuda or x.dtype != torch.float32:
            return rms_norm(x, weight.shape, weight, epsilon)
        # Of one token on a processor, where torch's takes six small operations, a tenth of all that the token takes.
        flat = x.flatten()
        return x * (float(flat @ flat) / size + epsilon) ** -0.5 * weight

    return norm


def _feed(module: Any, products: Products) -> Product:
    """The gated feed-forward part; called as it is where something was put around it (bottleneck)."""
    if not hasattr(module, "gate_proj") or isinstance(module, BaseTunerLayer) or module._forward_hooks:
        whole: Product = module
        return whole
    both, down, act = products.of(module.gate_proj, module.up_proj), products.of(module.down_proj), module.act_fn

    def feed(x: torch.Tensor) -> torch.Tensor:
        found = both(x)
        size = found.shape[-1] // 2
        return down(act(found[..., :size]) * found[..., size:])

    return feed


def reader(model: Any, tuned: bool = True, short: bool = False) -> Next:
    """What reads for `model` while it is not trained.

    tuned  false: for the base, its adapter switched off by the caller
    short  in 16 bit where that is sooner: answers as good, but not the same to the last token
    """
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    core = build.core(model)
    if (tuned and virtual) or not unpadded.fits(core) or not isinstance(mixed(model), contextlib.nullcontext):
        return Plain(model)
    shorts = (True, False) if short and short_pays(model) else (False,)
    again = (True, False) if core.device.type == "cuda" else (False,)
    for bits, plays in product(shorts, again):
        try:
            made = Reader(model, tuned, bits, plays)
            if _agrees(made, model, torch.bfloat16 if bits else model.dtype):
                return made
        except (AttributeError, TypeError, ValueError, RuntimeError):  # built in another way, or not to be recorded
            pass
    return Plain(model)


def _agrees(made: Reader, model: Any, dtype: torch.dtype) -> bool:
    """Whether a few tokens, read in parts, one cut back and one by one, have the logits that the model gives them."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.get_text_config().vocab_size, (8,), generator=draw).tolist()
    made.logits([*ids[:4], ids[0], ids[0]])
    made.logits(ids[:6])
    made.logits(ids[:7])
    mine = made.logits(ids)
    apart = float((mine - Plain(model).logits(ids)).abs().max())
    return apart <= TOLERANCE[dtype]
