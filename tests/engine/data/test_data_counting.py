"""The quick way counts what the long way counts, or is not taken."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import paths
from engine.data import chat_template, counting, dataset, skeleton, tokenizer
from engine.data.convert import Example, Message
from engine.data.dataset import Dataset
from engine.data.skeleton import Refused, Skeletons
from engine.errors import FtuiError
from engine.recipe import Data
from tests.engine.data.counted_rows import PICKY, TEXTS, both, conversations, same, with_template


@pytest.mark.parametrize("template", ["own", None, PICKY], ids=["chatml", "none", "picky"])
def test_the_quick_way_gives_the_same_tokens(
    tiny_model: Path,
    tmp_path: Path,
    template: str | None,
    read: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tokenizer.load(tiny_model if template == "own" else with_template(tiny_model, tmp_path / "m", template))
    data = read(conversations(400))
    quick, long = both(data, made, monkeypatch)
    assert quick.counter.startswith("tokie, checked on ") and int(quick.counter.split()[3]) > 10
    same(quick, long)
    for at in range(0, 400, 9):
        tokens = made.tokenize(data.examples[at])
        ids, spans = quick.row(at)
        trained = {place for span in spans for place in range(*span)}
        assert ids.tolist() == tokens.input_ids
        assert trained == {place for place, label in enumerate(tokens.labels) if label != -100}


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": text * (1 + at % 3)} for at, text in enumerate(TEXTS * 8)],
        [{"prompt": [{"role": "user", "content": f"{at} {text}"}]} for at, text in enumerate(TEXTS * 8)],
        [
            {"prompt": f"{at}?", "chosen": text * (at % 4 + 1), "rejected": "no " + text}
            for at, text in enumerate(TEXTS * 8)
        ],
        [{"prompt": f"{at}?", "completion": text, "label": at % 2 == 0} for at, text in enumerate(TEXTS * 8)],
    ],
    ids=["text", "prompts", "pairs", "rated"],
)
def test_rows_of_every_stage(
    tiny_model: Path, rows: list[dict[str, Any]], read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenizer.load(tiny_model)
    data = read(rows)
    quick, long = both(data, made, monkeypatch)
    assert quick.counter.startswith("tokie, checked on ")
    same(quick, long)
    if data.stage == "dpo":
        example, at = data.examples[5], 5
        sides = made.measure(made.render_pair(example))
        assert quick.total[at] == max(side.total for side in sides) and quick.kept is None
        assert quick.trained == sum(
            stop - start
            for one in data.examples
            for m in made.measure(made.render_pair(one))
            for start, stop in m.trained
        )
    if data.stage == "grpo":
        assert quick.trained == 0 and not quick.endless and quick.at(1).untrained == 0


class Faulty:
    """tokie with a fault in every row that holds a word, or an end with an error."""

    def __init__(self, real: Any, word: str, error: BaseException | None = None) -> None:
        self.vocab_size = real.vocab_size
        self._real, self._word, self._error = real, word, error

    def encode_batch_flat(self, texts: list[str], add_special_tokens: bool = True) -> Any:
        if self._error is not None and any(self._word in text for text in texts):
            raise self._error
        ids, counts = self._real.encode_batch_flat(texts, add_special_tokens=add_special_tokens)
        ids = ids.copy()
        for at, text in enumerate(texts):
            if self._error is None and self._word in text:
                ids[int(counts[: at + 1].sum()) - 1] ^= 1
        return ids, counts


def test_one_token_of_difference_and_the_other_way_is_taken(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = counting._load
    monkeypatch.setattr(counting, "_load", lambda made: Faulty(real(made), "Paris"))
    rows = conversations(300, texts=["Hello", "quick fox"])
    rows[4]["messages"] = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Paris."}]
    quick, long = both(read(rows), tokenizer.load(tiny_model), monkeypatch)
    assert quick.counter == "tokenizers (tokie takes row 5 otherwise)"
    same(quick, long)


class PanicException(BaseException):
    """What pyo3 raises when Rust panics has this name, and is no Exception."""


@pytest.mark.parametrize("error", [ValueError("no such thing"), PanicException("index out of range")])
def test_an_error_in_the_middle_loses_no_row(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    real = counting._load
    monkeypatch.setattr(counting, "_load", lambda made: Faulty(real(made), "Paris", error))
    monkeypatch.setattr(counting, "LEAST", 8)
    rows = conversations(300, texts=["Hello", "quick fox"])
    rows[201]["messages"] = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Paris."}]
    quick, long = both(read(rows), tokenizer.load(tiny_model), monkeypatch)
    assert quick.counter == f"tokenizers (tokie: {error})"
    same(quick, long)


def test_a_tokenizer_that_tokie_cannot_read_is_no_harm(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokie

    def refuse(_: Any) -> Any:
        raise tokie.TokieError("unsupported model")

    monkeypatch.setattr(counting, "_load", refuse)
    quick, long = both(read(conversations(50)), tokenizer.load(tiny_model), monkeypatch)
    assert quick.counter == "tokenizers (tokie: unsupported model)"
    same(quick, long)


def test_a_broken_copy_of_a_tokenizer_is_made_anew(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, made = read(conversations(50)), tokenizer.load(tiny_model)
    both(data, made, monkeypatch)
    (copy,) = (paths.cache_dir() / "tokie").iterdir()
    whole = copy.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.write_bytes(b"nothing of the kind")
    quick, _ = both(data, tokenizer.load(tiny_model), monkeypatch)
    assert quick.counter.startswith("tokie") and copy.read_bytes() == whole


def test_texts_are_not_cut_where_tokens_would_reach_over(
    tiny_model: Path, tmp_path: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SentencePiece tokenizer puts a space before every text, so the parts of a row are not its tokens."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    folder = with_template(
        tiny_model,
        tmp_path / "m",
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
    )
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special[:3], show_progress=False)
    backend.train_from_iterator(["the quick brown fox jumps over [INST] the dog [/INST] it is so"] * 9, trainer)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    quick, long = both(read(conversations(200, texts=["the fox", "so"])), tokenizer.load(folder), monkeypatch)
    assert "tokenizers" in quick.counter or quick.counter.startswith("tokie, checked on 0 rows")
    same(quick, long)


# How Llama 3 and others cut words. tokie 0.1.4 takes some rare things in another way than this says.
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
RARE = [
    *(
        "a\t'the quick'",
        "so\n  \nbrown",
        " Ⅷ fox",
        "fox\x14!",
        "jump\x0b over",
        "\U000f0001 dog",
        "b \x0c",
        "\r \r\nlazy",
    ),
    *(
        "\t\t's",
        "  \n\n's",
        "Who\u2028 are",
        "e\u0301\u200d",
        "👩\u200d🚀",
        "ไทย हिन्दी",
        "½ ² ①",
        "what  \u3000 is",
        "\ufeffyou",
    ),
]


@pytest.mark.parametrize(
    ("pattern", "used"), [(None, True), (LLAMA, True), (r"\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+|\s+", False)]
)
def test_what_tokie_takes_in_another_way_is_left_to_the_tokenizer(
    tiny_model: Path,
    tmp_path: Path,
    read: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
    pattern: str | None,
    used: bool,
) -> None:
    folder = with_template(tiny_model, tmp_path / "m", (tiny_model / "chat_template.jinja").read_text())
    if pattern is not None:
        file = folder / "tokenizer.json"
        vocabulary = json.loads(file.read_text())
        cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        vocabulary["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, bytes_]}
        file.write_text(json.dumps(vocabulary))
    rows = conversations(400, texts=[*TEXTS, *RARE])
    # None of the rare ones is among the rows that are checked.
    monkeypatch.setattr(counting, "_sample", lambda examples: range(20))
    rows[:20] = conversations(20, seed=7, texts=["Hello", "quick fox"])
    quick, long = both(read(rows), tokenizer.load(folder), monkeypatch)
    assert quick.counter.startswith("tokie, checked on " if used else "tokenizers (tokie: cuts words in another way)")
    same(quick, long)


def templates() -> list[Path]:
    found = importlib.util.find_spec("trl")
    return sorted(Path(found.origin).parent.glob("chat_templates/*.jinja")) if found and found.origin else []


@pytest.mark.parametrize("path", templates(), ids=lambda path: path.stem)
def test_real_templates_are_filled_in_as_they_are_rendered(tiny_model: Path, path: Path) -> None:
    made = tokenizer.load(tiny_model)
    source = path.read_text()
    try:
        template = chat_template.ChatTemplate(source, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    except FtuiError:
        pytest.skip("it does not compile here")
    made._template = template
    refused = Refused((word[0], re.escape(word)) for word in made.refused)
    skeletons = Skeletons(lambda example: [made.render(example)], refused, lambda one: True)
    chance = random.Random(path.stem)
    filled = 0
    for row in conversations(150, seed=chance.randrange(999)):
        turns = [Message(turn["role"], turn["content"]) for turn in row["messages"]]
        if chance.random() < 0.1:
            turns.append(Message("user", chance.choice(TEXTS)))
        sides = skeletons.fill(Example(1, turns, None))
        if sides is None:
            continue
        filled += 1
        rendered = made.render(Example(1, turns, None))
        ((one, pieces),) = sides
        assert skeleton._same(rendered, pieces, one), (turns, pieces, rendered)
    images = "image" in source and "is string" not in source
    assert filled > 5 or images, "a template for text that no row could be filled into"


REAL = ["alpaca_en_demo.json", "c4_demo.jsonl", "dpo_en_demo.json", "glaive_toolcall_en_demo.json", "identity.json"]
REAL += ["kto_en_demo.json", "wiki_demo.txt"]


@pytest.mark.parametrize("name", REAL)
def test_real_rows_are_counted_as_the_tokenizer_counts_them(
    shared_data: Path, tiny_model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset.load(Data(source=str(shared_data / name)), strict=False)
    quick, long = both(data, tokenizer.load(tiny_model), monkeypatch)
    assert quick.counter.startswith("tokie, checked on ")
    same(quick, long)
