"""The job "export": the adapter as it is, merged into the base, or as GGUF; loaded back and compared before it counts.

What is written stands in a staging folder until it has answered like the run; then it is renamed. A stop, a failure or a
signal leaves nothing behind.
"""

from __future__ import annotations

import gc
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from peft import PeftModel
from transformers import GenerationConfig

from engine import paths
from engine.data.convert import Message
from engine.errors import Exit, FtuiError
from engine.models import facts as model_facts
from engine.runs import checkpoints, directory, measured, scoreboard
from engine.runs import export as exports
from engine.runs.events import Exported, Note, Progress, Pushed
from engine.runs.export import Options
from engine.runs.journal import Reader
from engine.runs.view import RunView
from engine.worker import bottleneck, build, failures, generate
from engine.worker.exports import card, gguf_file, modelfile, push, vocabulary
from engine.worker.exports.vocabulary import Vocabulary
from engine.worker.session import Session

# Largest difference between logits that rounding explains. Merging adds BA to W once instead of at each product:
# in fp32 that moves a logit by about 1e-4, in 16 bit by a few units in the last place of logits around 20.
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.75, torch.float16: 0.1}
# q8_0 rounds each weight to 1/254 of its block's largest. Its next-token distributions differ from those of f16 by about
# 0.001 nats (llama.cpp's own measurements); a file that is wrong is off by whole nats.
MOST_DIVERGENCE = 0.05
QUESTIONS = ["Who are you?", "What is the capital of France?", "Write one sentence about the sea."]
ANSWER = 24  # tokens of each answer that is compared


class Written(Struct):
    """What stands in the staging folder: how to load it back, what it is, and how far it may differ."""

    form: str
    load: Callable[[], Any]
    tolerance: float
    file: str = ""


def run(now: Session, asked: dict[str, Any]) -> None:
    """Write the export that the job's options ask for, and put it on the hub where they say so.

    Raises FtuiError(EXPORT_FAILED, DISK_FULL, RUN_STATE, USAGE, NETWORK, PERMISSION, INTERRUPTED).
    """
    options = exports.read(asked)
    result = now.run.result
    if result is None:
        raise FtuiError(Exit.RUN_STATE, "this run has no result to export yet", now.run.name)
    target = Path(options.to) if options.to else _default_folder(now, options)
    words = _allowed(now, options, result, target)
    if options.push:
        push.ready(options.push)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(now, options, result, target)
    with _stoppable(now) as stopped:
        made = _make(now, options, result, target, words, stopped)
        if options.push:
            now.journal.write(Progress(what="export: push", done=3, total=4))
            try:
                url = push.push(target, options.push, private=not options.public, base=card.base_name(now.recipe))
            except FtuiError as error:
                cause = f"exported, but not pushed: {error.cause}"
                raise FtuiError(error.code, cause, error.where or str(target), error.next_step) from None
            now.journal.write(Pushed(repository=options.push, url=url, public=options.public, path=made.path))


def _allowed(now: Session, options: Options, result: Path, target: Path) -> Vocabulary | None:
    """Refuse what cannot work before anything is loaded; the vocabulary of a GGUF."""
    settings = now.recipe.settings
    exports.refuse(options, settings)
    exports.check_place(target)
    if options.kind != "gguf":
        return None
    if now.recipe.stage == "reward":
        raise FtuiError(
            Exit.EXPORT_FAILED, "no GGUF of a reward model: it gives scores, not text", next_step="export it merged"
        )
    config = build.config(now.folder if settings.adapts else result, now.recipe.model, settings)
    gguf_file.refuse(config)
    chat = now.rows.prompt_text([Message("user", "Hello")]) if now.rows.has_template else None
    size = config.vocab_size
    if settings.added_tokens:  # for which there are rows, in the adapter or in the model that was grown
        size = max(size, 1 + max(now.tokenizer.get_vocab().values()))
    words = vocabulary.read(now.tokenizer, size, chat, _ends(now))
    vocabulary.check(words, now.tokenizer, [now.rows.prompt_text([Message("user", text)]) for text in _questions(now)])
    return words


def _ends(now: Session) -> list[int]:
    """Ids that end an answer, the tokenizer's own first."""
    found = [now.tokenizer.eos_token_id]
    try:
        configured = GenerationConfig.from_pretrained(now.folder).eos_token_id
    except OSError:
        configured = None
    found += configured if isinstance(configured, list) else [configured]
    return [number for number in dict.fromkeys(found) if number is not None]


def _check_space(now: Session, options: Options, result: Path, target: Path) -> None:
    needed = exports.needed(options, result, now.folder, now.recipe.settings.precision)
    free = shutil.disk_usage(target.parent).free
    if free < needed * 1.05:
        raise FtuiError(
            Exit.DISK_FULL,
            f"the export needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left",
            str(target.parent),
            "free some space, or name another folder",
        )


