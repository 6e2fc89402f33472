"""Pre-training by gaps, for real: a tiny BERT and a tiny T5 with random weights learn a few sentences, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from engine.data import dataset, tokenizer
from engine.errors import FtuiError
from engine.hardware import Hardware
from engine.models import facts, support
from engine.recipe import Recipe, Stage
from engine.runs import silence
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Exported, Sample
from tests.engine.settings import settings
from tests.engine.worker.conftest import bits, events, steps

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
    folder = _saved(tmp_path_factory, words, {**names, "mask_token": "[MASK]"})
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


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    folder = _saved(tmp_path_factory, words, names)
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


def _saved(places: pytest.TempPathFactory, words: Any, names: dict[str, str]) -> Path:
    folder = places.mktemp("model")
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return folder


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


LEARNED = 0.6  # of the loss on held-out texts before, at most; their gaps are the same each time


@pytest.mark.parametrize(
    ("model", "method", "rate", "epochs"),
    [
        ("bert", "full", 5e-3, 12.0),
        ("bert", "lora", 2e-2, 8.0),
        ("bert", "freeze", 1e-2, 8.0),
        ("t5", "full", 1e-2, 8.0),
        ("t5", "lora", 2e-2, 8.0),
    ],
)
def test_the_loss_falls(
    gapped: Make,
    train: Callable[..., RunDir],
    request: pytest.FixtureRequest,
    model: str,
    method: str,
    rate: float,
    epochs: float,
) -> None:
    made = gapped(request.getfixturevalue(model), method=method, learning_rate=rate, epochs=epochs, eval_fraction=0.25)
    run = train(made)
    losses = [e.loss for e in steps(run)]
    measured = [e.loss for e in events(run) if isinstance(e, Evaluated)]
    samples = [e for e in events(run) if isinstance(e, Sample)]
    assert measured[-1] < LEARNED * measured[0]
    assert sum(losses[-5:]) < sum(losses[:5])
    # What is shown is the same text each time; what the model makes of it changes.
    assert len({one.prompt for one in samples}) == 1 and samples[0].answer != samples[-1].answer
    assert ("[MASK]" if model == "bert" else "<extra_id_0>") in samples[0].prompt
    assert "[SEP]" not in samples[0].prompt and "</s>" not in samples[0].prompt


@pytest.mark.parametrize("model", ["bert", "t5"])
def test_it_goes_on_to_the_same_bits(
    gapped: Make,
    train: Callable[..., RunDir],
    request: pytest.FixtureRequest,
    model: str,
) -> None:
    """In the middle of the second epoch: 18 rows in micro-batches of 4, two to a step."""
    made = gapped(request.getfixturevalue(model), method="lora", epochs=2.0, accumulation=2, eval_fraction=0.25)
    undisturbed, run = train(made), train(made, stop=4)
    assert bits(train(made, run)) == bits(undisturbed)
    assert len(steps(undisturbed)) == 6
    both = [[e.loss for e in events(one) if isinstance(e, Evaluated)] for one in (undisturbed, run)]
    assert both[0][-1] == both[1][-1]


def test_every_token_left_out_weighs_the_same(gapped: Make, bert: Path, train: Callable[..., RunDir]) -> None:
    """In one micro-batch or in two: models of this kind ignore the number that transformers tells them."""
    small = {"epochs": 1.0, "learning_rate": 1e-3, "warmup": 0.0}
    whole = steps(train(gapped(bert, micro_batch=8, **small)))
    parts = steps(train(gapped(bert, micro_batch=4, accumulation=2, **small)))
    # Dropout is the model's own, and small; a loss that is summed twice would be twice as large.
    assert [e.loss for e in whole] == pytest.approx([e.loss for e in parts], rel=0.1)
    assert [e.grad_norm for e in whole] == pytest.approx([e.grad_norm for e in parts], rel=0.5)
    assert whole[-1].tokens == parts[-1].tokens


def prepared(made: Recipe, model: Path) -> Any:
    from engine.worker import stages

    return stages.load("pretraining", facts.read(model).shape).prepare(made, model)


def test_masks_are_berts(gapped: Make, bert: Path) -> None:
    rows = prepared(gapped(bert, eval_fraction=0.25), bert)
    own = tokenizer.load(bert)
    special = {own.encode(word)[0] for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    (mask,) = own.encode("[MASK]")
    found = {"mask": 0, "same": 0, "other": 0}
    for epoch in range(60):
        rows.train.epoch = epoch
        for at, text in enumerate(rows.train.texts):
            row = rows.train[at]
            left_out = [place for place, label in enumerate(row["labels"]) if label != -100]
            assert len(left_out) == round(0.15 * (len(text) - 2)) and row["input_ids"][0] == text[0]
            for place, (seen, true) in enumerate(zip(row["input_ids"], text.tolist(), strict=True)):
                if place not in left_out:
                    assert seen == true
                    continue
                assert row["labels"][place] == true and true not in special
                found["mask" if seen == mask else "same" if seen == true else "other"] += 1
                assert seen == mask or seen not in special
    every = sum(found.values())
    assert found["mask"] / every == pytest.approx(0.8, abs=0.03)
    assert found["same"] / every == pytest.approx(0.1, abs=0.03)  # one in a hundred of the others is the same by chance


def test_gaps_hang_on_seed_epoch_and_row_alone(gapped: Make, bert: Path, t5: Path) -> None:
    for model in (bert, t5):
        first, again, other = (
            prepared(gapped(model, eval_fraction=0.25, seed=seed), model).train for seed in (7, 7, 8)
        )
        rows = [first[at] for at in range(len(first))]
        assert [again[at] for at in reversed(range(len(again)))] == rows[::-1], "whatever was drawn before"
        assert [other[at] for at in range(len(other))] != rows
        first.epoch = 1
        later = [first[at] for at in range(len(first))]
        assert later != rows
        first.epoch = 0
        assert [first[at] for at in range(len(first))] == rows


def test_spans_are_t5s(gapped: Make, t5: Path) -> None:
    """What is read and what is to be written make the text again; about 15 % in spans of about three."""
    from engine.worker import build
    from engine.worker.stages.seq2seq import Spans

    words = build.tokenizer(t5)
    ends, marks = words.eos_token_id, words.convert_tokens_to_ids(SENTINELS)
    spans = Spans(words, [], [ends])
    draws = np.random.default_rng(0)
    ordinary = sorted(set(range(len(words))) - {*marks, *words.all_special_ids})
    for length in (2, 3, 7, 20, 100, 200):
        text = draws.choice(ordinary, length)
        row = spans(np.array([*text, ends]), draws)
        read, written = row["input_ids"], row["labels"]
        used = [one for one in read if one in marks]
        assert (
            read[-1] == written[-1] == ends and used == [one for one in written if one in marks] == marks[: len(used)]
        )
        hidden = {
            mark: written[written.index(mark) + 1 : stop]
            for mark, stop in zip(used, _stops(written, used), strict=True)
        }
        assert [one for part in read[:-1] for one in hidden.get(part, [part])] == text.tolist()
        left_out = sum(map(len, hidden.values()))
        assert left_out == min(max(round(0.15 * length), 1), length - 1)
        assert len(used) == min(max(round(left_out / 3), 1), len(marks))


def _stops(written: list[int], used: list[int]) -> list[int]:
    return [*(written.index(mark) for mark in used[1:]), len(written) - 1]


def test_a_text_keeps_what_stands_around_it(gapped: Make, bert: Path, t5: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    texts = ["the capital of peru is lima .", " ".join(SENTENCES), "the [MASK] of </s> is lima <extra_id_0> ."]
    path.write_text("\n".join(json.dumps({"text": one}) for one in texts))
    for model, opening, closing in ((bert, ["[CLS]"], ["[SEP]"]), (t5, [], ["</s>"])):
        made = gapped(model, max_length=16)
        made.data.source = str(path)
        own = tokenizer.load(model)
        rows = [own.measure([own.render(one)])[0] for one in dataset.load(made.data).examples]
        assert all(row.closed and row.end == 0 for row in rows), "no row loses its end"
        found = prepared(made, model).train
        assert [len(text) for text in found.texts][1] == 16
        for text, row in zip(found.texts, rows, strict=True):
            ids = text.tolist()
            names = {own.encode(word)[0] for word in (*opening, *closing)}
            assert ids[: len(opening)] == [own.encode(word)[0] for word in opening]
            assert ids[-1] == own.encode(closing[0])[0]
            assert not names.intersection(ids[len(opening) : -1])
            assert ids[:-1] == row.ids[: len(ids) - 1]


def test_what_a_model_of_each_shape_is(bert: Path, t5: Path, gapped: Make, tmp_path: Path) -> None:
    from engine.models import shape
    from engine.models.trainable import trainable
    from engine.worker import build

    masked, both = facts.read(bert), facts.read(t5)
    assert (masked.shape, masked.gaps, masked.layers, masked.context, masked.tied) == ("masked", 1, 2, 64, True)
    assert (both.shape, both.gaps, both.layers, both.context, both.heads) == ("seq2seq", len(SENTINELS), 4, 512, 4)
    roberta = {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "pad_token_id": 1}
    assert (shape.of(roberta), shape.context(roberta, 514)) == ("masked", 512)
    for model, known, beside in ((bert, masked, 2 * 48), (t5, both, 0)):
        for method in ("full", "lora", *(["freeze"] if model == bert else [])):
            made = gapped(model, method=method, trained_layers=1)
            total, trained = build.sizes(build.for_training(made, model))
            # peft's adapters sit on BERT's head, too, one matrix beside the layers'.
            extra = made.settings.rank * beside if method == "lora" else 0
            assert trained == trainable(known, made.settings) + extra
            assert total == known.parameters + (trained if method == "lora" else 0)


def test_other_stages_and_methods_are_refused(bert: Path, t5: Path) -> None:
    machine = Hardware(cpu="processor", cores=2)
    for model, kind in ((facts.read(bert), "fills in masked words"), (facts.read(t5), "is an encoder-decoder")):
        plain = settings(method="lora")
        assert support.reasons(model, plain, machine, "pretraining") == []
        for stage in get_args(Stage):
            if stage != "pretraining":
                (reason,) = support.reasons(model, plain, machine, stage)
                assert reason == (
                    f"{stage} needs a model that goes on with a text, and this one {kind}: take another model, or go on "
                    "pre-training it on bare text (stage pretraining)"
                )
        for method in ("ia3", "prompt", "prefix", "galore", *(["freeze"] if model.shape == "seq2seq" else [])):
            reason = support.reasons(model, settings(method=method), machine, "pretraining")[0]
            assert reason == f"{method} does not work here with a model that {kind}: take method lora or full"
        (reason,) = support.reasons(model, settings(neftune=5.0), machine, "pretraining")
        assert reason.startswith("neftune is made for tuning on answers") and reason.endswith(": turn it off")


def test_a_tokenizer_that_cannot_leave_anything_out_is_refused(bert: Path, t5: Path, tmp_path: Path) -> None:
    from engine.worker import build
    from engine.worker.stages.seq2seq import sentinels

    machine = Hardware(cpu="processor", cores=2)
    for model, words in ((bert, "no mask token"), (t5, "no sentinels (<extra_id_0>, …)")):
        folder = shutil.copytree(model, tmp_path / model.name / "copy")
        file = folder / "tokenizer.json"
        file.write_text(file.read_text().replace("[MASK]", "[HIDE]").replace("extra_id", "more"))
        (reason,) = support.reasons(facts.read(folder), settings(), machine, "pretraining")
        assert words in reason and reason.endswith(": take the tokenizer it was pre-trained with")
    with pytest.raises(FtuiError, match="no sentinels"):
        sentinels(build.tokenizer(folder))


@pytest.mark.parametrize(("model", "method"), [("bert", "lora"), ("t5", "full")])
def test_exports_answer_like_the_run(
    gapped: Make,
    train: Callable[..., RunDir],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    model: str,
    method: str,
) -> None:
    from engine.worker import export
    from engine.worker.session import Session

    run = train(gapped(request.getfixturevalue(model), method=method, epochs=1.0))
    for kind in ("adapter", "merged") if method == "lora" else ("merged",):
        export.run(Session(run), {"kind": kind, "to": str(tmp_path / kind)})
    found = [e for e in events(run) if isinstance(e, Exported)]
    assert all(one.difference < 1e-3 for one in found)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert ("AutoModelForMaskedLM" if model == "bert" else "AutoModelForSeq2SeqLM") in card
    assert "continued pre-training" in card
    with pytest.raises(FtuiError, match="no GGUF of this model"):
        export.run(Session(run), {"kind": "gguf", "to": str(tmp_path / "gguf")})


def test_it_answers_no_question(gapped: Make, bert: Path, tiny_model: Path) -> None:
    made = gapped(bert)
    assert silence.reason(made) == "a model that fills in what is left out of a text answers no question"
    made.model.source = str(tiny_model)
    assert silence.reason(made) == ""
    made.stage = "reward"
    assert silence.reason(made) == "a reward model gives scores, not answers"


@pytest.mark.parametrize("family", ["roberta", "distilbert", "modernbert", "mt5", "umt5"])
def test_families_are_counted_as_they_are_trained(
    gapped: Make, bert: Path, t5: Path, tmp_path: Path, family: str
) -> None:
    """Their parameters, and a gap that the loss can be taken of."""
    import torch
    from transformers import AutoConfig

    from engine.worker import build

    folder = shutil.copytree(t5 if "t5" in family else bert, tmp_path / family)
    (folder / "model.safetensors").unlink()
    known = {"vocab_size": 200, "pad_token_id": 0}
    if "t5" in family:
        known |= {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    elif family == "distilbert":
        known |= {"dim": 48, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
    else:
        known |= {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        known |= {"max_position_embeddings": 64, **dict.fromkeys(("cls_token_id", "bos_token_id"), 2)}
        known |= dict.fromkeys(("sep_token_id", "eos_token_id"), 3)
    config = AutoConfig.for_model(family, **known)
    # config.json names no class yet, which is how some of the older checkpoints are.
    build.kind(config).from_config(config).save_pretrained(folder)
    made = gapped(folder, method="full")
    found = facts.read(folder)
    assert found.shape == ("seq2seq" if "t5" in family else "masked")
    assert found.layers == (4 if "t5" in family else 2) and found.context == {"roberta": 63}.get(
        family, 512 if "t5" in family else 64
    )
    model = build.for_training(made, folder)
    assert build.sizes(model) == (found.parameters, found.parameters)
    row = prepared(made, folder).train[0]
    loss = model(**{name: torch.tensor([ids]) for name, ids in row.items()}).loss
    assert 2 < float(loss.detach()) < 60


@pytest.mark.parametrize(("kind", "parts"), [("bert", ""), ("t5", "relu"), ("t5", "gated-gelu")])
def test_what_a_layer_keeps_is_what_the_forecast_says(
    kind: str, parts: str, bert: Path, t5: Path, tmp_path: Path
) -> None:
    """On a processor in fp32, all weights learning, with the families' own dropout: bytes a token that torch keeps."""
    import torch
    from transformers import BertConfig, BertModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

    from engine.models import kept

    length = 96

    def held(layers: int) -> tuple[int, Any]:
        if kind == "bert":
            sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": layers}
            model: Any = BertModel(BertConfig(vocab_size=50, max_position_embeddings=length, **sizes), False)
        else:
            sizes = {"d_model": 64, "d_ff": 256, "num_heads": 4, "d_kv": 16, "num_layers": layers}
            model = T5EncoderModel(T5Config(vocab_size=50, feed_forward_proj=parts, is_encoder_decoder=False, **sizes))
        own, found = {one.data_ptr() for one in model.parameters()}, {}

        def keep(one: torch.Tensor) -> torch.Tensor:
            if one.data_ptr() not in own:
                found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
            return one

        mask = torch.ones(2, length, dtype=torch.long)
        mask[0, -9:] = 0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            output = model.train()(input_ids=torch.full((2, length), 7), attention_mask=mask)
            kept_here = sum(found.values())
        return kept_here, (model, output)

    (four, _), (two, (model, _)) = held(4), held(2)
    folder = shutil.copytree(bert if kind == "bert" else t5, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    if kind == "bert":
        from transformers import BertForMaskedLM

        BertForMaskedLM(model.config).save_pretrained(folder)
    else:
        T5ForConditionalGeneration(T5Config(**{**model.config.to_dict(), "is_encoder_decoder": True})).save_pretrained(
            folder
        )
    said = kept.layer(facts.read(folder), settings(method="full", micro_batch=2), length, "cpu")
    assert said == pytest.approx((four - two) / 2 / (2 * length), rel=0.03)
