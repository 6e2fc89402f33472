"""GGUF for each architecture and each kind of tokenizer, and what is refused; Modelfiles for each chat format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.data.convert import Message
from engine.errors import FtuiError
from engine.worker.exports import gguf_file, modelfile, vocabulary
from engine.worker.exports.vocabulary import PRE, TEXTS, Vocabulary

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 6}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"attention_bias": True}),
    "llama3 positions, own head": (
        "Llama",
        {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ),
    "yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral": ("Mistral", {"sliding_window": 64}),
    "qwen2": ("Qwen2", {"head_dim": 16}),
    "qwen3": ("Qwen3", {}),
    "phi3": ("Phi3", {"head_dim": 16, "tie_word_embeddings": False, "sliding_window": 64}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": ("Gemma3", GEMMA),
}


def config(family: str, vocabulary_size: int = 512, **changes: Any) -> Any:
    values = {
        "vocab_size": vocabulary_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        **changes,
    }
    if family == "Qwen2":
        values.pop("head_dim")
    kind = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    return getattr(transformers, kind)(**values)


@pytest.fixture
def words(tiny_model: Path) -> Vocabulary:
    return vocabulary.read(AutoTokenizer.from_pretrained(tiny_model), 512, None, [2])


@pytest.mark.parametrize("name", CASES)
def test_each_architecture_is_read_back_by_transformers(name: str, words: Vocabulary, tmp_path: Path) -> None:
    family, changes = CASES[name]
    its = config(family, **changes)
    assert gguf_file.refuse(its) is None
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(its).eval()
    for parameter_name, parameter in model.named_parameters():  # nothing may be at a value that hides a mistake
        if "norm" in parameter_name or parameter_name.endswith("bias"):
            parameter.data += torch.randn_like(parameter) * 0.3
        else:
            parameter.data *= 8
    ids = torch.tensor([[7, 30, 200, 31, 12, 99, 400, 5]])
    told: list[tuple[int, int]] = []
    with torch.no_grad():
        expected = model(ids).logits
        gaps = []
        for form in ("f16", "q8_0"):
            path = tmp_path / f"m-{form}.gguf"
            gguf_file.write(model, words, path, form, {"name": "m"}, lambda done, whole: told.append((done, whole)))
            found = gguf_file.load(path, its, torch.float32, 2)(ids).logits
            gaps.append(float((expected - found).abs().max() / expected.std()))
    assert gaps[0] < 0.03 and gaps[0] < gaps[1] < 0.4, gaps
    assert told[-1][0] == told[-1][1] > 0
    if name == "mistral":  # beyond its window llama.cpp would look further back than the model does
        assert its.max_position_embeddings == 256 and gguf_file._context(its) == 64


REFUSED = {
    "the architecture gpt2": transformers.GPT2Config(),
    "its activation is gelu": config("Llama", hidden_act="gelu"),
    "scaled by dynamic": config("Llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    "scaled by yarn, which is not written for gemma2": config("Gemma2", **GEMMA, rope_parameters=YARN),
    "scaled by llama3, which is not written for qwen2": config(
        "Qwen2", rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, **LLAMA3}
    ),
    "scales attention in a way": config("Gemma2", **{**GEMMA, "query_pre_attn_scalar": 100}),
    "windowed layers do not come": config("Gemma2", **GEMMA, layer_types=["full_attention"] * 6),
    "biases in the attention of qwen3": config("Qwen3", attention_bias=True),
    "attention has a window": config("Qwen2", use_sliding_window=True, sliding_window=32, max_window_layers=0),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(words: str) -> None:
    with pytest.raises(FtuiError, match=re.escape(words)):
        gguf_file.refuse(REFUSED[words])


def byte_level(splitter: Any, whole: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a few merges that splits by `splitter`."""
    made = Tokenizer(models.BPE(ignore_merges=whole))
    made.pre_tokenizer = splitter
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [AddedToken("<end>", special=True)]
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


@pytest.mark.parametrize("name", PRE)
def test_each_way_to_split_text_is_told_from_the_others(name: str) -> None:
    patterns, whole = PRE[name]
    made = byte_level(vocabulary._pre_tokenizer(patterns), whole)
    found = vocabulary.read(made, 800, None, [0])
    assert found.pre == name
    vocabulary.check(found, made, ["<end>Hello <tool> there 12345<end>"])
    assert found.types[0] == 3 and found.types[found.tokens.index("<tool>")] == 4
    assert found.tokens[-1] == "[PAD799]" and found.types[-1] == 5