@contextmanager
def _stoppable(now: Session) -> Iterator[Callable[[], None]]:
    """A check that raises once a stop was asked for; so does SIGTERM, wherever the work is."""
    words = FtuiError(
        Exit.INTERRUPTED, "the export was stopped", next_step="nothing half is left; start it again any time"
    )

    def terminated(_number: int, _frame: object) -> None:
        raise words

    def check() -> None:
        if now.run.stop_path.exists():
            raise words

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)
        now.run.stop_path.unlink(missing_ok=True)


def _make(
    now: Session, options: Options, result: Path, target: Path, words: Vocabulary | None, stopped: Callable[[], None]
) -> Exported:
    """Write, load back, compare, rename, say so."""
    total = 4 if options.push else 3
    now.journal.write(Progress(what="export: load", done=0, total=total))
    stage = target.with_name(f".{target.name}.stage")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        reference = _reference(now, result)
        expected = _logits(reference, now)
        answers = _answers(reference, now) if words else []
        stopped()
        now.journal.write(Progress(what="export: write", done=1, total=total))
        stage.mkdir(mode=0o700)
        if options.kind == "adapter":
            written = _adapter(now, reference, result, stage)
        else:
            merged = _merged(reference)
            written = (
                _gguf(now, merged, words, options, stage, stopped) if words else _model(now, merged, options, stage)
            )
            del merged
        del reference
        gc.collect()
        stopped()
        now.journal.write(Progress(what="export: compare", done=2, total=total))
        again = written.load()
        found = _logits(again, now)
        alike = sum(a == b for a, b in zip(answers, _answers(again, now), strict=True)) if words else 0
        del again
        difference = _judge(expected, found, written, target)
        made = card.Made(
            kind=options.kind,
            form=written.form,
            difference=difference,
            alike=alike,
            asked=len(answers),
            file=written.file,
            ollama=exports.ollama_name(now.recipe.name),
            shape=model_facts.read(now.folder).shape,
        )
        (stage / "README.md").write_text(_card(now, made), encoding="utf-8")
        stopped()
        for path in stage.rglob("*"):
            paths.sync(path)
        if target.exists():
            target.rmdir()
        stage.rename(target)
    except Exception as error:
        if failures.is_disk_full(error):
            raise FtuiError(Exit.DISK_FULL, "the disk is full: nothing was exported", str(target)) from None
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    _remarks(now, options)
    event = Exported(
        kind=options.kind,
        path=str(target),
        difference=difference,
        form=written.form,
        alike=alike,
        asked=len(answers),
        bytes=sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
    )
    now.journal.write(event)
    return event


def _reference(now: Session, result: Path) -> Any:
    """Base and adapter as they answer, the base unquantised: what the export is measured against."""
    recipe = now.recipe
    judge = recipe.stage == "reward"
    if not recipe.settings.adapts:
        return build.base_model(result, recipe.model, recipe.settings, judge=judge).eval()
    base = build.base_model(now.folder, recipe.model, recipe.settings, quantised=False, judge=judge)
    return PeftModel.from_pretrained(base, result).eval()


def _merged(reference: Any) -> Any:
    """One model without adapter, on which `reference` no longer counts."""
    merged = reference.merge_and_unload() if isinstance(reference, PeftModel) else reference
    if getattr(merged, "generation_config", None) is not None:  # a reward model has none
        merged.generation_config = _plain(merged.generation_config)
    return merged


def _adapter(now: Session, reference: Any, result: Path, stage: Path) -> Written:
    shutil.copytree(result, stage, dirs_exist_ok=True)
    if now.recipe.settings.method == "bottleneck":
        shutil.copyfile(Path(bottleneck.__file__), stage / card.BROUGHT)
    dtype = reference.dtype
    return Written(_name(dtype), lambda: _reference(now, stage), TOLERANCE[dtype])


def _model(now: Session, merged: Any, options: Options, stage: Path) -> Written:
    """Safetensors in files of at most the shard size; read back into the precision that the run computes in."""
    computed, config = merged.dtype, merged.config
    dtype = build.DTYPES[options.dtype] if options.dtype else computed
    merged.to(dtype).save_pretrained(stage, max_shard_size=options.shard_size)
    now.tokenizer.save_pretrained(stage)

    def load() -> Any:
        return (
            build.kind(config, now.recipe.stage == "reward")
            .from_pretrained(
                stage,
                dtype=computed,
                device_map={"": build.device()},
                use_safetensors=True,
                trust_remote_code=now.recipe.model.trust_remote_code,
            )
            .eval()
        )

    return Written(_name(dtype), load, max(TOLERANCE[dtype], TOLERANCE[computed]))


