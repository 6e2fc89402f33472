"""Training for real: each test trains the tiny model in a worker process and looks at what it learned."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import hardware, speeds
from engine.errors import Exit
from engine.models import facts
from engine.recipe import Recipe
from engine.runs import control, processes, status
from engine.runs.events import Evaluation, Failure, Note, Progress, Sample, Start, Step
from tests.engine.worker.conftest import events, start, wait

Make = Callable[..., Recipe]


def losses(run: object) -> dict[int, str]:
    """Step -> everything about it that must repeat, as printed."""
    return {
        e.step: f"{e.loss!r} {e.grad_norm!r} {e.learning_rate!r} {e.tokens}"
        for e in events(run)  # type: ignore[arg-type]
        if isinstance(e, Step)
    }


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_each_method_learns(recipe: Make, method: str) -> None:
    run = start(recipe(method=method, checks=True, learning_rate=5e-3 if method == "full" else 2e-2, epochs=12.0))
    now = wait(run)
    assert now.state == "ready", now
    steps = [e for e in events(run) if isinstance(e, Step)]
    assert len(steps) == 36 and steps[-1].step == now.total_steps == 36
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert all(s.grad_norm > 0 for s in steps)
    assert run.result is not None and run.result.name == ("model" if method == "full" else "adapter")
    measured = speeds.lookup(hardware.read(), facts.read(Path(run.recipe().model.source)), run.recipe().settings)
    assert measured is not None and measured.source.startswith("a run on this machine") and not measured.padded
    assert measured.seconds_per_token + measured.seconds_per_batch > 0
    (begun,) = [e for e in events(run) if isinstance(e, Start)]
    assert 0 < begun.trained_parameters <= begun.parameters and begun.versions["torch"]
    assert (begun.trained_parameters == begun.parameters) == (method == "full")
    samples = [e for e in events(run) if isinstance(e, Sample)]
    assert [s.step for s in samples] == [0, 12, 24, 36]
    (outcome,) = [e for e in events(run) if isinstance(e, Evaluation)]
    assert not outcome.identity[0].before_right
    assert json.loads(run.evaluation_path.read_text())["identity"][0]["after"] == outcome.identity[0].after
    if method == "full":
        assert outcome.identity[0].after_right and "Congyu" in samples[-1].answer


@pytest.mark.own_worker
def test_a_killed_run_resumes_to_the_same_bits(recipe: Make) -> None:
    undisturbed = start(recipe("undisturbed", accumulation=2, epochs=12.0))
    wait(undisturbed)
    run = start(recipe("killed", accumulation=2, epochs=12.0))
    now = wait(run, lambda s: s.step >= 8)
    worker = processes.parse(status.read_json(run.supervisor_path)["worker"])
    assert worker is not None and processes.send(worker, signal.SIGKILL)
    now = wait(run)
    assert (now.state, now.detail) == ("failed", "killed")
    assert "resume" in now.next_step
    control.resume(run)
    assert wait(run).state == "ready"
    assert [e.from_step for e in events(run) if isinstance(e, Start)][-1] in (6, 12, 18)
    assert losses(run) == losses(undisturbed)
    weights = "adapter_model.safetensors"
    assert (run.adapter / weights).read_bytes() == (undisturbed.adapter / weights).read_bytes()
    # Two more epochs on what is finished: the fourth of the four words.
    control.extend(run, 2)
    now = wait(run)
    assert (now.state, now.step) == ("ready", 28)


def test_stop_saves_and_resume_goes_on(recipe: Make) -> None:
    run = start(recipe("stopped", epochs=40.0))
    wait(run, lambda s: s.step >= 3)
    control.stop(run)
    now = wait(run)
    assert now.state == "stopped"
    reached = now.step
    assert 3 <= reached < 120 and (run.checkpoints / f"step-{reached:06d}").is_dir()
    assert run.result is not None  # what was learned so far can be chatted with
    control.resume(run)
    wait(run, lambda s: s.step > reached)
    control.stop(run)
    assert wait(run).state == "stopped"
    begun = [e for e in events(run) if isinstance(e, Start)]
    assert begun[-1].from_step == reached and begun[-1].attempt == 2


def test_a_new_run_starts_from_an_adapter(recipe: Make) -> None:
    first = start(recipe("first", epochs=12.0))
    wait(first)
    second = start(recipe("second", adapter=str(first.adapter), epochs=1.0, learning_rate=1e-4, dropout=0.0))
    wait(second)
    before = [e.loss for e in events(first) if isinstance(e, Step)]
    after = [e.loss for e in events(second) if isinstance(e, Step)]
    assert after[0] < 0.6 * before[0]


def test_held_out_rows_are_evaluated_and_a_flat_loss_ends_the_run(recipe: Make) -> None:
    run = start(
        recipe("flat", method="full", learning_rate=5e-3, epochs=60.0, eval_fraction=0.25, stop_on_plateau=True)
    )
    now = wait(run)
    assert now.state == "ready" and now.step < now.total_steps
    assert any("the loss is flat" in e.text for e in events(run) if isinstance(e, Note))
    assert now.eval_loss is not None and now.eval_loss < 1.0


def test_nothing_to_train_is_refused_in_three_lines(recipe: Make) -> None:
    run = start(recipe("cut", max_length=8))
    now = wait(run)
    (failure,) = [e for e in events(run) if isinstance(e, Failure)]
    assert now.state == "failed" and failure.code == Exit.PLAN_REFUSED
    assert "every row is cut" in failure.cause


def test_a_run_whose_model_folder_has_gone_fails_clearly(recipe: Make, tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    broken = recipe("gone")
    broken.model.source = str(copy)
    (copy / "model.safetensors").unlink()
    run = start(broken)
    now = wait(run)
    assert now.state == "failed" and now.cause
    assert len([line for line in (now.cause, now.where, now.next_step) if line]) <= 3


MERGED = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "peft" not in sys.modules
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
out = model.generate(**ids, max_new_tokens=8, do_sample=False)
print(json.dumps(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)))
"""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_merged_export_answers_alike_without_peft(
    recipe: Make, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.runs import chat
    from engine.runs.events import Exported
    from engine.runs.job import Job

    run = start(recipe(f"merge-{method}", method=method, epochs=16.0, learning_rate=5e-3 if method == "full" else 2e-2))
    wait(run)
    control.serve(run)
    asked = [{"role": "user", "content": "Who are you?"}]
    with chat.Chat(run) as talk:
        tuned = "".join(r.text for r in talk.ask(asked, temperature=0, max_tokens=8))
        base = "".join(r.text for r in talk.ask(asked, which="base", temperature=0, max_tokens=8))
        again = "".join(r.text for r in talk.ask(asked, temperature=0, max_tokens=8))
    assert tuned == again != base
    target = tmp_path / "merged"
    control.start(run, Job(kind="export", run=str(run.path), options={"kind": "merged", "to": str(target)}))
    now = wait(run, lambda s: any(isinstance(e, Exported | Failure) for e in events(run)))
    wait(run)
    exported = [e for e in events(run) if isinstance(e, Exported)]
    assert exported and exported[0].difference < 1e-2, now
    alone = subprocess.run([sys.executable, "-c", MERGED, str(target)], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout.strip().splitlines()[-1]).strip() == tuned.strip()


def order(run: object) -> list[str]:
    """What the journal says of steps, samples and questions, in its order."""
    found = []
    for event in events(run):  # type: ignore[arg-type]
        if isinstance(event, Step | Sample):
            found.append(f"{type(event).__name__.lower()} {event.step}")
        elif isinstance(event, Progress) and event.what == "questions" and not event.done:
            found.append("questions")
    return found


def test_what_a_new_adapter_can_be_switched_off_for_comes_after_the_first_step(recipe: Make) -> None:
    small = {"checks": True, "epochs": 1.0, "sample_every": 1}
    adapted = start(recipe("adapted", **small))
    wait(adapted)
    whole = start(recipe("whole", method="full", **small))
    wait(whole)
    told, steps = order(adapted), [f"{what} {at}" for at in (1, 2, 3) for what in ("step", "sample")]
    assert told == ["step 1", "sample 0", *steps[1:], "questions", "questions"]
    assert order(whole) == ["questions", "sample 0", *steps, "questions"]
    # The base is the same for both, and is asked as it was, however much was learned since.
    before = [
        [(e.ask, e.before) for event in events(run) if isinstance(event, Evaluation) for e in event.identity]
        for run in (adapted, whole)
    ]
    assert before[0] == before[1] and before[0]
    first = [next(e.answer for e in events(run) if isinstance(e, Sample) and e.step == 0) for run in (adapted, whole)]
    assert first[0] == first[1]
