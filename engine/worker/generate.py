"""Answers, a token at a time or a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from engine.worker.decode import Next, mixed

LIKELIEST = 256  # tokens looked at first
HALF = "\ufffd"  # what bytes that are no whole character are decoded to


class Sampling(Struct, frozen=True, kw_only=True):
    """temperature 0 is greedy; top_p keeps the likeliest tokens that together reach this probability."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 256
    seed: int | None = None


class Piece(Struct, frozen=True):
    """What an answer goes on with, or why it ended; `tokens` are all so far, also those whose text is not whole yet."""

    text: str = ""
    reason: str = ""
    tokens: int = 0


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return {i for i in ids if i is not None}


def stream(
    source: Next,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    sampling: Sampling,
    ends: set[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Yield each new piece of the answer, and at its end one with the reason: "end", "length" or "stopped".

    Randomness comes from a generator of its own: the state that training depends on is never touched.
    """
    random: torch.Generator | None = None
    answer: list[int] = []
    text = shown = ""
    for _ in range(sampling.max_tokens):
        if should_stop():
            yield Piece(reason="stopped", tokens=len(answer))
            return
        logits = source.logits([*ids, *answer])
        random = random or _drawn_from(sampling.seed, logits.device)
        token = _choose(logits, sampling, random)
        if token in ends:
            if rest := text[len(shown) :]:  # nothing more comes that could complete it: this is what was said
                yield Piece(rest, tokens=len(answer))
            yield Piece(reason="end", tokens=len(answer))
            return
        answer.append(token)
        text = str(tokenizer.decode(answer, skip_special_tokens=True))
        whole = text.rstrip(HALF)  # a character may need several tokens
        if len(whole) > len(shown):
            yield Piece(whole[len(shown) :], tokens=len(answer))
            shown = whole
    yield Piece(reason="length", tokens=len(answer))


def _drawn_from(seed: int | None, place: torch.device) -> torch.Generator:
    random = torch.Generator(device=place)
    if seed is None:
        random.seed()
    else:
        random.manual_seed(seed)
    return random


def _choose(logits: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """logits [vocabulary] -> one token id."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        # The likeliest few nearly always reach top_p: sorting a whole vocabulary takes far longer than finding them.
        ordered, order = probabilities.topk(min(LIKELIEST, len(probabilities)))
        if float(ordered.sum()) <= sampling.top_p:
            ordered, order = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered > sampling.top_p] = 0  # the first is always kept
        return int(order[torch.multinomial(ordered, 1, generator=random)])
    return int(torch.multinomial(probabilities, 1, generator=random))


def _together(model: Any, prompts: Sequence[list[int]], most: int) -> Iterator[Sequence[list[int]]]:
    """`prompts` in order, at most so many at once. Of one length only where learned tokens stand ahead of the text: padding
    would come between."""
    ahead = any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values())
    for _, same in itertools.groupby(prompts, key=len if ahead else lambda _: 0):
        rows = list(same)
        for start in range(0, len(rows), most):
            yield rows[start : start + most]


@torch.no_grad()
def answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_tokens: int = 40,
    batch: int = 8,
) -> Iterator[str]:
    """The greedy answer to each prompt (token ids), in order, computed `batch` at a time, padded on the left.

    Of one that is cut after `max_tokens`, a character that is not whole is left out.
    """
    ends = stop_ids(model, tokenizer)
    training = model.training
    model.eval()
    try:
        for rows in _together(model, prompts, batch):
            longest = max(map(len, rows))
            padding = tokenizer.pad_token_id or 0
            ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=model.device)
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
            with mixed(model):
                result = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    use_cache=True,
                    pad_token_id=padding,
                    eos_token_id=sorted(ends),
                )
            yield from (_said(tokenizer, row, ends) for row in result[:, longest:].tolist())
    finally:
        model.train(training)


def _said(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], ends: set[int]) -> str:
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    return (text if ends.intersection(ids) else text.rstrip(HALF)).strip()
