"""One chat request, answered by the base or by the tuned model."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import torch

from engine.worker import build, decode, generate
from engine.worker.service import Ask, Client
from engine.worker.session import Session


def ready(now: Session) -> None:
    """Make what reads for the tuned model, and for the base once it was asked; kept from turn to turn with what it has read.
    Not while the model learns: merged copies and keys and values would be those of an earlier step."""
    for which in sorted(now.asked - now.readers.keys(), reverse=True):
        model, as_asked = _asked(now, which)
        with as_asked:
            now.readers[which] = decode.reader(model, which != "base", short=True)


def _asked(now: Session, which: str) -> tuple[Any, contextlib.AbstractContextManager[Any]]:
    """The tuned model, or the base: a model, and what switches its adapter off."""
    if which != "base":
        return now.model, contextlib.nullcontext()
    model = now.base_in_chat()
    return model, model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()


def reply(now: Session, client: Client, ask: Ask) -> None:
    """Stream the answer to `client`; leaves the model in the mode (training or not) that it was in."""
    if client.gone:
        return
    model, training = now.model, now.model.training
    which = "base" if ask.which == "base" else "tuned"
    try:
        model, as_asked = _asked(now, which)
        sampling = generate.Sampling(
            temperature=ask.temperature, top_p=ask.top_p, max_tokens=max(1, min(ask.max_tokens, 8192)), seed=ask.seed
        )
        ids = now.prompt(*ask.messages, base=which == "base")
        limit = build.context(model)
        if limit and len(ids) >= limit:
            client.send({"id": ask.id, "error": f"the conversation has {len(ids)} tokens, the model takes {limit}"})
            return
        model.eval()
        began, last = time.monotonic(), generate.Piece(reason="end")
        now.asked.add(which)
        with as_asked:
            # A faster reader takes a second to make: it is made when nobody waits for an answer.
            source = now.readers.get(which) or decode.Plain(model)
            ends = generate.stop_ids(model, now.tokenizer)
            pieces = generate.stream(
                source, now.tokenizer, ids, sampling, ends, lambda: client.gone or ask.id in client.stopped
            )
            for last in pieces:
                if last.text:
                    client.send({"id": ask.id, "text": last.text})
        seconds = time.monotonic() - began
        client.send({"id": ask.id, "done": True, "reason": last.reason, "tokens": last.tokens, "seconds": seconds})
    except torch.OutOfMemoryError:
        client.send({"id": ask.id, "error": "out of memory: shorten the conversation or the answer"})
    except Exception as error:  # a question must never end the worker
        client.send({"id": ask.id, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
    finally:
        model.train(training)
