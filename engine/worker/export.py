"""The job "export": the adapter as it is, or merged into the base; loaded back and compared before it says done."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from engine import paths
from engine.errors import Exit, FtuiError
from engine.runs.events import Exported, Note, Progress
from engine.worker import build, failures
from engine.worker.session import Session

# Largest difference between logits that rounding explains. Merging adds BA to W once instead of at each product:
# in fp32 that moves a logit by about 1e-4, in 16 bit by a few units in the last place of logits around 20.
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.75, torch.float16: 0.1}
QUESTIONS = ["Who are you?", "What is the capital of France?", "Write one sentence about the sea."]


def run(now: Session, kind: str, to: Path, shard_size: str) -> None:
    """Write the export to `to`, which must not exist yet (an empty folder will do).

    kind  "adapter" (peft loads it onto the base) or "merged" (transformers loads it alone)
    Raises FtuiError(EXPORT_FAILED, DISK_FULL, RUN_STATE).
    """
    result = now.run.result
    if result is None:
        raise FtuiError(Exit.RUN_STATE, "this run has no result to export yet", now.run.name)
    settings = now.recipe.settings
    if kind == "adapter" and not settings.adapts:
        raise FtuiError(Exit.EXPORT_FAILED, f"{settings.method} tuning leaves no adapter", next_step="export it merged")
    if os.path.lexists(to) and (to.is_symlink() or not to.is_dir() or any(to.iterdir())):
        raise FtuiError(
            Exit.EXPORT_FAILED, "the place for the export is no empty folder", str(to), "choose another with --to"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    _check_space(now, kind, to)
    now.journal.write(Progress(what="export: load", done=0, total=3))
    # A new private folder: in a place that others can write to, nobody can have put a link in its way.
    stage = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        reference = _reference(now, result)
        expected = _logits(reference, now)
        now.journal.write(Progress(what="export: write", done=1, total=3))
        if kind == "merged":
            merged = reference.merge_and_unload() if settings.adapts else reference
            merged.generation_config = _plain(merged.generation_config)
            merged.save_pretrained(stage, max_shard_size=shard_size)
            now.tokenizer.save_pretrained(stage)
            dtype = merged.dtype
            del merged
        else:
            shutil.copytree(result, stage, dirs_exist_ok=True)
            dtype = reference.dtype
        del reference
        gc.collect()
        now.journal.write(Progress(what="export: compare", done=2, total=3))
        difference = _difference(expected, _logits(_reloaded(now, kind, stage, dtype), now))
        if difference > TOLERANCE.get(dtype, 1e-2):
            raise FtuiError(
                Exit.EXPORT_FAILED,
                f"the export does not answer like the run: logits differ by up to {difference:.3g}",
                str(to),
                "nothing was written; please report this with the run's recipe",
            )
        if to.exists():
            to.rmdir()
        stage.rename(to)
    except Exception as error:
        if failures.is_disk_full(error):
            raise FtuiError(Exit.DISK_FULL, "the disk is full: nothing was exported", str(to)) from None
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if settings.method == "qlora" and kind == "merged":
        now.journal.write(
            Note(
                text="merged into the unquantised base: answers can differ slightly from the packed base it was tuned on"
            )
        )
    if settings.rope != "none" and kind == "adapter":
        positions = build.config(now.folder, now.recipe.model, settings).rope_parameters
        now.journal.write(Note(text=f"load the base with the positions it was tuned on: rope_parameters={positions}"))
    now.journal.write(Exported(kind="adapter" if kind == "adapter" else "merged", path=str(to), difference=difference))


def _check_space(now: Session, kind: str, to: Path) -> None:
    source = now.run.result if kind == "adapter" else now.folder
    needed = sum(path.stat().st_size for path in (source or now.folder).rglob("*") if path.is_file())
    free = shutil.disk_usage(to.parent).free
    if free < needed * 1.05:
        raise FtuiError(
            Exit.DISK_FULL,
            f"the export needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left",
            str(to.parent),
            "free some space, or choose another place with --to",
        )


def _reference(now: Session, result: Path) -> Any:
    """Base and adapter as they answer, the base unquantised: what the export is measured against."""
    recipe = now.recipe
    if not recipe.settings.adapts:
        return build.base_model(result, recipe.model, recipe.settings).eval()
    base = build.base_model(now.folder, recipe.model, recipe.settings, quantised=False)
    return PeftModel.from_pretrained(base, result).eval()


def _reloaded(now: Session, kind: str, stage: Path, dtype: torch.dtype) -> Any:
    if kind == "adapter":
        return _reference(now, stage)
    return AutoModelForCausalLM.from_pretrained(
        stage,
        dtype=dtype,
        device_map={"": build.device()},
        use_safetensors=True,
        trust_remote_code=now.recipe.model.trust_remote_code,
    ).eval()


@torch.no_grad()
def _logits(model: Any, now: Session) -> list[torch.Tensor]:
    """Logits of every position of a few prompts, each [tokens, vocabulary] in fp32."""
    asked = [check.ask for check in now.recipe.checks.identity][:3] + QUESTIONS
    rows = []
    for question in asked:
        ids = torch.tensor([now.ask(question)])
        rows.append(model(input_ids=ids.to(model.device)).logits[0].float().cpu())
    return rows


def _difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def _plain(config: Any) -> Any:
    """Sampling values beside do_sample=False make `save_pretrained` refuse; they mean nothing there."""
    if not config.do_sample:
        config.temperature = config.top_p = config.top_k = None
    return config


def default_folder(now: Session, kind: str) -> Path:
    return paths.data_dir() / "exports" / f"{now.run.path.name}-{kind}"
