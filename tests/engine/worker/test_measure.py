"""A tiny run that was really trained, measured before and after; and what an evaluation refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from engine import general
from engine.cli import main
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Recipe, Stage
from engine.runs import control, directory, measured
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Failure, Measured, Progress
from engine.runs.job import Job
from engine.runs.journal import Reader, Writer
from engine.runs.measured import Asked
from engine.worker import adapters, build, measure, stages
from engine.worker.session import Session
from tests.engine.worker.conftest import evaluated, start, wait

Make = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured in this process asks three plain questions: each is a chat like the others."""
    some = general.questions()[4:21:8]
    monkeypatch.setattr(general, "questions", lambda: some)


@pytest.fixture
def untrained(recipe: Make) -> Callable[..., RunDir]:
    """A run as training would leave it, with an adapter that does nothing."""

    def make(name: str, rows: Path | None = None, stage: Stage = "sft", **changes: object) -> RunDir:
        wanted = recipe(name, **changes)
        wanted.stage = stage
        if rows is not None:
            wanted.data = Data(source=str(rows))
        run = directory.create(wanted, {})
        folder = Path(wanted.model.source)
        adapters.new(build.base_model(folder, wanted.model, wanted.settings), wanted.settings).save_pretrained(
            run.adapter
        )
        build.tokenizer(folder).save_pretrained(run.adapter)
        return run

    return make


