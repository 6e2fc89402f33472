"""A tokenizer as GGUF has it, and the proof that llama.cpp will cut texts as the run's tokenizer does.

llama.cpp keeps no tokenizer.json. It knows two kinds that matter here: byte-level BPE ("gpt2"), where the file names one of
the ways to split a text before merging (`tokenizer.ggml.pre`), and SentencePiece ("llama"), where pieces have scores.
Which `pre` is right is found by behaviour: the known ones are tried until one splits the test texts as the tokenizer
does. `check` then builds a tokenizer from nothing but the values that go into the file and compares token ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from gguf import TokenType
from msgspec import Struct
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.tokenization_utils_base import generate_merges

from engine.errors import Exit, FtuiError

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?" + _UPPER + "*" + _LOWER + "+{end}" + r"|[^\r\n\p{L}\p{N}]?" + _UPPER + "+" + _LOWER + "*{end}"
)
_TEKKEN = _CASED.replace("{end}", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_GPT4O = _CASED.replace("{end}", _CONTRACTIONS + "?") + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"

# llama.cpp's name -> the patterns it splits by, one after the other, and whether it takes a word that is a token whole.
PRE: dict[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": ((_GPT2,), False),
    "smollm": ((r"\p{N}", _GPT2), False),
    "qwen2": ((_QWEN2,), False),
    "dbrx": ((_LLAMA3,), False),
    "llama-bpe": ((_LLAMA3,), True),
    "gpt-4o": ((_GPT4O,), False),
    "tekken": ((_TEKKEN,), True),
}
# What the ways to split disagree on: digits, contractions in both cases, runs of spaces, line ends, marks, other scripts.
TEXTS = (
    "Hello, I'm here. We'LL see; they'd say: DON'T!  Two  spaces,\ttabs\t\tand\n\nlines \n  with   indents\r\nend   ",
    "1 12 123 1234567 3.14 1,000 x2y3 ٣٤ ²½ 2026-11-22",
    "你好，我是丛雨。 こんにちは世界 привет мир שלום नमस्ते café naïve e\u0301",
    'def f(x):\n    return x ** 2  # "quoted" <tag/> http://a.b/c?d=e&f//\n\n\n\t}{][ $%^&*()_+ ...!!!??',
    "camelCaseWord HTTPServer iPhone XMLHttp ABCdef 🙂🙂 — … “x” ‘y’ can't Can'T ?\n/!\n.\r\n",
)


class Vocabulary(Struct, frozen=True, kw_only=True):
    """The values of the keys under `tokenizer.ggml`; tokens, types and scores have one entry for each id."""

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    bos: int | None
    eos: int | None
    unk: int | None
    pad: int | None
    eot: int | None
    add_bos: bool
    add_eos: bool
    space_prefix: bool


def read(tokenizer: Any, size: int, chat: str | None, ends: Sequence[int]) -> Vocabulary:
    """The vocabulary of a fast tokenizer of transformers, for a model with `size` rows of embeddings.

    chat  a conversation as the chat template writes it: where that begins without BOS, training saw none
    ends  ids that end an answer
    Raises FtuiError(EXPORT_FAILED) with the reason where GGUF or llama.cpp has no way to say it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _cannot("its tokenizer has no tokenizer.json")
    whole = json.loads(backend.to_str())
    model = whole["model"]
    if model["type"] != "BPE":
        raise _cannot(f"its tokenizer is a {model['type']} one, and only BPE and SentencePiece-BPE are written")
    added = {token["id"]: token for token in whole["added_tokens"]}
    pieces = {number: token for token, number in model["vocab"].items()}
    if max([*pieces, *added], default=0) >= size:
        raise _cannot(f"its tokenizer has more tokens than the model's {size} embeddings")
    tokens, types = [], []
    for number in range(size):
        if number in added:
            tokens.append(added[number]["content"])
            types.append(TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED)
        elif number in pieces:
            tokens.append(pieces[number])
            types.append(TokenType.NORMAL)
        else:  # rows that only fill the matrix up
            tokens.append(f"[PAD{number}]")
            types.append(TokenType.UNUSED)
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    plain = tokenizer("a")["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    add_bos = bos is not None and plain[:1] == [bos] and (chat is None or chat.startswith(tokenizer.bos_token))
    common: dict[str, Any] = {
        "tokens": tokens,
        "types": [int(kind) for kind in types],
        "bos": bos,
        "eos": eos,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
        "eot": next((end for end in ends if end != eos), None),
        "add_bos": add_bos,
        "add_eos": eos is not None and plain[-1:] == [eos],
    }
    if model.get("byte_fallback"):
        return _sentencepiece(backend, merges, common)
    return _byte_level(backend, model, merges, common)


def _byte_level(
    backend: Tokenizer, model: dict[str, Any], merges: list[list[str]], common: dict[str, Any]
) -> Vocabulary:
    if any(" " in part for pair in merges for part in pair):
        raise _cannot("its merges hold spaces, which GGUF cannot write")
    whole_words = bool(model.get("ignore_merges"))
    for name, (patterns, whole) in PRE.items():
        if whole == whole_words and _splits(backend.pre_tokenizer) == _splits(_pre_tokenizer(patterns)):
            joined = [" ".join(pair) for pair in merges]
            return Vocabulary(model="gpt2", pre=name, merges=joined, scores=[], space_prefix=False, **common)
    raise _cannot(f"its tokenizer splits text in a way that is none of those known here ({', '.join(PRE)})")


def _sentencepiece(backend: Tokenizer, merges: list[list[str]], common: dict[str, Any]) -> Vocabulary:
    """Scores from the order of the merges: llama.cpp joins the pair whose joined piece scores highest."""
    best: dict[str, float] = {}
    for rank, pair in enumerate(merges):
        best.setdefault("".join(pair), -float(rank))
    tokens, types = common["tokens"], common["types"]
    lowest = -float(len(merges))
    scores = [best.get(token, lowest - number) for number, token in enumerate(tokens)]
    for number, token in enumerate(tokens):
        if types[number] != TokenType.NORMAL:
            scores[number] = 0.0
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[number] = int(TokenType.BYTE)
    if common["unk"] is not None:
        types[common["unk"]] = int(TokenType.UNKNOWN)
    prefix = backend.encode("a", add_special_tokens=False).tokens[0].startswith("▁")
    return Vocabulary(model="llama", pre="default", merges=[], scores=scores, space_prefix=prefix, **common)


def _pre_tokenizer(patterns: Sequence[str]) -> Any:
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _splits(splitter: Any) -> list[list[str]]:
    """Where each of the test texts is split; [] for none."""
    return [[piece for piece, _ in splitter.pre_tokenize_str(text)] for text in TEXTS] if splitter else []


def as_read(vocabulary: Vocabulary) -> Tokenizer:
    """A tokenizer that does with the file's values what llama.cpp does with them."""
    ids: dict[str, int] = {}
    for number, token in enumerate(vocabulary.tokens):
        ids.setdefault(token, number)
    if vocabulary.model == "gpt2":
        patterns, whole = PRE[vocabulary.pre]
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in vocabulary.merges)]
        built = Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=whole))
        built.pre_tokenizer = _pre_tokenizer(patterns)
        built.decoder = decoders.ByteLevel()
    else:
        scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
        unknown = vocabulary.tokens[vocabulary.unk] if vocabulary.unk is not None else None
        pairs = generate_merges(ids, scores)
        built = Tokenizer(models.BPE(vocab=ids, merges=pairs, unk_token=unknown, byte_fallback=True, fuse_unk=True))
        steps: list[Any] = [normalizers.Prepend("▁")] if vocabulary.space_prefix else []
        built.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    for number, kind in enumerate(vocabulary.types):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            added = AddedToken(vocabulary.tokens[number], normalized=False, special=kind == TokenType.CONTROL)
            built.add_special_tokens([added]) if kind == TokenType.CONTROL else built.add_tokens([added])
    return built


def check(vocabulary: Vocabulary, tokenizer: Any, texts: Sequence[str]) -> None:
    """FtuiError(EXPORT_FAILED) unless the file's vocabulary cuts the test texts and `texts` as `tokenizer` does."""
    read_back = as_read(vocabulary)
    for text in (*TEXTS, *texts):
        # Byte-level tokenizers normalise to NFC or not at all, llama.cpp never: texts that are NFC are the same to both.
        if (normal := tokenizer.backend_tokenizer.normalizer) is not None and vocabulary.model == "gpt2":
            text = normal.normalize_str(text)
        wanted = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if read_back.encode(text, add_special_tokens=False).ids != wanted:
            raise _cannot("llama.cpp would cut texts into other tokens than the run's tokenizer", repr(text[:60]))


def _cannot(reason: str, where: str = "") -> FtuiError:
    return FtuiError(Exit.EXPORT_FAILED, f"no GGUF of this model: {reason}", where, "export it merged instead")
