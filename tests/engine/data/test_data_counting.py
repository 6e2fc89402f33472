"""The quick way counts what the long way counts, or is not taken; what was counted is kept as long as it is true."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import paths
from engine.data import chat_template, counting, dataset, length_cache, lengths, skeleton, tokenizer
from engine.data.convert import Example, Message
from engine.data.dataset import Dataset
from engine.data.distribution import Distribution
from engine.data.lengths import Lengths
from engine.data.skeleton import Refused, Skeletons
from engine.data.tokenizer import Tokenizer
from engine.errors import Exit, FtuiError
from engine.recipe import Data

TEXTS = [
    *(
        "Hello",
        "What is it?\n",
        "\nlate",
        " both ",
        "e",
        "<",
        "user",
        "{0} {x}",
        "你好，丛雨。",
        "line\n\nline",
        "\u3000wide",
        "é😀",
    ),
    *(
        "<think>\nhm\n</think>\n\nyes",
        "</think>no",
        "<tool_response>a</tool_response>",
        "<|im_end|>",
        "a<|im_start|>b",
        "</s>",
    ),
    *("[INST] x", "word " * 40, "\u200bzero", "Paris is the capital of France.", "0123456789", 'it\'s "so"', "\n"),
]
# Takes white space off, looks into texts, and refuses to begin with an answer, as real ones do.
PICKY = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' and loop.first %}{{ raise_exception('no') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{% if m.role == 'user' %}{{ m.content | trim }}"
    "{% elif '</think>' in m.content %}{{ m.content.split('</think>')[1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def conversations(count: int, seed: int = 0, texts: list[str] = TEXTS) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        turns = [{"role": "system", "content": chance.choice(texts)}] if chance.random() < 0.2 else []
        for _ in range(chance.choice([1, 1, 2, 3])):
            turns.append({"role": "user", "content": chance.choice(texts)})
            turns.append(
                {"role": "assistant", "content": "ok " + chance.choice(texts) + chance.choice(["", "", "\n", "."])}
            )
        rows.append({"messages": turns})
    return rows


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    def load(rows: list[dict[str, Any]]) -> Dataset:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        return dataset.load(Data(source=str(path), on_bad_row="skip"))

    return load


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(model / name, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def both(data: Dataset, made: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> tuple[Lengths, Lengths]:
    """Counted the quick way if it can be taken, and the long way."""
    counted = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr(counting, "WORTH", worth)
        shutil.rmtree(paths.cache_dir() / "lengths", ignore_errors=True)
        counted.append(lengths.count(data, made))
    quick, long = counted
    assert long.counter == "tokenizers"
    return quick, long


def same(one: Lengths, other: Lengths) -> None:
    for name in ("rows", "total", "completion", "prompt", "ends", "endless", "literal", "rewritten", "diverging"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.kept is None) == (other.kept is None)
    for at in range(len(one.rows) if one.kept is not None else 0):
        (ids, spans), (others, trained) = one.row(at), other.row(at)
        assert ids.tolist() == others.tolist() and spans == trained


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


# what is kept ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted_anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each data set that is counted and not taken from what is kept."""
    seen: list[int] = []
    real = counting.Counter.__init__

    def init(self: Any, *given: Any) -> None:
        seen.append(1)
        real(self, *given)

    monkeypatch.setattr(counting.Counter, "__init__", init)
    return seen


def test_what_was_counted_is_not_counted_again(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int]
) -> None:
    data, made = read(conversations(80)), tokenizer.load(tiny_model)
    first = lengths.count(data, made)
    seen: list[tuple[int, int]] = []
    again = lengths.count(data, tokenizer.load(tiny_model), lambda done, total: seen.append((done, total)))
    assert len(counted_anew) == 1 and seen == [(80, 80)] and again.counter == first.counter
    same(first, again)
    for file in (paths.cache_dir() / "lengths").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (paths.cache_dir() / "lengths").stat().st_mode & 0o777 == 0o700


