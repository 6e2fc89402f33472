"""What the stages that learn from rewards share: prompts, and what the answers to them are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine import rewards
from engine.data import dataset as data
from engine.data import tokenizer as tokens
from engine.data.convert import Example, Message
from engine.errors import Exit, FtuiError
from engine.models import sources
from engine.recipe import Recipe
from engine.runs.directory import RunDir
from engine.worker import build
from engine.worker.stages import Prepared
from engine.worker.stages.preferences import padded


def asked(example: Example) -> tuple[list[Message], str | None]:
    """A row up to where its last answer begins, and that answer; None where it has none."""
    messages = list(example.messages or [])
    last = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=-1)
    if example.chosen is not None or last < 0 or any(m.role in ("user", "tool") for m in messages[last:]):
        return messages, None
    return messages[:last], messages[last].content


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Prompts in tokens (`prompt`) with the answer of their row (`answer`). Those longer than `max_length` are left out:
    a prompt that is cut asks something else.

    Raises FtuiError(PLAN_REFUSED) when none is left.
    """
    from datasets import Dataset

    rows, settings = data.load(recipe.data), recipe.settings
    tokenizer = tokens.load(folder, settings.added_tokens)
    prompts: list[list[int]] = []
    answers: list[str] = []
    left_out = 0
    for at in rows.repeats(settings.seed):
        example = rows.examples[at]
        messages, answer = asked(example)
        ids = tokenizer.prompt(messages, example.tools)
        if len(ids) > settings.max_length:
            left_out += 1
            continue
        prompts.append(ids)
        answers.append(answer or "")
    if not prompts:
        raise FtuiError(
            Exit.PLAN_REFUSED,
            f"nothing to answer: every prompt is longer than {settings.max_length} tokens",
            recipe.data.source,
            "raise max_length",
        )
    return Prepared(Dataset.from_dict({"prompt": prompts, "answer": answers}), None, left_out, rows.sha256)


class Worth:
    """What answers are worth, by the recipe's reward. A reward model is loaded once, and is not trained."""

    __name__ = "reward"

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        assert recipe.reward is not None  # `refusals` sees to it
        self._reward = rewards.parse(recipe.reward)
        self._judge: Any = None
        if self._reward.kind != "model":
            return
        run = RunDir(Path(self._reward.argument))
        trained = run.recipe()
        base = sources.resolve(trained.model.source, revision=trained.model.revision)
        assert run.result is not None
        self._judge = build.for_chat(trained, base, run.result).requires_grad_(False)
        self._padding = build.tokenizer(folder).pad_token_id
        self._judge.config.pad_token_id = self._padding
        self._end, self._tail = _tail(folder)

    def __call__(
        self,
        prompts: Sequence[list[int]],
        completions: Sequence[str],
        completion_ids: Sequence[list[int]],
        answer: Sequence[str],
        **_: Any,
    ) -> list[float]:
        """prompts and completion_ids in tokens, completions in words, `answer` those of the rows."""
        if self._judge is not None:
            return self._scores(prompts, completion_ids)
        return [
            self._reward.of(text, len(ids), expected)
            for text, ids, expected in zip(completions, completion_ids, answer, strict=True)
        ]

    @torch.no_grad()
    def _scores(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """A conversation as the judge was trained on it: with what the chat template writes after an end token."""
        whole = [
            [*prompt, *answer, *(self._tail if answer and answer[-1] == self._end else [])]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        place = self._judge.device
        ids = padded(whole, self._padding).to(place)
        mask = padded([[1] * len(row) for row in whole], 0).to(place)
        scores: list[float] = self._judge(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
        return scores


def _tail(folder: Path) -> tuple[int | None, list[int]]:
    """The end token, and what the chat template writes after it when an answer is over."""
    tokenizer = tokens.load(folder)
    ids = tokenizer.tokenize(Example(1, [Message("user", "a"), Message("assistant", "b")], None)).input_ids
    if tokenizer.eos_id not in ids:
        return tokenizer.eos_id, []
    return tokenizer.eos_id, ids[len(ids) - ids[::-1].index(tokenizer.eos_id) :]
