"""What comes next, read by our own loop: transformers' greedy answers, from keys and values that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from engine import hardware
from engine.recipe import Settings
from engine.worker import build, decode, generate, products
from tests.engine.settings import settings
from tests.engine.worker.test_adapters import base, lively, taught

__all__ = ["base"]
PROMPTS = [[265, 266, 267, 268, 269, 270, 271, 300], [330, 331, 332], [5]]
KINDS: dict[str, tuple[dict[str, Any], type]] = {
    "lora": ({}, decode.Reader),
    "rslora": ({"rslora": True, "alpha": 4, "targets": "attention"}, decode.Reader),
    "dora": ({"dora": True}, decode.Reader),
    "pissa": ({"init": "pissa", "alpha": 16}, decode.Reader),
    "ia3": ({"method": "ia3"}, decode.Reader),
    "bottleneck": ({"method": "bottleneck"}, decode.Reader),
    "prompt": ({"method": "prompt", "virtual_tokens": 5}, decode.Plain),
    "prefix": ({"method": "prefix", "virtual_tokens": 5}, decode.Plain),
}


def greedy(source: decode.Next, ids: Sequence[int], count: int = 16) -> list[int]:
    answer: list[int] = []
    for _ in range(count):
        answer.append(int(source.logits([*ids, *answer]).argmax()))
    return answer


def generated(model: Any, ids: list[int], count: int = 16) -> list[int]:
    """By transformers; not ended by any token, so that all are compared."""
    given = torch.tensor([ids])
    made = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, eos_token_id=-1
    )
    return [int(one) for one in made[0, -count:]]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_generate(base: Callable[[Settings], Any], kind: str) -> None:
    changes, wanted = KINDS[kind]
    chosen = settings(**changes)
    made = taught(lively(base(chosen)), chosen)
    tuned = decode.reader(made)
    assert type(tuned) is wanted
    mine = [greedy(tuned, ids) for ids in PROMPTS]
    assert mine == [generated(made, ids) for ids in PROMPTS]
    with made.disable_adapter():
        plain = decode.reader(made, tuned=False)
        assert type(plain) is decode.Reader
        off = [greedy(plain, ids) for ids in PROMPTS]
        assert off == [generated(made, ids) for ids in PROMPTS] != mine
    assert [greedy(tuned, ids) for ids in PROMPTS] == mine  # neither has changed the other


def test_whole_and_partly_trained_models(base: Callable[[Settings], Any]) -> None:
    for chosen in (settings(method="full"), settings(method="freeze", trained_layers=1)):
        made = build.trained(lively(base(chosen)), chosen).eval()
        source = decode.reader(made)
        assert type(source) is decode.Reader
        assert [greedy(source, ids) for ids in PROMPTS] == [generated(made, ids) for ids in PROMPTS]


class Counted:
    """Counts the tokens that go through the embedding of `model`."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        model.get_input_embeddings().register_forward_hook(self)

    def __call__(self, module: Any, given: Any, output: torch.Tensor) -> None:
        self.tokens += output.shape[1]

    def since(self) -> int:
        found, self.tokens = self.tokens, 0
        return found


