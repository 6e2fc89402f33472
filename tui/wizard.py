"""The new run while it is being put together: one choice, its draft made in the background, four screens that show it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.signal import Signal
from textual.worker import get_current_worker

from engine.errors import FtuiError
from tui.frame import FAINT, Frame

if TYPE_CHECKING:
    from engine.draft import Choice, Draft
    from engine.runs.control import Warm
    from tui.app import FtuiApp

STEPS = ("model", "data", "plan", "review")


class Wizard:
    """What the person has picked so far, and what it means.

    choice    None until something is picked
    draft     the newest draft; None while there is none, and when it could not be made. While a large data set is read it
              is a first picture of its first rows (`draft.partial`)
    error     why there is no draft
    progress  (what, done, total) of the draft that is being made
    version   counts the drafts that were begun, to tell one from the next; an edited one is still the same
    rate      how many of those a second, once that can be told
    """

    def __init__(self, app: FtuiApp) -> None:
        self._app = app
        self.version = 0
        self.changed: Signal[Wizard] = Signal(app, "draft changed")
        self.choice: Choice | None = None
        self.draft: Draft | None = None
        self.error: FtuiError | None = None
        self.progress: tuple[str, int, int] | None = None
        self.rate = 0.0
        self._began: tuple[str, float] = ("", 0.0)  # what progress tells of now, and since when
        self.warm: Warm | None = None
        self._warming = False

    @property
    def making(self) -> bool:
        return self.progress is not None

    @property
    def whole(self) -> Draft | None:
        """The draft, once all rows are in it."""
        return None if self.draft is None or self.draft.partial else self.draft

    def picked(self) -> Choice:
        """The choice to change: the one there is, or a fresh one."""
        from engine.draft import Choice

        if self.choice is None:
            self.choice = Choice()
        return self.choice

    @property
    def has_rows(self) -> bool:
        """Whether the choice says where the rows come from."""
        if self.choice is None:
            return False
        if self.choice.data is not None:
            return True
        return self.choice.preset is not None and brings_rows(self.choice.preset)

    @property
    def edited(self) -> bool:
        """Whether the person has picked or changed anything beyond a preset as it comes."""
        from engine.draft import Choice

        return self.choice is not None and self.choice != Choice(preset=self.choice.preset)

    @property
    def name(self) -> str:
        """What the run of this draft would be called, as far as that is known. Foreign text, not yet safe."""
        if self.draft is not None:
            return self.draft.recipe.name
        return "" if self.choice is None else self.choice.name or self.choice.preset or ""

    def reset(self) -> None:
        self.version += 1
        self.choice, self.draft, self.error, self.progress = None, None, None, None
        self.changed.publish(self)

    def begin(self, choice: Choice) -> None:
        """Make the draft of `choice` in a thread; `changed` tells how it goes and when it is there."""
        self.choice = choice
        self._begin(lambda: choice)

    def begin_preset(self, name: str) -> None:
        """The same for a preset as it comes. Even the import of what a choice is waits for the thread."""

        def choose() -> Choice:
            from engine.draft import Choice

            return Choice(preset=name)

        self.choice = None
        self._begin(choose)

    def _begin(self, choose: Callable[[], Choice]) -> None:
        self.version += 1
        self.draft, self.error, self.progress = None, None, ("reading the rows", 0, 0)
        self.changed.publish(self)
        self._app.run_worker(
            partial(self._make, self.version, choose), thread=True, group="draft", exclusive=True, name="draft"
        )

    def _make(self, version: int, choose: Callable[[], Choice]) -> None:
        from engine import draft as drafts

        choice = choose()
        worker = get_current_worker()

        def report(what: str, done: int, total: int) -> None:
            if not worker.is_cancelled:
                self._app.call_from_thread(self._report, version, (what, done, total))

        def early(first: Draft) -> None:
            if not worker.is_cancelled:
                self._app.call_from_thread(self._early, version, choice, first)

        made: Draft | None = None
        error: FtuiError | None = None
        try:
            made = drafts.make(choice, report, early, strict=False)
        except FtuiError as problem:
            error = problem
        except Exception as problem:  # a fault of ours must not take the screen away from the person
            from engine.errors import Exit

            error = FtuiError(
                Exit.UNEXPECTED, f"{type(problem).__name__}: {problem}", next_step="this is a fault in ftui"
            )
        if not worker.is_cancelled:
            self._app.call_from_thread(self._made, version, choice, made, error)

    def _report(self, version: int, progress: tuple[str, int, int]) -> None:
        if version == self.version:
            what, done, _ = progress
            if what != self._began[0]:
                self._began = (what, monotonic())
            seconds = monotonic() - self._began[1]
            self.progress, self.rate = progress, done / seconds if seconds > 0.2 else 0.0
            self.changed.publish(self)

    def _early(self, version: int, choice: Choice, first: Draft) -> None:
        if version == self.version:
            self.choice, self.draft = choice, first
            self.changed.publish(self)

    def _made(self, version: int, choice: Choice, made: Draft | None, error: FtuiError | None) -> None:
        if version == self.version:
            before, self.choice = self.draft, choice
            self.draft, self.error, self.progress, self.rate = made, error, None, 0.0
            if before is not None and made is not None and before.choice.edits != choice.edits:
                self.edit(before.choice.edits)  # what was changed while the rest was read
            else:
                self.changed.publish(self)

    def edit(self, edits: dict[str, Any]) -> None:
        """Replace the edits and plan again, at once. Raises FtuiError for an edit that does not fit."""
        if self.draft is None:
            return
        from engine import draft as drafts

        self.take(drafts.replan(self.draft, edits))

    def take(self, draft: Draft) -> None:
        """Put another draft in place of this one."""
        self.draft, self.choice = draft, draft.choice
        self.changed.publish(self)

    def prewarm(self) -> None:
        """Let a worker do its slow imports while the person is still choosing."""
        if not self._warming and self.warm is None:
            self._warming = True
            self._app.run_worker(self._prewarm, thread=True, group="prewarm", exit_on_error=False)

    def _prewarm(self) -> None:
        from engine.runs import control

        self.warm = control.prewarm()
        self._warming = False

    def take_warm(self) -> Warm | None:
        """The warm worker, once: a run takes it over."""
        warm, self.warm = self.warm, None
        return warm


def brings_rows(preset: str) -> bool:
    """Whether a preset has rows of its own; one that cannot be read has none, and the draft says what is wrong with it."""
    from engine import presets

    try:
        return presets.load(preset).data is not None
    except FtuiError:
        return False


def progress_words(progress: tuple[str, int, int] | None) -> str:
    """ "counting tokens, 1,200 of 91,000" for what lasts."""
    if progress is None:
        return ""
    what, done, total = progress
    if not total:
        return f"{what} …"
    if total > 10_000_000:  # bytes
        return f"{what}, {done / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{what}, {done:,} of {total:,}"


def command(choice: Choice | None, *verb: str) -> str:
    """The command line that does the same as this choice; `verb`, with options of its own, in the place of `train`."""
    words = ["ftui", *(verb or ("train",))]
    if choice is None:
        return " ".join(words)
    if choice.preset:
        words += ["--preset", choice.preset]
    if choice.model != "starter" or not choice.preset:
        words += ["--model", choice.model]
    if choice.trust_remote_code:
        words.append("--trust-remote-code")
    for source in (choice.data, *choice.more):
        words += ["--data", source] if source else []
    for option, value in (
        ("--name", choice.name),
        ("--stage", choice.stage),
        ("--reward", choice.reward),
        ("--goal", choice.goal and choice.goal.replace(" ", "-")),
        ("--deadline", choice.deadline and f"{choice.deadline:.0f}s"),
        ("--method", choice.method),
        ("--prompt", choice.prompt),
        ("--completion", choice.completion),
        ("--system", choice.system),
        ("--subset", choice.subset),
        ("--split", choice.split),
    ):
        words += [option, value] if value else []
    for role, column in choice.columns.items():
        words += ["--columns", f"{role}={column}"]
    for number, source in enumerate(choice.more, 2):
        if said := choice.said.get(source):
            templates = {"prompt": said.prompt, "completion": said.completion}
            for role, column in (said.columns | {role: text for role, text in templates.items() if text}).items():
                words += ["--columns", f"{number}:{role}={column}"]
    for name, value in choice.values.items():
        words += ["--set", f"{name}={value}"]
    for edit in edits(choice.edits):
        words += ["--edit", edit]
    for later in choice.then:
        words += ["--then", later.word]
        for edit in edits(later.edits):
            words += ["--edit", f"{later.stage}.{edit}"]
    if choice.on_bad_row != "abort":
        words += ["--bad-rows", choice.on_bad_row]
    return shlex.join(words)


def edits(made: dict[str, Any]) -> list[str]:
    """Edits as the command line takes them, FIELD=VALUE each."""
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in made.items()]


class Step(Frame):
    """One of the four screens of a new run. Subclasses say what to do when the draft changes: `drafted`."""

    STEP: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "previous", "Step back", show=False, id="new.previous"),
        Binding("ctrl+n", "fresh", "Begin anew", show=False, id="new.fresh"),
    ]
    _about: tuple[int, Choice | None] = 0, None  # the draft that a notice here speaks of

    @property
    def wizard(self) -> Wizard:
        return self.ftui.wizard

    def on_mount(self) -> None:
        title: list[str | Content | tuple[str, str]] = [("New run  ", "bold")]
        for index, step in enumerate(STEPS):
            title += [(" › ", FAINT)] if index else []
            title.append((step.capitalize(), "bold underline" if step == self.STEP else FAINT))
        self.heading = Content.assemble(*title)
        self.wizard.changed.subscribe(self, self._changed, immediate=True)
        self.wizard.prewarm()
        self._changed(self.wizard)

    def _changed(self, wizard: Wizard) -> None:
        self.command = command(wizard.choice)
        before, self._about = self._about, (wizard.version, wizard.choice)
        if before not in (self._about, (wizard.version, None)):  # a choice that is known by now is no other one
            self.notice("")
        self.drafted()

    def drafted(self) -> None:
        """The draft changed, or how far it has come."""

    def go(self, step: str) -> None:
        self.ftui.new_run(step)

    def action_previous(self) -> None:
        if before := self.before():
            self.go(before)
        else:
            self.ftui.back()

    def before(self) -> str:
        """The step that escape goes to; empty at the first."""
        index = STEPS.index(self.STEP)
        return STEPS[index - 1] if index else ""

    def action_fresh(self) -> None:
        self.wizard.reset()
        self.go("model")


def make_step(step: str) -> Screen:
    """The screen of a step."""
    if step == "model":
        from tui.screens.model import ModelScreen

        return ModelScreen()
    if step == "source":
        from tui.screens.source import SourceScreen

        return SourceScreen()
    if step == "data":
        from tui.screens.data import DataScreen

        return DataScreen()
    if step == "plan":
        from tui.screens.plan import PlanScreen

        return PlanScreen()
    from tui.screens.review import ReviewScreen

    return ReviewScreen()
