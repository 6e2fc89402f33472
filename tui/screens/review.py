"""Review: the run in one sentence and a few lines, the whole recipe, and the key that starts it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Rule, Static

from engine.advice.fields import METHODS, trains
from engine.errors import FtuiError
from engine.recipe import LOW_RANK
from engine.text import number, plural, safe, shorten
from tui import machine
from tui.ask import Ask
from tui.frame import BAD, FAINT, WARN, told
from tui.screens.fixing import fill_in, placeholders
from tui.screens.plan import show_warnings
from tui.widgets.choice import Choice
from tui.wizard import Step, command, progress_words

if TYPE_CHECKING:
    from engine.draft import Draft
    from engine.runs.directory import RunDir
    from engine.runs.occupancy import Spot

LOOK = 3.0  # seconds between two looks at who uses what
LABEL = 8  # cells of the words at the left


class ReviewScreen(Step):
    """Last step of a new run: enter starts it."""

    STEP = "review"
    CSS_PATH = "review.tcss"
    HELP = (
        "What will be run, all of it. Enter starts it in the background, where it goes on whatever happens to this terminal. "
        "Where another run trains, or others use the card, it waits in line and starts by itself; ↑↓ choose another card, or "
        "to start at once. "
        "t lets another stage follow by itself: DPO after SFT, as a run of its own that begins from this one's adapter. "
        "Below the rule stands the recipe; the same file with `ftui train` repeats the run."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="review.start", tooltip="Start training in the background"),
        Binding("n", "name", "Name", id="review.name", tooltip="Give the run another name"),
        Binding("t", "then", "Then", id="review.then", tooltip="Let another stage follow, as a run of its own"),
        Binding("f", "fill", "Fill in", id="review.fill", tooltip="Change what stands in for placeholders"),
        Binding("d", "data", "Data", id="review.data", tooltip="Look at the rows"),
        Binding("e", "plan", "Plan", id="review.plan", tooltip="Look at the plan and edit it"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._wanted: int | None = None  # the version of the draft that enter was pressed for before it was there
        self._starting = False
        self._spots: list[Spot] = []
        self._looking = False

    def body(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield Static("", id="sentence", markup=False)
            yield Static("", id="about", markup=False)
            yield Static("", id="warnings", markup=False)
            yield Choice([("auto", "", "")], id="place", disabled=True)
            yield Static("", id="trouble", markup=False)
            yield Rule(line_style="solid")
            yield Static("", id="yaml", markup=False)
        yield Ask(id="ask")

    def on_mount(self) -> None:
        place = self.query_one("#place", Choice)
        self._show_places()
        place._bindings.key_to_bindings.pop("enter")  # that is the screen's: it starts
        self._look()
        self.set_interval(LOOK, self._look)
        if self.wizard.draft is None and not self.wizard.making:
            if self.wizard.has_rows:
                self.wizard.begin(self.wizard.picked())
            else:
                self.call_after_refresh(self.go, "source")

    def on_screen_resume(self) -> None:
        self._look()
        if self._waits:
            self._promise()

    def _look(self) -> None:
        """See who uses what, unless that is going on or nobody looks."""
        if not self._looking and self.is_current:
            self._looking = True
            self.in_thread(self._read, self._seen, group="places")

    def _read(self) -> list[Spot]:
        from engine.runs import occupancy

        try:
            return occupancy.look()
        finally:
            self._looking = False

    def _seen(self, spots: list[Spot]) -> None:
        if spots == self._spots:
            return
        self._spots = spots
        self.drafted()

    def _show_places(self) -> None:
        """The picker, while there is a plan and more than one way to start it."""
        place, options = self.query_one("#place", Choice), machine.places(self._spots)
        appears = place.disabled
        place.display = bool(options) and self.wizard.draft is not None
        place.disabled = not place.display  # else it could get the focus while it is hidden
        if options and options != place.options:
            place.options = options
            place.refresh(layout=True)
        if place.chosen not in [name for name, _, _ in options]:
            place.chosen = "auto"
        if place.display and appears and not self.query_one(Ask).display:
            place.focus()

    def on_choice_changed(self) -> None:
        self.drafted()

    def drafted(self) -> None:
        self._show_places()
        chosen = self.query_one("#place", Choice).chosen
        words = {"auto": "", "now": " --now"}.get(chosen, f" --gpu {chosen.removeprefix('gpu-')}")
        self.command = command(self.wizard.choice) + words
        draft, problem = self.wizard.draft, self.wizard.error
        sentence = self.query_one("#sentence", Static)
        for part in ("#about", "#warnings", "Rule", "#yaml"):
            self.query_one(part).display = draft is not None
        if problem is not None:
            sentence.update(Content.styled("✗ " + told(problem), BAD))
            self.notice("")  # what was promised or refused was so of a draft that could be made
        elif draft is None:
            sentence.update(Content.styled(progress_words(self.wizard.progress), FAINT))
        else:
            from engine import draft as drafts
            from engine import recipe

            sentence.update(Content.styled(safe(draft.plan.sentence), "bold"))
            self._show_about()
            self._show_trouble(chosen, draft)
            show_warnings(self.query_one("#warnings", Static), draft)
            self.query_one("#yaml", Static).update(
                Content.styled(safe(recipe.to_yaml(drafts.whole(draft)), newlines=True), FAINT)
            )
            if self._waits and not draft.partial:
                self.action_start()
        self.refresh_bindings()

    def on_resize(self) -> None:
        self._show_about()

    def _show_about(self) -> None:
        if (draft := self.wizard.draft) is not None:
            width = self.app.size.width - 6  # beside margins and the bar
            self.query_one("#about", Static).update(about(draft, machine.where(self._spots), width))

    def _show_trouble(self, chosen: str, draft: Draft) -> None:
        need = draft.plan.memory.total if draft.plan.memory else 0
        words = machine.trouble(self._spots, chosen, need)
        line = self.query_one("#trouble", Static)
        line.display = bool(words)
        line.update(Content.styled(f"! {safe(words)}", WARN))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        draft = self.wizard.draft
        match action:
            case "start":
                return self.wizard.error is None
            case "name" | "plan":
                return draft is not None
            case "then":
                return self.wizard.choice is not None and not self.wizard.making
            case "fill":
                return draft is not None and bool(placeholders(draft))
        return True

    # acting -----------------------------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Start, or start as soon as the plan is there; say why where nothing can start."""
        from engine import draft as drafts

        draft = self.wizard.whole
        if draft is None:
            self._wanted = self.wizard.version
            self._promise()
            return
        self._wanted = None
        if reasons := drafts.refusals(draft):
            self.notice(f"cannot start: {reasons[0]}", "bad")
        elif not self._starting:
            self._starting = True
            self.notice("starting …", seconds=600)
            chosen = self.query_one("#place", Choice).chosen
            self.run_worker(lambda: self._start(draft, chosen), thread=True, group="start")

    @property
    def _waits(self) -> bool:
        """Whether this draft starts as soon as it is there; a promise does not pass to the next one."""
        return self._wanted == self.wizard.version and self.wizard.error is None

    def _promise(self) -> None:
        self.notice("starts as soon as the plan is ready; escape takes that back", seconds=600)

    def _start(self, draft: Draft, chosen: str) -> None:
        from engine import draft as drafts

        gpu = int(chosen.removeprefix("gpu-")) if chosen.startswith("gpu-") else None
        try:
            run = drafts.start(draft, gpu=gpu, warm=self.wizard.take_warm(), now=chosen == "now")
        except (FtuiError, OSError) as error:
            self._starting = False
            self.app.call_from_thread(self.error, error)
        else:
            self.app.call_from_thread(self._started, run)

    def _started(self, run: RunDir) -> None:
        self.ftui.show_train(run)
        self.ftui.forget_new_run()

    def action_previous(self) -> None:
        if self._waits:
            self._wanted = None
            self.notice("not started")
        else:
            super().action_previous()

    def action_name(self) -> None:
        if (draft := self.wizard.draft) is not None:
            self.query_one(Ask).ask("name", draft.recipe.name, self._rename)

    def _rename(self, text: str) -> None:
        from engine import draft as drafts
        from engine import recipe

        if not text:
            raise ValueError("a run needs a name")
        if (draft := self.wizard.draft) is not None:
            self.wizard.take(drafts.renamed(draft, recipe.slug(text)))

    def action_then(self) -> None:
        if (choice := self.wizard.choice) is not None:
            words = shlex.join(later.word for later in choice.then)
            hint = "STAGE:ROWS, as in dpo:pairs.json; nothing for no more"
            self.query_one(Ask).ask("then", words, self._follow, hint)

    def _follow(self, text: str) -> None:
        """Let these stages follow; what was changed of one that is still there stays."""
        from engine import chain

        choice = self.wizard.choice
        if choice is None:
            return
        edits = {later.stage: later.edits for later in choice.then}
        later = [chain.parse(word) for word in shlex.split(text)]
        then = [msgspec.structs.replace(one, edits=edits.get(one.stage, {})) for one in later]
        self.wizard.begin(msgspec.structs.replace(choice, then=then))

    def action_fill(self) -> None:
        fill_in(self)

    def action_data(self) -> None:
        self.go("data")

    def action_plan(self) -> None:
        self.go("plan")