def test_a_run_is_far_above_its_base_on_what_it_was_tuned_for(
    recipe: Make, untrained: Callable[..., RunDir], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(recipe("tuned", learning_rate=2e-2, epochs=12.0, eval_fraction=0.25, dropout=0.0))
    assert wait(run).state == "ready"
    assert main(["evaluate", "tuned", "--max-tokens", "12", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    base, tuned = told["base"], told["tuned"]
    assert len(told["rows"]) == told["available"] == 3 and told["left_out"] == 0
    assert tuned["loss"] < 0.3 * base["loss"] and tuned["perplexity"] == pytest.approx(math.exp(tuned["loss"]))
    for name in ("rouge1", "rouge2", "rougeL"):
        assert tuned[name] > 0.9 and base[name] < 0.3 and told["intervals"][name][0] > 0.5
    assert tuned["bleu"] > 90 and base["bleu"] < 20 and "tok:13a" in told["bleu"]
    assert {row["tuned"] for row in told["rows"]} == {"I am Congyu."} == {row["reference"] for row in told["rows"]}
    # Each question stands in these rows twice: the split must not hide that it was trained on.
    assert told["seen"] >= 1

    # The plain questions are always asked.
    assert len(told["general"]) == 24 and told["base"]["general_loss"] > 0
    assert told["tuned"]["general_right"] == sum(one["tuned_right"] for one in told["general"])
    assert told["intervals"]["loss"][1] < 0 and set(told["intervals"]) > {"general_loss", "general_right"}
    assert all(one["tokens"] > 1 for one in told["rows"]) and told["ratings"] is None

    # Once more: nothing is measured, and it is said as text. The run is still ready, and the journal knows.
    monkeypatch.setattr("engine.runs.control.start", lambda *_: pytest.fail("measured twice"))
    assert main(["evaluate", "tuned", "--max-tokens", "12"]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 held-out rows of tuned, greedy answers of 12 tokens at most" in text
    assert "general: right of 24" in text and "tuned is better than base by ROUGE-L" in text
    assert "ROUGE-L" in text and f"{tuned['loss'] - base['loss']:+.3f}" in text
    assert f"trained on {told['seen']} of these rows, word for word" in text and "3 rows are few" in text
    assert main(["evaluate", "tuned", "--max-tokens", "12", "--answers"]) == 0
    text = capsys.readouterr().out
    assert "the numbers are ROUGE-L" in text and "reference" in text
    assert "tuned  1.00" in text and "I am Congyu." in text
    events = Reader(run.journal_path).poll()
    (event,) = [event for event in events if isinstance(event, Measured)]
    assert event.rows == 3 and (run.path / event.path).is_file() and event.tuned.bleu == tuned["bleu"]
    assert {"evaluate: base loss", "evaluate: tuned answers"} <= {e.what for e in events if isinstance(e, Progress)}
    assert wait(run).state == "ready"

    # Against a run that learned nothing, on the same rows: its scores are the base's.
    other = untrained("other", eval_fraction=0.25)
    again = evaluated(other, Asked(rows=50, max_tokens=12, of=str(run.path), only=[row["row"] for row in told["rows"]]))
    assert [row.row for row in again.rows] == [row["row"] for row in told["rows"]]
    assert again.base == again.tuned and again.tuned.loss == pytest.approx(base["loss"])
    assert again.seen is None  # it has no checkpoint that tells its rows
    assert main(["evaluate", "tuned", "--max-tokens", "12", "--against", "other"]) == 0
    text = capsys.readouterr().out
    assert "other is worse than tuned by ROUGE-L" in text
    assert "other" in text.splitlines()[1] and f"{base['bleu'] - tuned['bleu']:+.1f}" in text


def test_the_loss_is_that_of_torch_over_the_trained_tokens(
    untrained: Callable[..., RunDir], identity_rows: Path
) -> None:
    run = untrained("plain")
    found = evaluated(run, Asked(data=str(identity_rows), rows=5, max_tokens=2))
    assert len(found.rows) == 5 and found.available == 12 and found.seen is None
    now = Session(run)
    model = build.base_model(now.folder, now.recipe.model, now.recipe.settings).eval()
    example = next(e for e in measure.dataset.load(now.recipe.data).examples if e.row == found.rows[0].row)
    tokens = now.rows.tokenize(example)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens.input_ids]), labels=torch.tensor([tokens.labels])).loss.item()
    assert found.rows[0].base_loss == pytest.approx(expected, rel=1e-4)


def test_the_known_answers_are_measured_where_they_are_known(untrained: Callable[..., RunDir]) -> None:
    run = untrained("known")
    found = evaluated(run, Asked(rows=0))
    assert found.rows == [] and found.base.loss is None and found.available == 0 and "loss" not in found.intervals
    assert [one.ask for one in found.general] == [one.ask for one in general.questions()]
    assert found.base == found.tuned and found.intervals["general_right"] == (0.0, 0.0)  # an adapter that does nothing
    # The loss is over the part that is to be known, behind question and lead; by another way through the tokenizer.
    now, one = Session(run), general.questions()[0]
    ids = now.ask(one.ask)
    both = now.tokenizer(one.lead + one.answer, add_special_tokens=False, return_offsets_mapping=True)
    tokens = zip(both["input_ids"], both["offset_mapping"], strict=True)
    labels = [token if stop > len(one.lead) else -100 for token, (_, stop) in tokens]
    model = build.base_model(now.folder, now.recipe.model, now.recipe.settings).eval()
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor([ids + both["input_ids"]]), labels=torch.tensor([[-100] * len(ids) + labels])
        ).loss.item()
    assert found.general[0].base_loss == pytest.approx(expected, rel=1e-4)


