"""Importing without looking for garbage, which there is none of: the libraries make half a million objects that stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What is imported meanwhile is left out of every later search for garbage.

    The collector would go through all of it again and again while it grows (a sixth of the time), and later whenever much is
    made at once: a tokenizer's vocabulary, a model's modules, the trainer's own call of `gc.collect` (a quarter of a
    second each).
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()
