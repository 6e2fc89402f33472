"""What is shown is what is trained: pieces, both sides of a pair, tokens with their own text."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data import preview, tokenizer
from engine.data.convert import Example, Message
from engine.data.estimate import estimate

ASK = Message("user", "Köln 你?")
ROW = Example(1, [ASK, Message("assistant", "I am 鑫雨.")], None)
PAIR = Example(
    2,
    [Message("user", "a"), Message("assistant", "b", trained=False), ASK],
    None,
    [Message("assistant", "Yes.")],
    [Message("assistant", "No."), Message("user", "Why?"), Message("assistant", "So.")],
)
PROMPT = Example(3, [Message("user", "a"), Message("assistant", "b", trained=False), ASK], None)


def bold(pieces: list[tuple[str, bool]]) -> list[str]:
    return [text for text, trained in pieces if trained]


def test_both_sides_of_a_pair(tiny_model: Path) -> None:
    for made in (tokenizer.load(tiny_model), estimate()):
        chosen, rejected = preview.sides(PAIR, made)
        assert (chosen[0], rejected[0]) == ("chosen", "rejected")
        assert bold(chosen[1]) == ["Yes.<|im_end|>\n"]
        assert bold(rejected[1]) == ["No.<|im_end|>\n", "So.<|im_end|>\n"]
        assert chosen[1][0] == rejected[1][0], "what they answer is the same, and the answer in it is not trained"
        assert "b<|im_end|>" in chosen[1][0][0]
        assert preview.pieces(PAIR, made) == chosen[1]
        assert preview.sides(ROW, made) == [("", preview.pieces(ROW, made))]


def test_prompts_end_where_the_answer_begins(tiny_model: Path) -> None:
    made = tokenizer.load(tiny_model)
    assert preview.pieces(PROMPT, made) == [(made.decode(made.prompt(PROMPT.messages or [])), False)]
    assert preview.pieces(PROMPT, estimate()) == preview.pieces(PROMPT, made)
    tokens = made.tokenize(PROMPT)
    assert tokens.input_ids == made.prompt(PROMPT.messages or []) and set(tokens.labels) == {-100}
    assert made.measure([made.render(PROMPT)])[0].trained == []


def test_tokens_have_their_own_text_and_half_characters_their_bytes(tiny_model: Path) -> None:
    made = tokenizer.load(tiny_model)
    rendered = made.render(ROW)
    tokens = preview.tokens(ROW, made)
    whole = b"".join(
        text.encode() if "\\x" not in text else bytes.fromhex(text.replace("\\x", "")) for text, _, _ in tokens
    )
    assert whole.decode() == rendered.text
    assert len(tokens) == len(made.tokenize(ROW).input_ids)
    assert [text for text, _, special in tokens if special] == ["<|im_start|>", "<|im_end|>"] * 2
    assert any(text.startswith("\\xe9") for text, _, _ in tokens), "鑫 is not whole in so small a vocabulary"
    labels = made.tokenize(ROW).labels
    assert [trained for _, trained, _ in tokens] == [label != -100 for label in labels]


def test_control_tokens_of_a_row_are_no_control_tokens(tiny_model: Path) -> None:
    made = tokenizer.load(tiny_model)
    row = Example(1, [Message("user", "a<|im_end|>"), Message("assistant", "b")], None)
    tokens = preview.tokens(row, made)
    assert [special for text, _, special in tokens if text == "<|im_end|>"] == [True, True]
    assert "".join(text for text, _, _ in tokens) == made.render(row).text


def test_tokens_of_both_sides(tiny_model: Path) -> None:
    made = tokenizer.load(tiny_model)
    sides = preview.token_sides(PAIR, made)
    assert [title for title, _ in sides] == ["chosen", "rejected"] and sides[0][1] == preview.tokens(PAIR, made)
    assert "".join(text for text, trained, _ in sides[1][1] if trained) == "No.<|im_end|>\nSo.<|im_end|>\n"


def test_an_estimate_has_no_boundaries_to_show() -> None:
    assert [(text, trained) for text, trained, _ in preview.tokens(ROW, estimate())] == preview.pieces(ROW, estimate())


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_tokens_of_other_vocabularies(tmp_path: Path, kind: str) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    table = {"<unk>": 0, "</s>": 1, "▁": 2, "▁Hi": 3, "H": 4, "i": 5, "▁H": 6}
    table |= {f"<0x{byte:02X}>": 7 + byte for byte in range(256)}
    backend = Backend(models.BPE(table, [("▁", "H"), ("▁H", "i")], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    made = tokenizer.load(tmp_path)
    text = "Hi Hi" if kind == "sentencepiece" else "é"
    expected = [" Hi", " Hi"] if kind == "sentencepiece" else [" ", "\\xc3", "\\xa9"]
    assert preview.tokens(Example(1, None, text), made) == [
        *((one, True, False) for one in expected),
        ("</s>", True, True),
    ]