def _gguf(
    now: Session, merged: Any, words: Vocabulary, options: Options, stage: Path, stopped: Callable[[], None]
) -> Written:
    """The GGUF file and its Modelfile."""
    template = now.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    about = {
        "name": directory.title(now.run),
        "license": card.licence(now.recipe, now.folder) or "",
        "chat_template": template or "",
    }
    path = stage / exports.gguf_name(now.recipe.name, options.format)
    said = 0

    def step(done: int, whole: int) -> None:
        nonlocal said
        stopped()
        if done - said >= whole / 50 or done == whole:
            said = done
            now.journal.write(Progress(what="MB", done=done // 1_000_000, total=whole // 1_000_000))

    gguf_file.write(merged, words, path, options.format, about, step)
    text, form = modelfile.write(
        path.name,
        now.rows.prompt_text,
        words.tokens[words.bos] if words.add_bos and words.bos is not None else None,
        [words.tokens[number] for number in (words.eos, words.eot) if number is not None],
        now.recipe.data.system,
    )
    (stage / "Modelfile").write_text(text, encoding="utf-8")
    if not form:
        now.journal.write(Note(text="the chat format is not one known here: Ollama reads the template from the GGUF"))
    config, dtype = merged.config, merged.dtype
    limit = max(TOLERANCE[torch.float16], TOLERANCE[dtype]) if options.format == "f16" else 0.0
    return Written(options.format, lambda: gguf_file.load(path, config, dtype, words.eos), limit, path.name)


def _judge(expected: list[torch.Tensor], found: list[torch.Tensor], written: Written, target: Path) -> float:
    """The largest difference between logits. FtuiError(EXPORT_FAILED) where it is more than rounding explains."""
    pairs = list(zip(expected, found, strict=True))
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    apart, measure = difference, "logits differ by up to"
    if not written.tolerance:  # quantised: what is likely has to be the same
        apart, measure = _divergence(pairs), "the next token's distribution is off by nats of"
    if not apart <= (written.tolerance or MOST_DIVERGENCE):
        raise FtuiError(
            Exit.EXPORT_FAILED,
            f"the export does not answer like the run: {measure} {apart:.3g}",
            str(target),
            "nothing was written; please report this with the run's recipe",
        )
    return difference


def _divergence(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Mean over all positions of KL(expected ‖ found), in nats."""
    rows = [
        torch.nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none").sum(-1)
        for a, b in pairs
    ]
    return float(torch.cat(rows).mean())


def _questions(now: Session) -> list[str]:
    return [check.ask for check in now.recipe.checks.identity][:3] + QUESTIONS


@torch.no_grad()
def _logits(model: Any, now: Session) -> list[torch.Tensor]:
    """Logits of every position of a few prompts, each [tokens, vocabulary] in fp32."""
    rows = []
    for question in _questions(now):
        ids = torch.tensor([now.ask(question)], device=model.device)
        # An encoder-decoder reads the prompt on both sides: any text does for comparing.
        written = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        rows.append(model(input_ids=ids, **written).logits[0].float().cpu())
    return rows


def _answers(model: Any, now: Session) -> list[str]:
    """The greedy answers to the same prompts."""
    prompts = [now.ask(question) for question in _questions(now)]
    return list(generate.answers(model, now.tokenizer, prompts, max_tokens=ANSWER))


def _card(now: Session, made: card.Made) -> str:
    view = RunView()
    for events in Reader(now.run.journal_path).chunks():
        view.fold(events)
    newest = max(now.run.checkpoints.glob(f"step-*/{checkpoints.MANIFEST}"), default=None)
    sha256 = str(json.loads(newest.read_bytes()).get("data_sha256") or "") if newest else ""
    compared = scoreboard.of(now.run, measured.newest(now.run))
    return card.write(directory.title(now.run), now.recipe, view, made, now.folder, sha256, compared)


def _remarks(now: Session, options: Options) -> None:
    """What the person should know about this export."""
    settings = now.recipe.settings
    if settings.method == "qlora" and options.kind != "adapter":
        now.journal.write(
            Note(
                text="merged into the unquantised base: answers can differ slightly from the packed base it was tuned on"
            )
        )
    if settings.rope != "none" and options.kind == "adapter":
        positions = build.config(now.folder, now.recipe.model, settings).rope_parameters
        now.journal.write(Note(text=f"load the base with the positions it was tuned on: rope_parameters={positions}"))


def _name(dtype: torch.dtype) -> str:
    return next(name for name, one in build.DTYPES.items() if one == dtype)


def _plain(config: Any) -> Any:
    """Sampling values beside do_sample=False make `save_pretrained` refuse; they mean nothing there."""
    if not config.do_sample:
        config.temperature = config.top_p = config.top_k = None
    return config


def _default_folder(now: Session, options: Options) -> Path:
    kind = f"{options.kind}-{options.format}" if options.kind == "gguf" else options.kind
    return paths.data_dir() / "exports" / f"{now.run.path.name}-{kind}"