@pytest.mark.parametrize("again", [False, True])
def test_only_what_is_new_is_read(
    base: Callable[[Settings], Any], monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also by the work that a card would play again: over all the room there is."""
    monkeypatch.setattr(decode, "LEAST_ROOM", 4)  # the buffers have to grow
    model = lively(base(settings()))
    source = decode.Reader(model, again=again)
    counted = Counted(model)
    first = [*range(265, 285)]

    def asked(ids: list[int]) -> int:
        """Tokens read for it; its logits are those of the model that reads all of it."""
        counted.since()
        mine = source.logits(ids)
        read = counted.since()
        with torch.no_grad():
            torch.testing.assert_close(mine, model(torch.tensor([ids])).logits[0, -1], atol=1e-3, rtol=1e-3)
        return read

    assert asked(first) == 20
    assert asked([*first, 7]) == 1
    assert asked([*first, 7, *range(300, 310)]) == 10  # the next turn
    assert asked([*first, 8, 9]) == 2  # another answer
    assert asked([*first, 8, 9]) == 1  # asked again: only the last token
    assert asked([*first[:5], 400, 401]) == 2  # a question was edited
    assert asked([3, 4]) == 2  # another conversation
    for place in range(5, 14):
        assert asked([3, 4, *range(5, place + 1)]) == 1


def test_work_is_recorded_once_for_the_room_it_has(
    base: Callable[[Settings], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a card's graph: it plays what was recorded with the buffers of that time."""
    monkeypatch.setattr(decode, "LEAST_ROOM", 4)
    times: list[int] = []

    def record(work: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
        times.append(1)
        work()
        return work

    monkeypatch.setattr(decode, "recorded", record)
    model = lively(base(settings()))
    source = decode.Reader(model, again=True)
    ids = [265, 266]
    for token in range(267, 277):
        found = source.logits(ids)
        with torch.no_grad():
            torch.testing.assert_close(found, model(torch.tensor([ids])).logits[0, -1], atol=1e-3, rtol=1e-3)
        ids.append(token)
    # Room for 4, 8 and 16: the token that needs more is read in the other way, the ones after it by new work.
    assert len(times) == 3


def test_sampled_answers_are_the_same_both_ways(base: Callable[[Settings], Any]) -> None:
    from tests.engine.worker.test_adapters import Numbers

    model: Any = lively(base(settings()))
    sampling = generate.Sampling(temperature=1.0, top_p=0.9, max_tokens=24, seed=5)
    words: Any = Numbers()
    mine, theirs = (
        list(generate.stream(source, words, PROMPTS[0], sampling, {2}))
        for source in (decode.reader(model), decode.Plain(model))
    )
    assert mine == theirs and len(mine) > 5


def test_the_likeliest_tokens_are_drawn_as_from_a_sorted_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of 4,000 draws against transformers' own top-p."""
    from transformers import TopPLogitsWarper

    logits = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2
    expected = TopPLogitsWarper(0.8)(torch.tensor([[0]]), logits[None])[0].softmax(0)
    for likeliest in (30, 2):  # enough of them, and too few
        monkeypatch.setattr(generate, "LIKELIEST", likeliest)
        random = torch.Generator().manual_seed(2)
        sampling = generate.Sampling(temperature=1.0, top_p=0.8)
        drawn = torch.bincount(
            torch.tensor([generate._choose(logits, sampling, random) for _ in range(4000)]), minlength=40
        )
        assert not drawn[expected == 0].any()
        torch.testing.assert_close(drawn / 4000, expected, atol=0.03, rtol=0)


SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def test_what_kinds_are_known_and_which_are_left_to_transformers() -> None:
    def kind(model: Any) -> type:
        source = decode.reader(lively(model.eval()))
        assert greedy(source, [7, 8, 9, 10, 11]) == generated(model, [7, 8, 9, 10, 11])
        return type(source)

    torch.manual_seed(0)
    assert kind(Qwen2ForCausalLM(Qwen2Config(**SMALL))) is decode.Reader
    assert kind(Qwen3ForCausalLM(Qwen3Config(**SMALL))) is decode.Reader
    stretched = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e4}
    assert kind(LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=stretched))) is decode.Reader
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        GraniteConfig,
        GraniteForCausalLM,
        MistralConfig,
        MistralForCausalLM,
    )

    assert kind(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4))) is decode.Plain
    assert kind(Gemma2ForCausalLM(Gemma2Config(**SMALL, sliding_window=4))) is decode.Plain
    assert kind(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300))) is decode.Plain
    # Built alike, computed otherwise: only the trial tells.
    assert kind(GraniteForCausalLM(GraniteConfig(**SMALL, residual_multiplier=0.3))) is decode.Plain


