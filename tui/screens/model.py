"""Model: which model a new run starts from. Models that are here, or any other by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import Exit, FtuiError
from engine.text import safe, shorten
from tui.ask import Ask
from tui.frame import BAD, FAINT, GOOD, told
from tui.listing import pad
from tui.rows import Rows
from tui.screens.by_name import ANOTHER, ByName

if TYPE_CHECKING:
    from engine.models.facts import ModelFacts


def parameters(count: int | None) -> str:
    """ "135 M", "7.6 B"; empty where it is not known."""
    if count is None:
        return ""
    return (
        f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
    )


class ModelLine(Struct, frozen=True):
    key: str  # what the recipe calls the model
    title: str
    where: str
    parameters: int | None

    def line(self, width: int) -> Content:
        title = min(44, width - 34)
        ready = self.where == "ready"
        return Content.assemble(
            pad(self.title, title),
            (pad(parameters(self.parameters), 10, right=True) + "  ", FAINT),
            ("✓ " if ready else "↓ ", GOOD if ready else FAINT),
            (shorten(self.where, width - title - 14), FAINT),
        )


class AnotherLine(Struct, frozen=True):
    key: str = ANOTHER

    def line(self, width: int) -> Content:
        return Content.assemble("Another …", ("  hub id, folder or .gguf file", FAINT))


class ModelScreen(ByName):
    """First step of a new run."""

    WHAT = "model"
    HINT = "hub id, folder or .gguf file; tab completes"
    STEP = "model"
    CSS_PATH = "model.tcss"
    HELP = (
        "The base model that will be tuned. ✓ is on this machine; ↓ is fetched when the run is prepared. "
        "Any other model can be typed or pasted: a hub id like owner/name, a folder with safetensors, or a .gguf file."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "another('/')",
            "Another",
            key_display="/",
            priority=True,  # it acts before the next key is given to anybody: a path can be typed at once
            id="model.another",
            tooltip="Name any other model",
        ),
    ]

    def body(self) -> ComposeResult:
        yield Rows(id="models", verb="Data")
        yield Ask(id="ask")
        yield Rule(line_style="solid")
        yield Static(Content.styled("reading …", FAINT), id="facts", markup=False)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#models"))  # at once: what is typed early may open the field
        self.in_thread(known, self._show)

    def _show(self, models: list[ModelLine]) -> None:
        rows = self.query_one("#models", Rows)
        chosen = self.wizard.choice.model if self.wizard.choice else "starter"
        if chosen not in [line.key for line in models]:
            models.append(ModelLine(chosen, safe(chosen), "chosen before", None))
        rows.show([*models, AnotherLine()])
        rows.put_cursor(chosen)

    # facts of the model under the cursor ---------------------------------------------------------------------------

    def on_rows_moved(self, event: Rows.Moved) -> None:
        if event.item.key == ANOTHER:
            self.query_one("#facts", Static).update(Content.styled("Press enter and name it.", FAINT))
        else:
            source = event.item.key
            self.in_thread(
                lambda: facts_of(source), lambda words: self._show_facts(source, words), group="facts", exclusive=True
            )

    def _show_facts(self, source: str, words: Content) -> None:
        rows = self.query_one("#models", Rows)
        if rows.current is not None and rows.current.key == source:
            self.query_one("#facts", Static).update(words)

    # choosing ---------------------------------------------------------------------------------------------------

    def take(self, text: str) -> None:
        self.choose(named(text))

    def choose(self, source: str, allowed: bool = False) -> None:
        choice = self.wizard.picked()
        allowed = allowed or (source == choice.model and choice.trust_remote_code)
        if not allowed and (files := code_wanted(source)):
            self._ask_for_code(source, files)
            return
        if source != choice.model or allowed != choice.trust_remote_code or self.wizard.draft is None:
            self.wizard.draft = None
            self.wizard.choice = msgspec.structs.replace(choice, model=source, trust_remote_code=allowed)
        self.go("data")

    def _ask_for_code(self, source: str, files: list[str]) -> None:
        """A model's own code can do whatever the person can: only the whole word lets it run."""

        def answered(word: str) -> None:
            if word.lower() != "yes":
                raise FtuiError(Exit.MODEL_CODE, "it is not run; escape, and take another model")
            self.choose(source, allowed=True)

        self.query_one(Ask).ask(
            "run its code?", "", answered, f"read it first: {', '.join(files)}; then type yes", short=True
        )


def known() -> list[ModelLine]:
    """The models that can be offered without asking anybody."""
    from engine.models import sources

    return [ModelLine(m.source, safe(m.title), safe(m.where), m.parameters) for m in sources.known()]


def named(source: str) -> str:
    """A model's name as typed, checked as far as can be done at once. Raises FtuiError saying what is wrong."""
    from engine.models import sources

    if not source:
        raise FtuiError(Exit.MODEL_MISSING, "name a model, or escape")
    kind = sources.kind(source)
    path = Path(source).expanduser()
    if kind == "gguf" and not path.is_file():
        raise FtuiError(Exit.MODEL_MISSING, "no such file")
    if kind == "folder" and not path.is_dir():
        raise FtuiError(Exit.MODEL_MISSING, "no such folder; a hub id is owner/name")
    if kind == "folder" and sources.local(source) is None:
        raise FtuiError(Exit.MODEL_MISSING, "no config.json in this folder")
    return source


def code_wanted(source: str) -> list[str]:
    """The files of code that the model cannot do without; empty where it needs none, or is not here yet."""
    from engine.models import sources, trust

    folder = sources.local(source)
    if folder is None:
        return []
    try:
        trust.check(folder)
    except FtuiError as error:
        return trust.code(folder) if error.code == Exit.MODEL_CODE else []
    return []


def facts_of(source: str) -> Content:
    """What the model is, in words; why it cannot be read where that is so."""
    from engine.models import facts, sources

    folder = sources.local(source)
    if folder is None:
        return Content.styled("It is fetched when you go on; what it is can be read then.", FAINT)
    try:
        return describe(facts.read(folder))
    except FtuiError as error:
        return Content.styled("✗ " + told(error), BAD)


def describe(facts: ModelFacts) -> Content:
    """What a model is, in three lines."""
    from engine.models import shape

    end = f"end token {facts.eos}" if facts.eos else "no end token"
    template = "a chat template of its own" if facts.has_template else "no chat template"
    talks = f"{template}, {end}" if facts.shape == "causal" else shape.NAMES[facts.shape]
    return Content.assemble(
        (safe(f"{facts.architecture}, {parameters(facts.parameters)} parameters in {facts.dtype}"), "bold"),
        "\n",
        (f"{facts.layers} layers of {facts.hidden}, {facts.heads} heads ({facts.kv_heads} for keys and values)", FAINT),
        "\n",
        (safe(f"{facts.context:,} tokens of context, vocabulary {facts.vocabulary:,}, {talks}"), FAINT),
    )