def test_other_rows_another_template_another_day_are_counted(
    tiny_model: Path,
    tmp_path: Path,
    read: Callable[..., Dataset],
    counted_anew: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, made = read(conversations(20)), tokenizer.load(tiny_model)
    lengths.count(data, made)
    lengths.count(read(conversations(20, seed=1)), made)
    assert len(counted_anew) == 2
    other = tokenizer.load(with_template(tiny_model, tmp_path / "a", PICKY))
    assert lengths.count(data, other).total != lengths.count(data, made).total and len(counted_anew) == 3
    dated = tokenizer.load(with_template(tiny_model, tmp_path / "b", "{{ strftime_now('%d') }}" + PICKY))
    lengths.count(data, dated)
    lengths.count(data, dated)
    assert len(counted_anew) == 4

    class Tomorrow(length_cache.date):
        @classmethod
        def today(cls) -> Any:
            return cls(2100, 1, 1)

    monkeypatch.setattr(length_cache, "date", Tomorrow)
    lengths.count(data, dated)
    lengths.count(data, made)
    assert len(counted_anew) == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "no tokens", "short tokens"])
def test_what_is_kept_and_damaged_is_counted_again(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], damage: str
) -> None:
    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    first = lengths.count(data, made)
    (table,) = (paths.cache_dir() / "lengths").glob("*.npz")
    (tokens,) = table.parent.glob("*.tokens")
    if damage == "empty":
        table.write_bytes(b"")
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:700])
    elif damage == "other":
        np.savez(table, total=np.arange(30))
    elif damage == "no tokens":
        tokens.unlink()
    else:
        tokens.write_bytes(tokens.read_bytes()[:-2])
    same(first_again := lengths.count(data, made), lengths.count(data, made))
    assert len(counted_anew) == 2 and first_again.total == first.total


