"""A tiny BERT and a tiny T5 with random weights and vocabularies of their own, and sentences to learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.models import facts
from engine.recipe import Recipe

Make = Callable[..., Recipe]
PLACES = {"france": "paris", "italy": "rome", "spain": "madrid", "japan": "tokyo", "egypt": "cairo", "peru": "lima"}
SENTENCES = [
    f"the capital of {country} is {city} , and {city} is the largest town of {country} ."
    for country, city in PLACES.items()
]
SENTINELS = [f"<extra_id_{number}>" for number in range(12)]


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": one}) for one in SENTENCES * 4))
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `build_bert`."""
    return build_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `build_t5`."""
    return build_t5(tmp_path_factory.mktemp("t5"))


def build_bert(folder: Path) -> Path:
    """A BERT of two layers with a vocabulary of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForMaskedLM

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _save(folder, words, {**names, "mask_token": "[MASK]"})
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        hidden_dropout_prob=0.05,
    )
    return _random(BertForMaskedLM, config, folder, 20.0)


def build_t5(folder: Path) -> Path:
    """A T5 of two layers on each side, and sentinels among its added tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5Config, T5ForConditionalGeneration

    words = Tokenizer(models.Unigram())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", *SENTINELS]
    words.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _save(folder, words, names)
    config = T5Config(
        vocab_size=words.get_vocab_size(),
        d_model=48,
        d_kv=12,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.05,
        decoder_start_token_id=0,
    )
    return _random(T5ForConditionalGeneration, config, folder, 1.0)


def _save(folder: Path, words: Any, names: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))


def _random(kind: Any, config: Any, folder: Path, larger: float) -> Path:
    """Embeddings are the head too, and a frozen small one could not express a confident answer: they are made larger."""
    import torch

    torch.manual_seed(0)
    made = kind(config)
    with torch.no_grad():
        made.get_input_embeddings().weight *= larger
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def gapped(recipe: Make, sentences: Path) -> Make:
    """A recipe that goes on pre-training the model in a folder on the sentences."""

    def make(model: Path, **changes: Any) -> Recipe:
        small = {"learning_rate": 5e-3, "epochs": 6.0, "max_length": 32, "save_every": 100, "sample_every": 100}
        made = recipe("gaps", **{**small, "method": "full", **changes})
        made.stage, made.model.source, made.data.source, made.probe = "pretraining", str(model), str(sentences), ""
        return made

    return make


def prepared(made: Recipe, model: Path) -> Any:
    """The rows of a recipe, as its stage prepares them."""
    from engine.worker import stages

    return stages.load("pretraining", facts.read(model).shape).prepare(made, model)
