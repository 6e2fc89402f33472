"""Pre-training by gaps, for real: a tiny BERT and a tiny T5 learn a few sentences, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from engine.cli import main
from engine.data import dataset, tokenizer
from engine.errors import Exit, FtuiError
from engine.runs import silence
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Exported, Sample
from engine.runs.measured import Asked
from tests.engine.worker.conftest import bits, evaluated, events, steps
from tests.engine.worker.gapped_models import SENTENCES, SENTINELS, Make, prepared

LEARNED = 0.7  # of the loss on held-out texts before; the gaps are the same each time. Six seeds came to 0.55 at most


@pytest.mark.parametrize(
    ("model", "method", "rate", "epochs"),
    [
        ("bert", "full", 5e-3, 12.0),
        ("bert", "lora", 5e-3, 16.0),
        ("bert", "freeze", 5e-3, 12.0),
        ("t5", "full", 5e-3, 12.0),
        ("t5", "lora", 1e-2, 12.0),
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
    made = gapped(
        request.getfixturevalue(model), method="lora", epochs=2.0, accumulation=2, eval_fraction=0.25, max_length=128
    )
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
        around = [own.encode(word)[0] for word in opening], [own.encode(word)[0] for word in closing]
        inner = []
        for text in found.texts:
            ids = text.tolist()
            assert ids[: len(opening)] == around[0] and ids[-1:] == around[1]
            inner.append(ids[len(opening) : -1])
            assert not {*around[0], *around[1]}.intersection(inner[-1])
        # What is longer is divided, and nothing of it is lost.
        assert max(map(len, found.texts)) == 16 and len(found.texts) > len(rows) == prepared(made, model).rows
        assert [*chain(*inner)] == [*chain(*(row.ids[len(opening) : -1] for row in rows))]


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


@pytest.mark.parametrize("model", ["bert", "t5"])
def test_it_is_measured_by_the_gaps_that_it_fills(
    gapped: Make,
    train: Callable[..., RunDir],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    model: str,
) -> None:
    folder = request.getfixturevalue(model)
    rate = {"bert": 5e-3, "t5": 1e-2}[model]
    run = train(gapped(folder, method="lora", learning_rate=rate, epochs=16.0, eval_fraction=0.25))
    found = evaluated(run, Asked())
    assert len(found.rows) == found.available == 6 and not found.general
    assert found.base.loss and found.tuned.loss and found.tuned.loss < LEARNED * found.base.loss
    assert found.tuned.perplexity == pytest.approx(np.exp(found.tuned.loss))
    assert found.base.filled is not None and found.tuned.filled is not None
    assert found.tuned.filled > found.base.filled and found.intervals["loss"][1] < 0
    for row in found.rows:
        seen = (row.prompt or "").count("[MASK]" if model == "bert" else "<extra_id_")
        assert seen and row.reference and "[SEP]" not in (row.prompt or "")
        said = [(text or "").split(" · ") for text in (row.reference, row.base, row.tuned)]
        assert {len(words) for words in said} == {row.gaps}
        if model == "bert":
            assert seen == row.gaps and set(said[0]) <= set(" ".join(SENTENCES).split())
            right = sum(a == b for a, b in zip(said[0], said[2], strict=True))
            assert row.tuned_filled == right / row.gaps
    assert sum(row.gaps * (row.tuned_filled or 0) for row in found.rows) == pytest.approx(
        found.tuned.filled * sum(row.gaps for row in found.rows)
    )
    # The base is the model without its adapter: the same gaps, the same loss as the curve begins with, but weighed by token.
    first = next(e.loss for e in events(run) if isinstance(e, Evaluated))
    assert found.base.loss == pytest.approx(first, rel=0.35)

    assert main(["evaluate", run.name]) == 0  # as it was kept
    text = capsys.readouterr().out
    assert "6 of 6 held-out rows" in text and "parts of each left out" in text and "greedy" not in text
    assert "gaps filled right" in text and "general" not in text and "tuned is better than base by loss" in text
    assert main(["evaluate", run.name, "--answers"]) == 0
    assert "the numbers are the share of gaps filled right" in capsys.readouterr().out


def test_without_held_out_texts_it_asks_for_some(
    gapped: Make, bert: Path, train: Callable[..., RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(gapped(bert, method="full", epochs=1.0, eval_fraction=0.0))
    assert main(["evaluate", run.name]) == Exit.RUN_STATE
    said = capsys.readouterr().err
    assert "no rows were held out when gaps was trained" in said and "--data FILE" in said
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": one}) for one in SENTENCES[:2]))
    found = evaluated(run, Asked(data=str(path)))
    assert len(found.rows) == 2 and found.base.filled is not None
    assert found.seen == 2, "it was trained on both"