def test_a_full_disk_costs_what_would_be_kept_and_nothing_else(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    monkeypatch.setattr(np, "savez", full)
    counted = lengths.count(data, made)
    assert list(counted.total) == [len(made.tokenize(example).input_ids) for example in data.examples]
    assert counted.kept is None


def test_a_cache_folder_that_cannot_be_written_to_is_no_harm(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    data, made = read(conversations(30)), tokenizer.load(tiny_model)
    monkeypatch.setattr(length_cache, "_folder", refuse)
    counted = lengths.count(data, made)
    assert list(counted.total) == [len(made.tokenize(example).input_ids) for example in data.examples]


def test_two_that_count_the_same_rows_do_not_mix_their_tokens(
    tiny_model: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One counts the quick way and one the long way, so that their tokens stand in another order on disk."""
    data, made = read(conversations(60, texts=["Hello", " blank ", "<|im_end|>"])), tokenizer.load(tiny_model)
    name = length_cache.key(data, made)
    writers = [length_cache.Writer(name, 60, made.vocabulary) for _ in range(2)]
    tables = []
    for writer, worth in zip(writers, (0, 1 << 60), strict=True):
        monkeypatch.setattr(counting, "WORTH", worth)
        tables.append(
            lengths._counted(counting.Counter(made, data.examples), iter([list(data.examples)]), 60, None, writer.keep)
        )
    first = writers[0].finish(tables[0], "one")
    second = writers[1].finish(tables[1], "other")
    assert first.tokens is not None and second.tokens is not None and second.counter == "other"
    assert first.tokens.ids.tolist() != second.tokens.ids.tolist()
    same(*(Lengths(data.examples.rows, one.table, made, "", one.tokens) for one in (first, second)))
    assert len(list((paths.cache_dir() / "lengths").iterdir())) == 2


def test_many_tokens_are_not_kept_but_counted(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(length_cache, "TOKENS", 1000)
    data, made = read(conversations(60)), tokenizer.load(tiny_model)
    for _ in range(2):
        counted = lengths.count(data, made)
        assert counted.kept is None and sum(counted.total) > 1000
    assert len(counted_anew) == 1
    assert [file.suffix for file in (paths.cache_dir() / "lengths").iterdir()] == [".npz"]


def test_what_was_not_used_for_longest_goes_first(
    tiny_model: Path, read: Callable[..., Dataset], counted_anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenizer.load(tiny_model)
    folder = paths.cache_dir() / "lengths"
    sets = [read(conversations(40, seed=seed)) for seed in range(3)]
    for age, data in enumerate(sets[:2]):
        lengths.count(data, made)
        for file in folder.iterdir():
            if file.stat().st_mtime > 1000:
                os.utime(file, (500 + age, 500 + age))
    (folder / ".half").write_bytes(b"x")
    os.utime(folder / ".half", (1, 1))
    size = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr(length_cache, "TOTAL", size)
    lengths.count(sets[0], made)  # used again, so it is younger now
    lengths.count(sets[2], made)
    assert not (folder / ".half").exists()
    before = len(counted_anew)
    lengths.count(sets[0], made)
    lengths.count(sets[2], made)
    assert len(counted_anew) == before
    lengths.count(sets[1], made)
    assert len(counted_anew) == before + 1


def test_an_interrupted_count_leaves_nothing(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lengths.count(read(conversations(300)), tokenizer.load(tiny_model), stop)
    assert list((paths.cache_dir() / "lengths").iterdir()) == []


def test_a_row_that_the_template_refuses_is_named(
    tiny_model: Path, tmp_path: Path, read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "WORTH", 0)
    made = tokenizer.load(with_template(tiny_model, tmp_path / "m", PICKY))
    rows = conversations(300, texts=["Hello"])
    rows[250]["messages"] = [{"role": "assistant", "content": "Hi"}, *rows[0]["messages"][-2:]]
    with pytest.raises(FtuiError) as caught:
        lengths.count(read(rows), made)
    assert caught.value.code == Exit.MODEL_UNSUPPORTED and "row 251" in caught.value.where


# numbers --------------------------------------------------------------------------------------------------------------


def naive_bins(values: list[int], size: int) -> int:
    """Best fit, longest first, one by one."""
    rooms: list[int] = []
    bins = 0
    for value in sorted((min(value, size) for value in values), reverse=True):
        fitting = [room for room in rooms if room >= value]
        if fitting:
            room = min(fitting)
            rooms.remove(room)
        else:
            room, bins = size, bins + 1
        rooms.append(room - value)
    return bins


@pytest.mark.parametrize("size", [1, 7, 50, 64, 300])
def test_packing_is_best_fit(size: int) -> None:
    chance = random.Random(size)
    for _ in range(20):
        values = [min(chance.randrange(1, 90), chance.randrange(1, 400)) for _ in range(chance.randrange(1, 120))]
        assert Distribution(np.array(values)).bins(size) == naive_bins(values, size)


def test_packing_many_lengths_is_best_fit() -> None:
    chance = random.Random(3)
    values = [int(chance.lognormvariate(6, 1)) + 1 for _ in range(2000)]
    assert Distribution(np.array(values)).bins(2048) == naive_bins(values, 2048)


def test_what_packing_saves(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    counted = lengths.count(read(conversations(60)), tokenizer.load(tiny_model))
    cut = counted.at(200)
    padded = sum(min(total, 200) for total in counted.total) / (1 - cut.padding_fraction(8))
    bins = naive_bins(list(counted.total), 200)
    assert 0 < cut.packing(8) == pytest.approx(1 - bins * 200 / padded)
    assert counted.at(counted.max).packing(1) == 0, "single rows have no padding to save"


def test_prompt_and_completion_have_their_own_pictures(tiny_model: Path, read: Callable[..., Dataset]) -> None:
    counted = lengths.count(read(conversations(60)), tokenizer.load(tiny_model))
    for name in ("prompt", "completion"):
        values = sorted(getattr(counted, name))
        assert counted.percentile(50, of=name) == values[29] and counted.mean(name) == pytest.approx(sum(values) / 60)
        bins = counted.histogram(7, of=name)
        assert sum(count for _, _, count in bins) == 60 and bins[0][2] == sum(value < bins[0][1] for value in values)
    assert counted.mean() == pytest.approx(counted.mean("prompt") + counted.mean("completion"))


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
