"""One worker's hold on one run: the journal, the base model loaded once, and what is asked of it."""

from __future__ import annotations

import platform
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import torch

from engine import __version__, hardware
from engine.data import tokenizer as row_tokenizer
from engine.data.convert import Message
from engine.data.tokenizer import Tokenizer as RowTokenizer
from engine.models import sources, trust
from engine.recipe import Recipe
from engine.runs.directory import RunDir
from engine.runs.events import State, StateName
from engine.runs.journal import Writer
from engine.worker import build
from engine.worker.decode import Next

STACK = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers")


class Session:
    """What every job needs. `model` is what is trained and what answers; set it once it is built."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.recipe: Recipe = run.recipe()
        self.journal = Writer(run.journal_path)
        self.model: Any = None
        self._original: Any = None
        self.readers: dict[str, Next] = {}  # of the finished model and of its base, with what they have read in chat
        self.asked = {"tuned"}  # which of the two will be asked again

    def enter(self, state: StateName, detail: str = "") -> None:
        self.journal.write(State(state=state, detail=detail))

    @cached_property
    def folder(self) -> Path:
        """Where the base model lies; fetched again if it is gone and can be. Looked through for code before any library does."""
        model = self.recipe.model
        found = sources.resolve(model.source, revision=model.revision)
        trust.check(found, model.trust_remote_code)
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """The result's own tokenizer and template where there is a result: chat must use what training used."""
        return build.tokenizer(
            self.run.result or self.folder, self.recipe.model.trust_remote_code, self.recipe.settings.added_tokens
        )

    @cached_property
    def rows(self) -> RowTokenizer:
        """The same tokenizer and template as the rows were rendered with: one way to write a conversation."""
        return row_tokenizer.load(self.run.result or self.folder, self.recipe.settings.added_tokens)

    @cached_property
    def base_rows(self) -> RowTokenizer:
        """The same as the base knew it, which has never seen a token that the run adds."""
        return row_tokenizer.load(self.folder) if self.recipe.settings.added_tokens else self.rows

    def prompt(self, *messages: Message, base: bool = False) -> list[int]:
        """Ids of a conversation up to where the answer begins, for the tuned model or the base."""
        return (self.base_rows if base else self.rows).prompt(messages)

    def ask(self, question: str, base: bool = False) -> list[int]:
        return self.prompt(Message("user", question), base=base)

    def base_in_chat(self) -> Any:
        """The model as it was before: the adapter switched off (the caller's part), or a second copy of the base."""
        if self.recipe.settings.adapts:
            return self.model
        if self._original is None:
            settings = msgspec.structs.replace(self.recipe.settings, added_tokens=())
            self._original = build.base_model(self.folder, self.recipe.model, settings).eval()
        return self._original


def versions() -> dict[str, str]:
    found = {"ftui": __version__, "python": platform.python_version()}
    for name in STACK:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    return msgspec.to_builtins(hardware.read())


def device_name() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else hardware.read().device_name
