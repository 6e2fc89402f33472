"""What is streamed and counted of an answer, and what is left of one that was cut within a character."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.data.convert import Message
from engine.worker import answer, build, generate
from engine.worker.service import Ask

NAME = "I am 王小明."  # characters that the tiny tokenizer never saw: three tokens each
PROMPT = [5, 6]


class Scripted:
    """Reads a text of which `script` follows after the prompt, whatever is asked."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script = script

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.eye(1024)[self.script[len(ids) - len(PROMPT)]]


@pytest.fixture
def words(tiny_model: Path) -> Any:
    return build.tokenizer(tiny_model)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def streamed(words: Any, script: list[int], most: int) -> tuple[list[str], generate.Piece]:
    sampling = generate.Sampling(temperature=0, max_tokens=most)
    *pieces, last = generate.stream(Scripted(script), words, PROMPT, sampling, {words.eos_token_id})
    return [piece.text for piece in pieces], last


def test_every_token_counts_also_those_that_make_a_character_together(words: Any) -> None:
    script = [*words.encode(NAME), words.eos_token_id]
    pieces, last = streamed(words, script, 40)
    assert "".join(pieces) == NAME and "王" in pieces  # never a part of one
    assert (last.reason, last.tokens) == ("end", len(script) - 1)
    assert last.tokens > len(pieces)


@pytest.mark.parametrize(("cut", "said"), [(0, "I am 王"), (1, "I am 王"), (2, "I am 王"), (3, "I am 王小")])
def test_a_cut_answer_keeps_no_part_of_a_character(words: Any, cut: int, said: str) -> None:
    most = len(words.encode("I am 王")) + cut
    pieces, last = streamed(words, words.encode(NAME), most)
    assert "".join(pieces) == said
    assert (last.reason, last.tokens) == ("length", most)


def test_what_it_says_itself_is_left_as_it_is(words: Any) -> None:
    script = [*words.encode("Paris 王")[:-1], words.eos_token_id]
    pieces, last = streamed(words, script, 40)
    assert "".join(pieces) == "Paris \ufffd" and last.reason == "end"


def test_the_worker_tells_how_many_tokens_an_answer_has(words: Any, model: Any) -> None:
    script = words.encode(NAME)
    heard: list[dict[str, Any]] = []
    client: Any = SimpleNamespace(gone=False, stopped=set(), send=heard.append)
    now: Any = SimpleNamespace(
        model=model,
        tokenizer=words,
        asked=set(),
        readers={"tuned": Scripted(script)},
        prompt=lambda *_, base: PROMPT,
    )
    asked = Ask(id=1, messages=[Message("user", "Who are you?")], temperature=0, max_tokens=len(script) - 2)
    answer.reply(now, client, asked)
    *pieces, last = heard
    assert "".join(piece["text"] for piece in pieces) == "I am 王小"
    assert (last["done"], last["reason"], last["tokens"]) == (True, "length", asked.max_tokens)


def test_answers_at_once_are_cut_between_characters_too(words: Any, model: Any) -> None:
    cut = words.encode(NAME)[:-2]
    ended = [*words.encode("Paris 王")[:-1], words.eos_token_id]
    ended += [words.pad_token_id] * (len(cut) - len(ended))
    model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.tensor([cut, ended])], 1)
    assert list(generate.answers(model, words, [PROMPT, PROMPT])) == ["I am 王小", "Paris \ufffd"]
