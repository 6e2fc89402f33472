"""An exception of the stack: what kind of failure it is, and the three lines that a person gets."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import traceback
from collections.abc import Sequence
from typing import Literal

import torch

from engine import hardware
from engine.errors import Exit, FtuiError
from engine.recipe import Recipe, Settings
from engine.runs import recovery
from engine.runs.events import Failure, Retry
from engine.secrets import redacted
from engine.text import size

# What torch, CUDA's libraries and the kernel say when there is no room; torch's own class does not cover them all.
_NO_MEMORY = re.compile(
    r"out of memory|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|can.?t allocate memory|cannot allocate memory",
    re.IGNORECASE,
)
_GPU_LOST = re.compile(
    r"illegal memory access|device-side assert|unspecified launch failure|GPU is lost|fallen off the bus"
    r"|uncorrectable ECC error|misaligned address|illegal instruction was encountered|CUDA-capable device\(s\) is/are busy"
    r"|no CUDA-capable device",
    re.IGNORECASE,
)
_DRIVER = re.compile(
    r"driver/library version mismatch|CUDA driver version is insufficient|NVIDIA driver on your system is too old"
    r"|system has unsupported display driver / cuda driver combination",
    re.IGNORECASE,
)

Kind = Literal["memory", "nan", "gpu", "driver", "disk", ""]


class NotANumber(FtuiError):
    """A loss, a gradient norm or a weight is NaN or infinite."""

    def __init__(self, what: str) -> None:
        super().__init__(Exit.RUN_FAILED, what, "nothing of this step was saved")


def kind(error: BaseException) -> Kind:
    """Which row of the failure table (docs/reliability.md) it belongs to; "" for any other."""
    text = str(error)
    if is_disk_full(error):
        return "disk"
    if isinstance(error, NotANumber):
        return "nan"
    if isinstance(error, FtuiError):
        return ""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(text):
        return "memory"
    if _DRIVER.search(text):
        return "driver"
    return "gpu" if _GPU_LOST.search(text) else ""


def is_disk_full(error: BaseException) -> bool:
    """safetensors and torch wrap ENOSPC in errors of their own that only name it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    # The last is torch's writer noticing at the end that fewer bytes were taken than it gave.
    return any(word in text for word in ("No space left on device", "os error 28", "failed writing", "unexpected pos"))


def describe(error: BaseException, recipe: Recipe | None, run: str, tries: Sequence[Retry] = ()) -> Failure:
    """Cause, place and next step. The traceback goes to the worker's log, which is stderr here.

    run    the name by which `ftui resume` finds it
    tries  what ftui has tried by itself before this, the newest first
    """
    traceback.print_exception(error)
    match kind(error):
        case "disk":
            return Failure(
                cause="the disk is full",
                where="the last checkpoint is intact",
                next_step=f"free some space, then `ftui resume {run}`",
                code=int(Exit.DISK_FULL),
            )
        case "memory" if recipe is not None:
            return _no_memory(recipe.settings, run, tries)
        case "memory":
            return Failure(cause="out of memory", next_step=f"the whole report: `ftui logs {run}`")
        case "nan" if recipe is not None and isinstance(error, FtuiError):
            return _offering(
                recipe.settings, "nan", run, Failure(cause=error.cause, where=_tried(tries) or error.where)
            )
        case "driver":
            return Failure(
                cause=f"the NVIDIA driver does not fit: {_first(error)}",
                where="most often it was updated and the old one is still loaded",
                next_step=f"restart the machine (or reload the driver), then `ftui resume {run}`",
            )
        case "gpu":
            return Failure(
                cause=f"the GPU has failed: {_first(error)}",
                where=_tried(tries),
                next_step=f"restart the machine (or reset the card), then `ftui resume {run}`",
            )
    if isinstance(error, (ImportError, OSError)) and "bitsandbytes" in str(error):
        return Failure(
            cause=f"4-bit and 8-bit loading need bitsandbytes, which does not work here: {_first(error)}",
            next_step="`ftui doctor` says how to mend it; --method lora does without",
        )
    if isinstance(error, FtuiError):
        return Failure(cause=error.cause, where=error.where, next_step=error.next_step, code=int(error.code))
    words = " ".join(redacted(str(error)).split())[:300]
    return Failure(cause=f"{type(error).__name__}: {words}", next_step=f"the whole report: `ftui logs {run}`")


def _no_memory(settings: Settings, run: str, tries: Sequence[Retry]) -> Failure:
    unit = "pack" if settings.packing else "row"
    rows = f"1 {unit}" if settings.micro_batch == 1 else f"{settings.micro_batch} {unit}s"
    saving = ", with gradient checkpointing" if settings.gradient_checkpointing else ""
    others = _others()
    where = "; ".join(word for word in (_tried(tries), f"also on this card: {others}" if others else "") if word)
    cause = f"out of memory at {rows} of up to {settings.max_length} tokens{saving}"
    return _offering(settings, "memory", run, Failure(cause=cause, where=where))


def _offering(settings: Settings, kind: recovery.Kind, run: str, failure: Failure) -> Failure:
    """`failure` with what the person may agree to: the first change as a command, the second as another option of it."""
    four_bit = importlib.util.find_spec("bitsandbytes") is not None  # found, not imported
    found = recovery.offers(settings, kind, four_bit)
    failure.next_step = f"`ftui resume {run}` tries again"
    if found:
        failure.offer = found[0].settings
        failure.next_step = f"`ftui resume {run} {found[0].options}`: {found[0].text}"
        failure.next_step += "".join(f"; or {change.options}: {change.text}" for change in found[1:2])
    return failure


def _others(most: int = 3) -> str:
    """Who else computes on the card that trains, as the driver tells it: "python of alice (12 GB)"."""
    if not torch.cuda.is_available():
        return ""
    first = next(iter(hardware.users().values()), [])  # of the visible cards the one that torch takes
    found = [user for user in first if user.pid != os.getpid()]
    words = []
    for user in found[:most]:
        who = f"{user.program} of {user.user}" if user.program else "a process that is not seen from here"
        words.append(who + (f" ({size(user.memory)})" if user.memory else ""))
    return ", ".join(words) + (f" and {len(found) - most} more" if len(found) > most else "")


def _tried(tries: Sequence[Retry]) -> str:
    """ "tried 3 times: …" when there was more than one try."""
    if not tries:
        return ""
    changes = ", ".join(one.change for one in reversed(tries))
    return f"tried {len(tries) + 1} times: as planned, {changes}"


def _first(error: BaseException) -> str:
    """The first sentence or so of its message: CUDA's go on with advice for programmers."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return redacted(" ".join(line.split()))[:300]
