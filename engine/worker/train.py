"""The job "train": from a recipe to a result, in the states that the journal knows."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
from transformers import set_seed

from engine import hardware, paths, speeds
from engine.models import facts, support
from engine.recipe import PPO_PASSES, Recipe
from engine.runs import checkpoints
from engine.runs.directory import RunDir
from engine.runs.events import Note, Progress, Result, Sample, Start, Step
from engine.runs.journal import Reader
from engine.worker import adapters, answer, build, evaluate, generate, session, stages, trainer
from engine.worker.service import Ask, Client, Service
from engine.worker.session import Session


def run(now: Session, resume: str | None, attempt: int, service: Service) -> bool:
    """Train until the end, a plateau, or a stop; leave a checkpoint, a result and the comparison. False if nobody can talk to it:
    it was stopped, or it is a reward model.

    resume   a checkpoint's path below the run directory, or None to begin anew
    attempt  which attempt of the run this is, from 1 on
    """
    recipe, where = now.recipe, now.run
    settings = recipe.settings
    stage = stages.load(recipe.stage, facts.read(now.folder).shape)
    now.enter("tokenizing")
    rows = stage.prepare(recipe, now.folder)
    held_out = 0 if rows.held_out is None else len(rows.held_out)
    if rows.masked:
        now.journal.write(Note(text=f"{rows.masked} rows left out: cut before their answer begins"))
    if _stopped(now):
        return False
    now.enter("loading", recipe.model.source)
    set_seed(settings.seed)  # the adapter's first weights are random
    now.model = stage.build(recipe, now.folder)
    total, trained = build.sizes(now.model)
    if stage.speaks and not _can_wait(recipe):
        _answers_before(now)
        if _stopped(now):
            return False

    from_step = int(Path(resume).name.removeprefix("step-")) if resume else 0
    origin = {
        "recipe_sha256": paths.sha256(where.recipe_path),
        "data_sha256": rows.sha256,
        "versions": session.versions(),
    }
    if resume:
        for change in checkpoints.changes(where.path / resume, origin):
            now.journal.write(Note(text=change))
    # Of rewards, an epoch is every answer to every prompt; PPO learns from each of its answers several times.
    answers = len(rows.train) * (settings.generations or PPO_PASSES) if stage.rewarded else len(rows.train)
    shared = trainer.arguments(recipe, where, answers, held_out)
    training = stage.trainer(
        run=where,
        journal=now.journal,
        trained_before=_tokens_at(where, from_step),
        origin=origin,
        lora_plus=settings.lora_plus,
        without_padding=support.unpadded(facts.read(now.folder), settings),
        own_optimizer=build.optimizer(now.model, settings),
        model=now.model,
        args=stage.config(recipe, shared | {"eval_on_start": bool(held_out) and from_step == 0}),
        train_dataset=rows.train,
        eval_dataset=rows.held_out,
        processing_class=now.tokenizer,
        **({"recipe": recipe, "folder": now.folder} if stage.rewarded else {}),
    )
    if _stopped(now):
        return False

    def say(step: int, base: bool = False) -> None:
        if stage.say is not None:
            asked, said = stage.say(now.model, now.tokenizer, rows)
            now.journal.write(Sample(step=step, prompt=asked, answer=said))
        elif recipe.probe and stage.speaks:
            now.journal.write(Progress(what="an answer to the probe", done=0, total=0))
            (answer,) = generate.answers(now.model, now.tokenizer, [now.ask(recipe.probe, base)])
            now.journal.write(Sample(step=step, prompt=recipe.probe, answer=answer))

    said_before = from_step > 0

    def say_before() -> None:
        """What the model as it was says: once a run, before its first step or, where that can wait, right after it."""
        nonlocal said_before
        if not said_before:
            said_before = True
            with _as_it_was(now):
                say(0, base=recipe.adapter is None)

    def sample(step: int) -> None:
        say_before()
        say(step)

    def between_steps() -> None:
        say_before()
        service.serve_pending()

    def between(client: Client, ask: Ask) -> None:
        now.journal.write(Progress(what="an answer in chat", done=0, total=0))
        answer.reply(now, client, ask)

    def begin(steps: int) -> None:
        now.enter("training")
        now.journal.write(
            Start(
                attempt=attempt,
                from_step=from_step,
                total_steps=steps,
                epochs=settings.epochs,
                rows=rows.rows or len(rows.train),
                eval_rows=held_out,
                parameters=total,
                trained_parameters=trained,
                device=session.device_name(),
                versions=session.versions(),
                hardware=session.machine(),
            )
        )
        if not _can_wait(recipe):
            say_before()

    training.add_callback(trainer.Watch(where, now.journal, settings, begin, sample, between_steps))
    service.answer = between if stage.speaks else None
    training.train(resume_from_checkpoint=str(where.path / resume) if resume else None)
    if stage.speaks:
        service.answer = lambda client, ask: answer.reply(now, client, ask)
    _keep_speed(now, training)
    reached = training.state.global_step
    if not (where.checkpoints / checkpoints.name(reached)).exists():
        training._save_checkpoint(now.model, None)  # so that a finished run can be extended
    stopped = where.stop_path.exists() and reached < training.state.max_steps
    if held_out and not stopped and training.evaluated != reached:
        training.evaluate()
    now.model.eval()

    now.enter("saving")
    _save_result(now, reached)
    say(reached)
    if stopped:
        where.stop_path.unlink(missing_ok=True)
        now.enter("stopped", f"at step {reached} of {training.state.max_steps}")
        return False
    before = _answers_before(now) if stage.speaks else {}
    if before:
        now.enter("evaluating")
        after = evaluate.ask(now)
        if after is not None:
            outcome = evaluate.compare(recipe, before, after)
            now.journal.write(outcome)
            paths.write_private(where.evaluation_path, _json(outcome))
    where.stop_path.unlink(missing_ok=True)  # one that came too late: everything is saved
    now.enter("ready")
    return stage.speaks


def _tokens_at(where: RunDir, step: int) -> int:
    """Trained tokens up to `step`, as the journal has them; an earlier attempt's words about a step stand."""
    if step == 0:
        return 0
    found = 0
    for events in Reader(where.journal_path).chunks():
        found = next((e.tokens for e in reversed(events) if isinstance(e, Step) and e.step == step), found)
    return found


