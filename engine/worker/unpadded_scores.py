"""Scores without padding: a reward model reads its pairs end to end, what their texts begin with once.

As `unpadded` has it for texts; what leaves the last layer is the one place of each row that its score is told from.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from engine.worker import build, unpadded


def install(model: Any, told: Callable[[int], None] = lambda tokens: None) -> bool:
    """Let `model`, which has a score in the place of an output head, read padded micro-batches without their padding.

    told  called with how many tokens each is computed as
    Returns False, and leaves the model as it is, where it cannot be done or where a trial finds other scores.
    """
    core = build.core(model)
    padding = core.config.get_text_config().pad_token_id
    if not hasattr(core, "score") or padding is None or not unpadded.fits(model):
        return False
    padded = core.forward
    before = core.config.get_text_config()._attn_implementation
    core.set_attn_implementation(unpadded.NAME)
    hook = core.base_model.register_forward_hook(unpadded.only_wanted, with_kwargs=True)

    def forward(self: Any, *args: Any, **given: Any) -> Any:
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if args or ids is None or mask is None or mask.ndim != 2 or given.get("labels") is not None:
            return padded(*args, **given)
        rows = [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]
        # transformers tells a score from the last token that is not padding's, wherever the text ends.
        ends = [max((n for n, token in enumerate(row) if token != padding), default=0) for row in rows]
        layout = unpadded.lay(rows, ends)
        told(len(layout.ids))
        places = torch.tensor([layout.places[r][end] for r, end in enumerate(ends)], device=ids.device)
        rest = {name: value for name, value in given.items() if name not in ("input_ids", "attention_mask")}
        hidden = self.base_model(**unpadded.inputs(layout, ids.device), **rest, wanted=places).last_hidden_state[0]
        return SequenceClassifierOutputWithPast(logits=self.score(hidden))

    core.forward = MethodType(forward, core)
    if _agrees(core, padded, padding):
        return True
    del core.forward
    core.set_attn_implementation(before)
    hook.remove()
    return False


@torch.no_grad()
def _agrees(core: Any, padded: Any, padding: int) -> bool:
    """Whether rows of which some begin alike have the scores that they have when they are padded."""
    training, first = core.training, next(core.base_model.parameters())
    place, dtype = first.device, first.dtype
    core.eval()
    ids, mask = (given.to(place) for given in unpadded.trial(core))
    # Within a text, its token would be taken for padding.
    ids = ids.masked_fill(ids == padding, padding + 1 if padding == 0 else padding - 1).masked_fill(mask == 0, padding)
    try:
        # A score that learns is in fp32, above a base that may be in 16 bit.
        with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
            mine, theirs = (
                ask(input_ids=ids, attention_mask=mask).logits[:, 0].float() for ask in (core.forward, padded)
            )
    except (TypeError, ValueError, RuntimeError, AttributeError):  # built in another way
        return False
    finally:
        core.train(training)
    return float((mine - theirs).abs().max()) <= unpadded.TOLERANCE[dtype]