def test_without_room_nothing_is_copied(base: Callable[[Settings], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = taught(lively(base(settings())), settings())
    expected = generated(made, PROMPTS[0])
    monkeypatch.setattr(products, "MEMORY_SHARE", 0.0)
    down = made.get_base_model().base_model.layers[0].mlp.down_proj
    assert products.Products(made, tuned=True, short=False).of(down) is down
    source = decode.reader(made, short=True)
    assert isinstance(source, decode.Reader)
    assert greedy(source, PROMPTS[0]) == expected


@pytest.mark.parametrize("tuned", [True, False])
def test_matrices_side_by_side_are_their_products(base: Callable[[Settings], Any], tuned: bool) -> None:
    """Merged or as they are, with a bias on one of them only, for one token and for several."""
    made = taught(lively(base(settings())), settings())
    attention = made.get_base_model().base_model.layers[0].self_attn
    some = [attention.q_proj, attention.k_proj, attention.v_proj]
    some[1].get_base_layer().bias = torch.nn.Parameter(torch.randn(some[1].get_base_layer().out_features))
    joined = products.Products(made, tuned, short=False).of(*some)
    for tokens in (1, 5):
        x = torch.randn(1, tokens, some[0].in_features, generator=torch.Generator().manual_seed(tokens))
        with torch.no_grad():
            wanted = torch.cat([one(x) if tuned else one.get_base_layer()(x) for one in some], -1)
            torch.testing.assert_close(joined(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not hardware.read().cpu_bf16, reason="this processor does not multiply bf16 itself")
@pytest.mark.parametrize("kind", ["lora", "dora", "bottleneck", "full"])
def test_in_16_bit_answers_are_as_likely(base: Callable[[Settings], Any], kind: str) -> None:
    """Next to the fp32 logits, for a prompt and for one token after it; and what is read in 16 bit is another computation."""
    chosen = settings(method="full") if kind == "full" else settings(**KINDS[kind][0])
    model = lively(base(chosen))
    made = build.trained(model, chosen).eval() if kind == "full" else taught(model, chosen)
    short, exact = decode.reader(made, short=True), decode.reader(made)
    for ids in ([*range(265, 285)], [*range(265, 286)]):
        one, other = (source.logits(ids).log_softmax(-1) for source in (short, exact))
        assert 0 < (one - other).abs().max() < 0.1
        assert float((other.exp() * (other - one)).sum()) < 1e-3  # Kullback-Leibler, in nats
    plain = products.Products(made, tuned=False, short=True).matrix(torch.ones(4, 8))
    assert plain(torch.ones(1, 1, 8)).tolist() == [[[8.0] * 4]]


def test_readers_are_made_between_questions_and_kept(
    recipe: Callable[..., Any], train: Callable[..., Any], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.data.convert import Message
    from engine.worker import answer
    from engine.worker.service import Ask
    from engine.worker.session import Session

    class Asker:
        gone, stopped = False, frozenset[int]()

        def __init__(self) -> None:
            self.said: list[dict[str, Any]] = []

        def send(self, message: dict[str, Any]) -> None:
            self.said.append(message)

    monkeypatch.setattr(decode, "short_pays", lambda model: False)  # answers are compared to the last token
    run = train(recipe("kept"))
    now = Session(run)
    now.model = build.for_chat(now.recipe, now.folder, run.result)
    asked = [Message("user", "Who are you?")]

    def answered(which: str) -> str:
        client: Any = Asker()
        question = Ask(id=1, messages=asked, which=which, temperature=0, max_tokens=12)
        answer.reply(now, client, question)
        assert client.said[-1].get("done"), client.said
        return "".join(message.get("text", "") for message in client.said)

    tuned, base = answered("tuned"), answered("base")
    assert tuned != base and not now.readers  # nobody waits for one to be made
    answer.ready(now)
    kept = dict(now.readers)
    assert set(kept) == {"tuned", "base"} and all(isinstance(one, decode.Reader) for one in kept.values())
    assert [answered(which) for which in ("tuned", "base")] == [tuned, base]
    answer.ready(now)
    assert now.readers == kept
