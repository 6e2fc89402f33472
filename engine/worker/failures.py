"""An exception of the stack as the three lines a person gets."""

from __future__ import annotations

import errno
import traceback

import torch

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.runs.events import Failure


def is_disk_full(error: BaseException) -> bool:
    """safetensors and torch wrap ENOSPC in errors of their own that only name it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    # The last is torch's writer noticing at the end that fewer bytes were taken than it gave.
    return any(word in text for word in ("No space left on device", "os error 28", "failed writing", "unexpected pos"))


def describe(error: BaseException, recipe: Recipe | None, run: str) -> Failure:
    """Cause, place and next step. The traceback goes to the worker's log, which is stderr here."""
    traceback.print_exception(error)
    if isinstance(error, FtuiError):
        return Failure(cause=error.cause, where=error.where, next_step=error.next_step, code=int(error.code))
    if is_disk_full(error):
        return Failure(
            cause="the disk is full",
            where="the last checkpoint is intact",
            next_step=f"free some space, then `ftui resume {run}`",
            code=int(Exit.DISK_FULL),
        )
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        settings = recipe.settings if recipe else None
        if settings is None:
            return Failure(cause="out of memory", code=int(Exit.RUN_FAILED))
        smaller = max(1, settings.micro_batch // 2)
        hint = (
            f"--edit micro_batch={smaller} --edit accumulation={settings.accumulation * settings.micro_batch // smaller}"
            if settings.micro_batch > 1
            else "--edit gradient_checkpointing=true, or --method qlora"
        )
        return Failure(
            cause=f"out of memory at {settings.micro_batch} rows of up to {settings.max_length} tokens",
            next_step=f"train again with {hint}",
            code=int(Exit.RUN_FAILED),
        )
    first = " ".join(str(error).split())[:300]
    return Failure(
        cause=f"{type(error).__name__}: {first}",
        next_step=f"the whole report: `ftui logs {run}`",
        code=int(Exit.RUN_FAILED),
    )
