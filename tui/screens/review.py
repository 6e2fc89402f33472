"""Review: the run in one sentence and a few lines, the whole recipe, and the key that starts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import FtuiError
from engine.text import number, safe
from tui.ask import Ask
from tui.frame import BAD, FAINT, told
from tui.screens.fixing import fill_values
from tui.screens.plan import show_warnings
from tui.wizard import Step, progress_words

if TYPE_CHECKING:
    from engine.draft import Draft
    from engine.runs.directory import RunDir

METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "all weights"}


class ReviewScreen(Step):
    """Last step of a new run: enter starts it."""

    STEP = "review"
    CSS_PATH = "review.tcss"
    HELP = (
        "What will be run, all of it. Enter starts it in the background, where it goes on whatever happens to this terminal. "
        "Below the rule stands the recipe; the same file with `ftui train` repeats the run."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="review.start", tooltip="Start training in the background"),
        Binding("n", "name", "Name", id="review.name", tooltip="Give the run another name"),
        Binding("f", "fill", "Fill in", id="review.fill", tooltip="Change what stands in for placeholders"),
        Binding("d", "data", "Data", id="review.data", tooltip="Look at the rows"),
        Binding("e", "plan", "Plan", id="review.plan", tooltip="Look at the plan and edit it"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._wanted = False  # enter was pressed before the plan was there
        self._starting = False

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="about", markup=False)
        yield Static("", id="warnings", markup=False)
        yield Ask(id="ask")
        yield Rule(line_style="solid")
        with VerticalScroll(id="recipe"):
            yield Static("", id="yaml", markup=False)

    def on_mount(self) -> None:
        if self.wizard.draft is None and not self.wizard.making:
            if self.wizard.has_rows:
                self.wizard.begin(self.wizard.picked())
            else:
                self.call_after_refresh(self.go, "source")

    def drafted(self) -> None:
        draft, problem = self.wizard.draft, self.wizard.error
        sentence = self.query_one("#sentence", Static)
        for part in ("#about", "#warnings", "Rule", "#recipe"):
            self.query_one(part).display = draft is not None
        if problem is not None:
            sentence.update(Content.styled("✗ " + told(problem), BAD))
        elif draft is None:
            sentence.update(Content.styled(progress_words(self.wizard.progress), FAINT))
        else:
            from engine import recipe

            sentence.update(Content.styled(safe(draft.plan.sentence), "bold"))
            self.query_one("#about", Static).update(about(draft))
            show_warnings(self.query_one("#warnings", Static), draft)
            self.query_one("#yaml", Static).update(
                Content.styled(safe(recipe.to_yaml(draft.recipe), newlines=True), FAINT)
            )
            if self._wanted:
                self.action_start()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        draft = self.wizard.draft
        match action:
            case "start":
                return self.wizard.error is None
            case "name" | "plan":
                return draft is not None
            case "fill":
                return draft is not None and bool(draft.dataset.placeholders or draft.dataset.filled)
        return True

    # acting -----------------------------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Start, or start as soon as the plan is there; say why where nothing can start."""
        from engine import draft as drafts

        draft = self.wizard.draft
        if draft is None:
            self._wanted = True
            self.notice("starts as soon as the plan is ready; escape takes that back", seconds=600)
            return
        self._wanted = False
        if reasons := drafts.refusals(draft):
            self.notice(f"cannot start: {reasons[0]}", "bad")
        elif not self._starting:
            self._starting = True
            self.notice("starting …", seconds=600)
            self.run_worker(lambda: self._start(draft), thread=True, group="start")

    def _start(self, draft: Draft) -> None:
        from engine import draft as drafts

        try:
            run = drafts.start(draft, warm=self.wizard.take_warm())
        except (FtuiError, OSError) as error:
            self._starting = False
            self.app.call_from_thread(self.error, error)
        else:
            self.app.call_from_thread(self._started, run)

    def _started(self, run: RunDir) -> None:
        self.ftui.show_train(run)
        self.ftui.forget_new_run()

    def action_previous(self) -> None:
        if self._wanted:
            self._wanted = False
            self.notice("not started")
        else:
            super().action_previous()

    def action_name(self) -> None:
        if (draft := self.wizard.draft) is not None:
            self.query_one(Ask).ask("name", draft.recipe.name, self._rename)

    def _rename(self, text: str) -> None:
        from engine import recipe

        draft = self.wizard.draft
        if not text:
            raise ValueError("a run needs a name")
        if draft is not None:
            name = recipe.slug(text)
            choice = msgspec.structs.replace(draft.choice, name=name)
            renamed = msgspec.structs.replace(draft.recipe, name=name)
            self.wizard.take(msgspec.structs.replace(draft, choice=choice, recipe=renamed))

    def action_fill(self) -> None:
        if (draft := self.wizard.draft) is not None:
            fill_values(
                self, sorted({**draft.dataset.placeholders, **draft.dataset.filled}), dict(draft.recipe.data.values)
            )

    def action_data(self) -> None:
        self.go("data")

    def action_plan(self) -> None:
        self.go("plan")


def about(draft: Draft) -> Content:
    """What will be run, in a few lines."""
    recipe, settings = draft.recipe, draft.plan.settings
    source = recipe.data.source
    rows = source.replace("preset:", "preset ") if source.startswith("preset:") else Path(source).name
    values = "".join(f", {name} {value}" for name, value in recipe.data.values.items())
    method = METHODS[settings.method]
    if settings.method != "full":
        method += (
            f" of rank {settings.rank} on {'attention' if settings.targets == 'attention' else 'all linear layers'}"
        )
    checks = len(recipe.checks.identity) + len(recipe.checks.general)
    lines = [
        ("name", recipe.name),
        ("model", draft.facts.name),
        ("rows", f"{rows}, {len(draft.dataset.examples):,} rows{values}"),
        ("method", f"{method}, {settings.precision}"),
        (
            "steps",
            f"{draft.plan.steps:,} of {recipe.effective_batch} rows, {number(settings.epochs)} epochs, "
            f"learning rate {number(settings.learning_rate)}",
        ),
    ]
    if recipe.probe:
        lines.append(
            ("asks", f"“{recipe.probe}” while it trains" + (f", {checks} questions before and after" if checks else ""))
        )
    return Content("\n").join(Content.assemble((f"{name:<8}", FAINT), safe(value)) for name, value in lines)