def about(draft: Draft, where: str = "", width: int = 120) -> Content:
    """What will be run, in a few lines of `width` cells. `where` it runs, as `machine.where` says it."""
    recipe, settings = draft.recipe, draft.plan.settings
    source = recipe.data.source
    rows = source.replace("preset:", "preset ") if source.startswith("preset:") else Path(source).name
    values = "".join(f", {name} {value}" for name, value in recipe.data.values.items())
    method = trains(settings)
    if settings.method in LOW_RANK:
        layers = "attention" if settings.targets == "attention" else "all linear layers"
        method = f"{METHODS[settings.method]} of rank {settings.rank} on {layers}"
    lines = [
        ("name", recipe.name),
        ("model", draft.facts.name),
        ("rows", f"{rows}, {plural(len(draft.dataset.examples), 'row')}{values}"),
        ("method", f"{method}, {settings.precision}"),
        (
            "steps",
            f"{draft.plan.steps:,} of {plural(recipe.effective_batch, 'row')}, {number(settings.epochs)} epochs, "
            f"learning rate {number(settings.learning_rate)}",
        ),
    ]
    if where:
        lines.append(("on", where))
    if draft.then is not None:
        lines += [("then", sentence) for sentence in _later(draft.then)]
    if recipe.probe:
        checks = len(recipe.checks.identity) + len(recipe.checks.general)
        when = " while it trains" + (f", {checks} questions before and after" if checks else "")
        lines += _asks(safe(recipe.probe), when, width - LABEL)
    return Content("\n").join(Content.assemble((f"{name:<{LABEL}}", FAINT), safe(value)) for name, value in lines)


def _asks(prompt: str, when: str, width: int) -> list[tuple[str, str]]:
    """The prompt in one line, however long it is, and when it is asked: behind it where that fits, else below."""
    if cell_len(prompt) + len(when) + 2 <= width:
        return [("asks", f"“{prompt}”{when}")]
    return [("asks", f"“{shorten(prompt, width - 2)}”"), ("", when.strip())]


def _later(draft: Draft) -> list[str]:
    """The plan of each later stage, and what it begins from."""
    from engine import chain

    base = chain.reference(draft.recipe.adapter)
    rest = _later(draft.then) if draft.then is not None else []
    return [draft.plan.sentence.rstrip(".") + (f", from the adapter of {base}" if base else ""), *rest]
