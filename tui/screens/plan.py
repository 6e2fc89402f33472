"""Plan: every setting with its reason and source; edits in place; memory, steps and time beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import FtuiError
from engine.text import number, safe, shorten
from tui.ask import Ask
from tui.frame import BAD, FAINT, FOCUS, WARN, Frame
from tui.listing import pad
from tui.rows import Rows
from tui.widgets.memory import MemoryBar
from tui.wizard import Step, progress_words

if TYPE_CHECKING:
    from engine.advice import Advice
    from engine.draft import Draft

# What most people look at; x shows the rest. Whatever was edited is always shown.
FIRST = ("method", "learning_rate", "epochs", "micro_batch", "accumulation", "max_length", "rank", "precision")


def words(field: str) -> str:
    """A setting's name as a person says it."""
    return "checkpointing" if field == "gradient_checkpointing" else field.replace("_", " ")


class AdviceLine(Struct, frozen=True):
    """One setting. `key` is the name of its field."""

    key: str
    value: str
    why: str
    source: str
    edited: bool

    def line(self, width: int) -> Content:
        source = 9 if width < 100 else 22
        field, value = (15, 10) if width < 100 else (18, 16)
        origin = "preset" if self.source.startswith("preset ") and width < 100 else self.source
        why = max(0, width - field - value - source - 4)
        return Content.assemble(
            pad(words(self.key), field),
            (pad(self.value, value, right=True), f"bold {FOCUS}" if self.edited else "bold"),
            ("✎ " if self.edited else "  ", FOCUS),
            pad(self.why, why),
            "  ",
            (pad(origin, source), FOCUS if self.edited else FAINT),
        )


def lines(draft: Draft, everything: bool) -> list[AdviceLine]:
    """The plan as lines; without `everything` only what most people look at, and edits."""
    found = []
    for advice in draft.plan.advice:
        edited = advice.field in draft.choice.edits
        if not (everything or edited or advice.field in FIRST):
            continue
        value = getattr(draft.plan.settings, advice.field)
        why, source = advice.reason, advice.source
        if edited:
            why = f"you set it; advised {number(advice.value)}" if value != advice.value else "you set it, as advised"
            source = "you"
        found.append(AdviceLine(advice.field, safe(number(value)), safe(why), safe(source), edited))
    order = {name: index for index, name in enumerate(FIRST)}
    return sorted(found, key=lambda line: order.get(line.key, len(order)))


def typed(text: str) -> str:
    """A value as a person types it ("yes") as a recipe takes it ("true")."""
    return {"yes": "true", "no": "false"}.get(text.lower(), text)


_KINDS = {
    "`float`": "a number",
    "`int`": "a whole number",
    "`bool`": "yes or no",
    ", got `str`": "",
    "Expected": "this takes",
}


def reason(cause: str) -> str:
    """Why a value does not fit, short enough to stand beside it."""
    text = cause.partition(": ")[2] or cause
    for word, plain in _KINDS.items():
        text = text.replace(word, plain)
    return text