def _can_wait(recipe: Recipe) -> bool:
    """Whether what the model says as it was can still be asked while it learns: a new adapter can be switched off."""
    return recipe.settings.adapts and recipe.adapter is None


def _as_it_was(now: Session) -> contextlib.AbstractContextManager[Any]:
    """The model as it was before it learned; where that cannot wait, only as long as it has not."""
    as_it_was: contextlib.AbstractContextManager[Any] = (
        now.model.disable_adapter() if _can_wait(now.recipe) else contextlib.nullcontext()
    )
    return as_it_was


def _answers_before(now: Session) -> dict[str, str]:
    """The untrained model's answers to the checks: asked once a run, kept for a resume. Empty when a stop was asked for
    meanwhile."""
    checks = [*now.recipe.checks.identity, *now.recipe.checks.general]
    if not checks:
        return {}
    kept = now.run.path / "before.json"
    known = evaluate.read_before(kept)
    if known is None:
        now.enter("evaluating", "as it was before training")
        with _as_it_was(now):
            known = evaluate.ask(now, base=now.recipe.adapter is None)
        if known is not None:
            evaluate.keep_before(kept, known)
    return known or {}


def _keep_speed(now: Session, training: trainer.Journalled) -> None:
    """The next plan for this model on this machine stands on what this run measured."""
    if now.recipe.stage not in ("sft", "pretraining", "dpo"):
        return  # the others compute more than their tokens tell
    speed = training.pace.speed(f"a run on this machine, {now.run.name}, {time.strftime('%Y-%m-%d')}")
    if speed is not None:
        with contextlib.suppress(OSError):  # the run is worth more than its speed
            speeds.record(hardware.read(), facts.read(now.folder), now.recipe.settings, speed, "run")


def _stopped(now: Session) -> bool:
    """A stop asked for before the first step: there is nothing to save yet."""
    if not now.run.stop_path.exists():
        return False
    now.run.stop_path.unlink(missing_ok=True)
    now.enter("stopped", "before the first step")
    return True


def _save_result(now: Session, step: int) -> None:
    """Write adapter/ or model/, loadable by plain peft or transformers; the folder appears whole or not at all."""
    adapts = now.recipe.settings.adapts
    target = now.run.adapter if adapts else now.run.model
    stage = target.with_name(f".{target.name}.stage")
    shutil.rmtree(stage, ignore_errors=True)
    if adapts:
        adapters.save(now.model, stage)
    else:
        now.model.save_pretrained(stage)
    now.tokenizer.save_pretrained(stage)
    files = {}
    for path in stage.rglob("*"):
        paths.sync(path)
        if path.suffix in (".json", ".safetensors"):  # what the next stage of a chain reads
            files[path.relative_to(stage).as_posix()] = paths.sha256(path)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    stage.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    now.journal.write(Result(kind="adapter" if adapts else "model", path=target.name, step=step, files=files))


def _json(outcome: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(outcome), indent=2)