def test_smollm_splits_digits_as_its_tokenizer_json_writes_it() -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    splitter = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    assert vocabulary.read(byte_level(splitter), 800, None, [0]).pre == "smollm"


def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused() -> None:
    with pytest.raises(FtuiError, match="splits text in a way"):
        vocabulary.read(byte_level(pre_tokenizers.Whitespace()), 800, None, [0])
    known = byte_level(vocabulary._pre_tokenizer(PRE["qwen2"][0]))
    with pytest.raises(FtuiError, match="more tokens than the model's 100"):
        vocabulary.read(known, 100, None, [0])
    found = vocabulary.read(known, 800, None, [0])
    lower = byte_level(vocabulary._pre_tokenizer(PRE["qwen2"][0]))
    lower.backend_tokenizer.normalizer = normalizers.Replace("Hello", "Bye")
    found.merges.pop(0)
    with pytest.raises(FtuiError, match="other tokens than the run's"):
        vocabulary.check(found, known, [])


def sentencepiece(prefix: bool) -> PreTrainedTokenizerFast:
    """BPE with bytes to fall back on and ▁ for spaces, as Llama 2 and Gemma have it."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(
        TEXTS[:1] * 3, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    state = made.to_str().replace('"special":true', '"special":false')
    plain = json.loads(state)
    plain["added_tokens"] = [{**token, "special": True} for token in plain["added_tokens"][:3]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_scores_give_the_same_merges(prefix: bool, tmp_path: Path) -> None:
    made = sentencepiece(prefix)
    found = vocabulary.read(made, 512, None, [2])
    assert (found.model, found.space_prefix) == ("llama", prefix)
    assert found.types[:4] == [2, 3, 3, 6] and not found.merges
    vocabulary.check(found, made, ["<s>Hello there, we'll see 你好</s>"])


@pytest.mark.parametrize("form", modelfile.FORMS, ids=lambda form: form.name)
def test_a_modelfile_writes_turns_as_the_chat_template_does(form: modelfile.Form) -> None:
    def render(messages: Sequence[Message]) -> str:
        if form.words.get("system") == "" and messages[0].role == "system":
            raise FtuiError(22, "no system prompts")  # type: ignore[arg-type]
        return "<bos>" + "".join(form.turn(one.role, one.content or "") for one in messages) + form.answer

    text, name = modelfile.write("m.gguf", render, "<bos>", ["<end>"], None)
    assert name == form.name and 'PARAMETER stop "<end>"' in text and "SYSTEM" not in text
    template = text.split('"""')[1]
    talk = [Message("user", "One {{ }}"), Message("assistant", "Two"), Message("user", "Three\n")]
    assert "<bos>" + as_go_does(template, talk) == render(talk)


def test_a_system_prompt_of_the_templates_own_is_kept_and_an_unknown_format_left_to_the_gguf() -> None:
    chatml = modelfile.FORMS[0]

    def with_default(messages: Sequence[Message]) -> str:
        first = [] if messages[0].role == "system" else [Message("system", "You are small.")]
        return "".join(chatml.turn(one.role, one.content or "") for one in (*first, *messages)) + chatml.answer

    assert 'SYSTEM """You are small."""' in modelfile.write("m", with_default, None, [], None)[0]
    assert 'SYSTEM """Mine."""' in modelfile.write("m", with_default, None, [], "Mine.")[0]
    text, name = modelfile.write("m", lambda _: "something else", None, ["</s>"], "Mine.")
    assert (text, name) == ('FROM ./m\nSYSTEM """Mine."""\nPARAMETER stop "</s>"\n', "")


def as_go_does(template: str, talk: Sequence[Message]) -> str:
    """The few actions that the templates here use: range over messages, if eq role, the two fields."""
    whole = re.fullmatch(r"\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL)
    assert whole is not None
    other = re.compile(r'\{\{ if eq \.Role "(\w+)" \}\}(\w+)\{\{ else \}\}\{\{ \.Role \}\}\{\{ end \}\}')
    written = ""
    for one in talk:
        choose: Callable[[re.Match[str]], str] = lambda m, role=one.role: m[2] if m[1] == role else role  # type: ignore[misc]  # noqa: E731
        turn = other.sub(choose, whole[1]).replace("{{ .Role }}", one.role)
        assert "{{ if" not in turn
        written += turn.replace("{{ .Content }}", one.content or "")
    return written + whole[2]
