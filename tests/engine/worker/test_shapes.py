"""Models that fill in words or write another text: what they are, what they take, and what is refused for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from engine.advice.kinds import Facts
from engine.advice.plan import advise
from engine.errors import FtuiError
from engine.hardware import Hardware
from engine.models import facts, support
from engine.recipe import Stage
from tests.engine.settings import settings
from tests.engine.worker.gapped_models import SENTINELS, Make, prepared


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


def test_the_plan_says_what_is_learned(bert: Path, t5: Path) -> None:
    for model, words in ((bert, "words masked and found (BERT)"), (t5, "spans left out, written (T5)")):
        known = Facts(
            model=facts.read(model),
            hardware=Hardware(cpu="processor", cores=2, memory_total=8 << 30, memory_free=8 << 30),
            rows=300,
            p50=20,
            p95=30,
            p99=40,
            max=90,
            intent="text",
            stage="pretraining",
        )
        plan = advise(known, edits={"max_length": 32})
        assert words in plan.stage.reason and plan.stage.source == "tuning primer" and not plan.refusals
        assert not any("cut" in warning for warning in plan.warnings), "long texts are divided"
        assert not plan.settings.unpadded
        refused = advise(known, edits={"method": "prompt"}).refusals
        assert any(reason.startswith("prompt does not work here with a model that") for reason in refused)