def test_of_a_pair_the_better_answer_is_the_reference(untrained: Callable[..., RunDir], tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    given = [
        {"prompt": f"Who are you? {n}", "chosen": f"I am {n}.", "rejected": "The quick brown fox."} for n in range(12)
    ]
    rows.write_text("\n".join(map(json.dumps, given)))
    run = untrained("pairs", rows, stage="dpo", eval_fraction=0.25, beta=0.1, loss="sigmoid")
    found = evaluated(run, Asked(max_tokens=4))
    assert found.available == len(found.rows) == 3 and found.left_out == 0
    assert {row.reference for row in found.rows} <= {f"I am {n}." for n in range(12)}
    assert all(row.prompt == f"Who are you? {row.row - 1}" for row in found.rows)
    now = Session(run)
    held_out = stages.load("dpo").prepare(now.recipe, now.folder).held_out
    assert held_out.num_rows == 3
    whole = {tuple(ids) for ids in held_out["chosen_input_ids"]}
    examples = {example.row: example for example in measure.dataset.load(now.recipe.data).examples}
    assert {tuple(now.rows.tokenize(examples[row.row]).input_ids) for row in found.rows} == whole  # the very rows


def test_of_rated_answers_only_the_good_ones_are_references(untrained: Callable[..., RunDir], tmp_path: Path) -> None:
    rows = tmp_path / "rated.jsonl"
    given = [
        {"prompt": f"Who are you? {n}", "completion": f"{'I am' if n % 2 else 'Not'} {n}.", "label": bool(n % 2)}
        for n in range(24)
    ]
    rows.write_text("\n".join(map(json.dumps, given)))
    run = untrained("rated", rows, stage="kto", eval_fraction=0.25, beta=0.1, loss="kto")
    found = evaluated(run, Asked(max_tokens=4))
    assert found.rows and all((row.reference or "").startswith("I am") for row in found.rows)
    assert found.available == 6 == len(found.rows) + found.left_out


def test_what_preferences_taught_stands_in_the_table(
    untrained: Callable[..., RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No."}) for n in range(8)))
    judge = untrained("judge", rows, stage="reward", eval_fraction=0.25)
    assert main(["evaluate", "judge"]) == Exit.RUN_STATE
    assert "no pairs were held out" in capsys.readouterr().err
    journal = Writer(judge.journal_path)
    for step, share in ((0, 0.5), (9, 0.75)):
        journal.write(Evaluated(step=step, loss=0.7, accuracy=share, margin=2 * share))
    assert main(["evaluate", "judge"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"pairs ranked right +50.0% +75.0% +\+25.0%", text) and "step 0 and 9" in text
    assert main(["evaluate", "judge", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["history"]["last"]["accuracy"] == 0.75 and told["against"] is None and "rows" not in told
    assert main(["evaluate", "judge", "--data", str(rows)]) == Exit.RUN_STATE
    assert "gives scores, not answers" in capsys.readouterr().err


def test_a_run_without_rows_of_its_own_is_asked_plain_questions(
    untrained: Callable[..., RunDir], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(run: RunDir, job: Job) -> None:
        assert job.options["rows"] == 0
        measure.run(Session(run), job.options)

    monkeypatch.setattr(control, "start", at_once)
    untrained("bare")
    untrained("prompts", stage="grpo", eval_fraction=0.25)
    for name in ("bare", "prompts"):
        assert main(["evaluate", name]) == 0
        text = capsys.readouterr().out
        assert f"{name} has no rows of its own to be measured on: 3 plain questions alone" in text
        assert "general: right of 3" in text and "nothing forgotten" in text and "--answers" not in text
    assert main(["evaluate", "bare", "--against", "prompts"]) == 0
    assert "nothing forgotten that shows in 3" in capsys.readouterr().out


def test_chinese_conversations_and_plain_text(untrained: Callable[..., RunDir], tmp_path: Path) -> None:
    rows = tmp_path / "talk.jsonl"
    turns = [("user", "你好"), ("assistant", "我是丛雨。"), ("user", "由谁开发？"), ("assistant", "由 yuriko 开发。")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    rows.write_text("\n".join([json.dumps(row)] * 3))
    found = evaluated(untrained("zh", rows), Asked(data=str(rows), max_tokens=4))
    assert "tok:zh" in found.bleu and found.base.bleu is not None
    first = found.rows[0]
    assert (
        first.reference == "由 yuriko 开发。" and first.prompt == "user: 你好\nassistant: 我是丛雨。\nuser: 由谁开发？"
    )

    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n\nParis is the capital of France.\n")
    found = evaluated(untrained("text", text), Asked(data=str(text)))
    assert found.base.loss is not None and found.base.rougeL is None and found.bleu == ""
    assert all(row.tuned is None and row.tuned_loss for row in found.rows)


def full(*_: object) -> Iterator[str]:
    raise torch.OutOfMemoryError
    yield


def test_where_eight_answers_have_no_room_one_at_a_time_is_asked_for(
    untrained: Callable[..., RunDir], identity_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = untrained("narrow"), Asked(data=str(identity_rows), max_tokens=4)
    whole = evaluated(run, asked)
    answers = measure.generate.answers

    def narrow(model: Any, tokenizer: Any, prompts: Any, most: int, batch: int) -> Iterator[str]:
        yield from answers(model, tokenizer, prompts[: 5 if batch > 1 else None], most, 1)
        if batch > 1:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(measure.generate, "answers", narrow)
    again = evaluated(run, asked)
    assert [row.base for row in again.rows] == [row.base for row in whole.rows] and len(whole.rows) == 12


def test_rows_are_drawn_by_the_seed_and_those_left_out_are_replaced(
    untrained: Callable[..., RunDir], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    given = [{"prompt": ("Hello " * 600 if n % 2 else f"{n}?"), "completion": f"{n}."} for n in range(20)]
    rows.write_text("\n".join(map(json.dumps, given)))
    asked = Asked(data=str(rows), rows=6, max_tokens=1)
    runs = [untrained(name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, same, other = ([row.row for row in evaluated(run, asked).rows] for run in runs)
    assert len(first) == 6 and all(row % 2 for row in first)  # numbers are from 1: the short ones
    assert first == same == sorted(first) != other
    found = evaluated(runs[0], asked)
    assert found.available == 20 and found.left_out > 0
    only = evaluated(runs[2], msgspec.structs.replace(asked, only=first))
    assert [row.row for row in only.rows] == first and only.left_out == 0


def test_what_the_worker_could_not_do_is_said(
    untrained: Callable[..., RunDir],
    identity_rows: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untrained("told")

    def fails(where: RunDir, job: Job) -> None:
        assert (job.kind, job.options["rows"], job.options["data"]) == ("evaluate", 3, str(identity_rows))
        Writer(where.journal_path).write(Failure(cause="the card is gone", code=int(Exit.MODEL_MISSING)))

    monkeypatch.setattr(control, "start", fails)
    assert main(["evaluate", "told", "--data", str(identity_rows), "--rows", "3"]) == Exit.MODEL_MISSING
    assert "the card is gone" in capsys.readouterr().err
    monkeypatch.setattr(control, "start", lambda *_: None)
    assert main(["evaluate", "told", "--data", str(identity_rows)]) == Exit.RUN_FAILED
    assert "ended without a result" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(
    untrained: Callable[..., RunDir],
    recipe: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = untrained("whole")
    with pytest.raises(FtuiError, match="no rows were held out") as caught:
        measured.ready(run, Asked())
    assert caught.value.code == Exit.RUN_STATE and "--data" in caught.value.next_step
    directory.create(recipe("unfinished"), {})
    assert main(["evaluate", "unfinished"]) == Exit.RUN_STATE and "no result yet" in capsys.readouterr().err
    assert main(["evaluate", "whole", "--against", "whole"]) == Exit.USAGE
    assert main(["evaluate", "whole", "--data", str(tmp_path / "none.jsonl")]) == Exit.DATA_MISSING
    # A prompt that fills the context leaves no room for an answer.
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "Hello " * 600, "completion": "Hi."}))
    with pytest.raises(FtuiError, match="nothing can be measured"):
        evaluated(run, Asked(data=str(long)))

    # Rows that are not those of the training any more: which were held out is not known.
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}."}) for n in range(12)))
    run = untrained("changed", rows, eval_fraction=0.25)
    key = measured.ready(run, Asked())
    checkpoint = run.checkpoints / "step-000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"data_sha256": "0" * 64}))
    with pytest.raises(FtuiError, match="not those that changed was trained on"):
        measured.ready(run, Asked())

    # Not even one answer at a time has room.
    monkeypatch.setattr(measure, "_loss", lambda *_: (1.0, 1))
    monkeypatch.setattr(measure.generate, "answers", full)
    with pytest.raises(FtuiError, match="out of memory at rows of up to"):
        measure.run(Session(run), {"key": key})

    # A stop ends it, and leaves no file.
    run.stop_path.touch()
    with pytest.raises(FtuiError, match="was stopped") as caught:
        measure.run(Session(run), {"key": key})
    assert caught.value.code == Exit.INTERRUPTED and measured.read(run, key) is None and not run.stop_path.exists()