class PlanScreen(Step):
    """Third step of a new run."""

    STEP = "plan"
    CSS_PATH = "plan.tcss"
    HELP = (
        "Every number with its reason and where the reason comes from. e changes the value under the cursor; what depends "
        "on it follows. w says why this value and what else it could be. u takes an edit back. Edits are marked ✎."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit", id="plan.edit", tooltip="Change this value"),
        Binding("w", "why", "Why", id="plan.why", tooltip="Why this value, and what else it could be"),
        Binding("u", "undo", "Undo", id="plan.undo", tooltip="Go back to the advised value"),
        Binding("x", "expert", "All fields", id="plan.expert", tooltip="Show every setting, or the first ones only"),
        Binding("g", "review", "Review", show=False, id="plan.review"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._everything = False

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Rows(id="plan", verb="Review")
        yield Ask(id="ask")
        yield Static("", id="why", markup=False)
        yield Rule(line_style="solid")
        yield MemoryBar(id="memory")
        yield Static("", id="warnings", markup=False)

    def on_mount(self) -> None:
        self._everything = self.app.size.height >= 36
        self.query_one("#plan").focus()
        if self.wizard.draft is None and not self.wizard.making:
            if self.wizard.has_rows:
                self.wizard.begin(self.wizard.picked())
            else:
                self.call_after_refresh(self.go, "source")

    def drafted(self) -> None:
        draft = self.wizard.draft
        sentence = self.query_one("#sentence", Static)
        for part in ("#plan", "#why", "Rule", "#memory", "#warnings"):
            self.query_one(part).display = draft is not None
        if draft is None:
            if (problem := self.wizard.error) is not None:
                sentence.update(Content.styled("✗ " + safe("\n  ".join(problem.lines()), newlines=True), BAD))
            else:
                sentence.update(Content.styled(progress_words(self.wizard.progress), FAINT))
            return
        sentence.update(Content.styled(safe(draft.plan.sentence), "bold"))
        self.query_one("#plan", Rows).show(lines(draft, self._everything))
        memory = draft.plan.memory
        self.query_one(MemoryBar).show(memory.parts() if memory else (), draft.advice_facts.hardware.budget)
        show_warnings(self.query_one("#warnings", Static), draft)
        self.refresh_bindings()

    def on_resize(self) -> None:
        # The forecast keeps its place below; a long list of settings scrolls above it.
        self.query_one("#plan").styles.max_height = max(4, self.query_one("#body").content_size.height - 11)

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The whole reason of the value under the cursor, which its line has no room for."""
        item = event.item
        if isinstance(item, AdviceLine):
            self.query_one("#why", Static).update(Content.assemble((f"{item.why}  ", ""), (f"({item.source})", FAINT)))

    @property
    def advice(self) -> Advice | None:
        """The advice under the cursor."""
        item, draft = self.query_one("#plan", Rows).current, self.wizard.draft
        if item is None or draft is None:
            return None
        return next((advice for advice in draft.plan.advice if advice.field == item.key), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("edit", "why", "expert", "review"):
            return self.wizard.draft is not None
        if action == "undo":
            return bool(self.wizard.draft and self.wizard.draft.choice.edits)
        return True

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        self.action_review()

    def action_review(self) -> None:
        self.go("review")

    def action_expert(self) -> None:
        self._everything = not self._everything
        self.drafted()

    def action_edit(self) -> None:
        advice, draft = self.advice, self.wizard.draft
        if advice is None or draft is None:
            return
        value = number(getattr(draft.plan.settings, advice.field))
        hint = "or ".join(f"{number(other.value)} " for other in advice.alternatives[:3])
        self.query_one(Ask).ask(
            words(advice.field), value, lambda text: self.set(advice.field, typed(text)), hint, short=True
        )

    def set(self, field: str, value: Any) -> None:
        """Change one setting. Raises FtuiError with what is wrong with the value."""
        from engine import recipe

        draft = self.wizard.draft
        if draft is None:
            return
        try:
            fitting = recipe.setting(field, value)
        except FtuiError as error:
            raise FtuiError(error.code, reason(error.cause)) from None
        self.wizard.edit({**draft.choice.edits, field: fitting})

    def action_undo(self) -> None:
        """Back to advice: this field if it was edited, else all of them."""
        draft = self.wizard.draft
        if draft is None:
            return
        item = self.query_one("#plan", Rows).current
        edits = dict(draft.choice.edits)
        if item is not None and item.key in edits:
            del edits[item.key]
            self.notice(f"{words(item.key)} is as advised again")
        else:
            edits.clear()
            self.notice("everything is as advised again")
        self.wizard.edit(edits)

    def action_why(self) -> None:
        if (advice := self.advice) is not None:
            self.app.push_screen(WhyScreen(self, advice))


def show_warnings(place: Static, draft: Draft) -> None:
    """What speaks against the plan, and what to know; no line where there is nothing to say."""
    from engine import draft as drafts

    found = [Content.styled(f"✗ {safe(reason)}", BAD) for reason in drafts.refusals(draft)]
    found += [Content.styled(f"! {safe(warning)}", WARN) for warning in draft.plan.warnings]
    place.update(Content("\n").join(found))
    place.display = bool(found)


class AlternativeLine(Struct, frozen=True):
    key: str
    value: str
    effect: str

    def line(self, width: int) -> Content:
        return Content.assemble((pad(self.value, 18), "bold"), shorten(self.effect, width - 18))


class WhyScreen(Frame):
    """Why one value, and what else it could be; enter takes the alternative under the cursor."""

    TITLE = "Why"
    CSS_PATH = "plan.tcss"
    HELP = (
        "The reason for one value, where it comes from, and what would change with another. Enter takes an alternative."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="why.back"),
    ]

    def __init__(self, plan: PlanScreen, advice: Advice) -> None:
        super().__init__()
        self._plan, self._advice = plan, advice
        field = words(advice.field)
        self.heading = Content.assemble(("New run  ", "bold"), ("plan › ", FAINT), (f"why {field}", "bold"))
        self.command = f"ftui plan --explain {advice.field}"

    def body(self) -> ComposeResult:
        advice = self._advice
        yield Static(
            Content.assemble(
                (f"{words(advice.field)}  {safe(number(advice.value))}", "bold"),
                f"\n\n{safe(advice.reason)}\n",
                (f"Source: {safe(advice.source)}. Confidence: {advice.confidence}.", FAINT),
            ),
            classes="reason",
            markup=False,
        )
        if advice.alternatives:
            yield Rule(line_style="solid")
            yield Static(Content.styled("Instead", FAINT), classes="instead", markup=False)
            yield Rows(id="alternatives", verb="Take it")

    def on_mount(self) -> None:
        if self._advice.alternatives:
            rows = self.query_one("#alternatives", Rows)
            rows.show(
                [
                    AlternativeLine(str(index), safe(number(other.value)), safe(other.effect))
                    for index, other in enumerate(self._advice.alternatives)
                ]
            )
            rows.focus()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        other = self._advice.alternatives[int(event.item.key)]
        try:
            self._plan.set(self._advice.field, other.value)
        except FtuiError as error:
            self.error(error)
        else:
            self.app.pop_screen()
