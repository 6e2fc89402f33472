"""Plan: every setting with its reason and source; edits in place; memory, steps and time beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Rule, Static

from engine import rewards
from engine.errors import FtuiError
from engine.text import number, safe
from tui.ask import Ask
from tui.frame import BAD, FAINT, WARN, told
from tui.plan_lines import AdviceLine, OfferLine, lines, offer_lines, reason, typed, words
from tui.rows import Rows
from tui.screens.fits import FitsScreen
from tui.screens.gate import GateScreen, verdict
from tui.screens.versus import VersusScreen
from tui.screens.why import WhyScreen
from tui.spoken import spoken
from tui.widgets.memory import MemoryBar
from tui.wizard import Step, progress_words

if TYPE_CHECKING:
    from engine.advice.kinds import Advice, Plan
    from engine.draft import Draft


_OFFERED = 3  # other values of a setting, named beside its field
_TOLD = 4  # settings that moved with an edit, named one by one


class PlanScreen(Step):
    """Third step of a new run."""

    STEP = "plan"
    CSS_PATH = "plan.tcss"
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-tall")]
    HELP = (
        "Every number with its reason and where the reason comes from. e changes the value under the cursor; what depends "
        "on it follows, and is said. w says why this value and what else it could be, o what else fits in memory, t whether "
        "to tune at all, v compares with what is advised, a preset or a run. u takes an edit back. Edits are marked ✎."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit", id="plan.edit", tooltip="Change this value"),
        Binding("w", "why", "Why", id="plan.why", tooltip="Why this value, and what else it could be"),
        Binding("x", "expert", "Expert", id="plan.expert", tooltip="Show every setting"),
        Binding("x", "fewer", "Fewer", id="plan.fewer", tooltip="Show the first settings only"),
        Binding("o", "fits", "What else fits", id="plan.fits", tooltip="Memory of every method and micro-batch"),
        Binding("v", "versus", "Compare", show=False, id="plan.versus", tooltip="Beside the advice, a preset or a run"),
        Binding("t", "gate", "Tune at all?", show=False, id="plan.gate", tooltip="Is tuning the right thing to do?"),
        Binding("m", "measure", "Measure", show=False, id="plan.measure", tooltip="Measure how fast this machine is"),
        Binding("p", "keep", "Keep", show=False, id="plan.keep", tooltip="Save this plan as a preset of your own"),
        Binding("u", "undo", "Undo", show=False, id="plan.undo", tooltip="Go back to the advised value"),
        Binding("g", "review", "Review", show=False, id="plan.review"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._everything = False
        self._measuring = False

    def body(self) -> ComposeResult:
        yield Static("", id="sentence", markup=False)
        yield Static("", id="gate", markup=False)
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
        for part in ("#gate", "#plan", "#why", "Rule", "#memory", "#warnings"):
            self.query_one(part).display = draft is not None
        self.query_one("#plan").display &= not self.query_one("#ask Rows").display
        if draft is None:
            if (problem := self.wizard.error) is not None:
                sentence.update(Content.styled("✗ " + told(problem), BAD))
            else:
                sentence.update(Content.styled(progress_words(self.wizard.progress), FAINT))
            return
        sentence.update(Content.styled(safe(draft.plan.sentence), "bold"))
        self._show_gate(draft)
        rows = self.query_one("#plan", Rows)
        first = not rows.items
        rows.show(lines(draft, self._everything))
        rows.styles.max_height = len(rows.items)  # and less where what stands below needs the room: that is never cut
        if first:
            rows.put_cursor("method")
        memory = draft.plan.memory
        self.query_one(MemoryBar).show(memory.parts() if memory else (), draft.advice_facts.hardware.budget)
        show_warnings(self.query_one("#warnings", Static), draft)
        self.refresh_bindings()

    def _show_gate(self, draft: Draft) -> None:
        """Whether to tune at all: loud where something speaks against it, faint where only an answer is missing."""
        place, gate = self.query_one("#gate", Static), draft.plan.gate
        place.display = gate.verdict != "tune"
        doubts = [question for question in gate.questions if question.speaks != "for"]
        if all(not question.known for question in doubts):
            missing = "; ".join(question.answer for question in doubts)
            place.update(Content.styled(f"t  Tune at all? {safe(missing)}", FAINT))
        else:
            place.update(Content.styled("t  ", FAINT) + verdict(gate))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """What the setting under the cursor is, and the whole reason of its value, which its line has no room for."""
        item, place = event.item, self.query_one("#why", Static)
        if isinstance(item, AdviceLine):
            place.update(Content.assemble(item.help, "\n", item.why, (f"  ({item.source})", FAINT)))
        elif isinstance(item, OfferLine):
            refused = Content.styled(f"✗ {item.refused}  ", BAD) if item.refused else Content()
            place.update(refused + Content(item.does))

    @property
    def advice(self) -> Advice | None:
        """The advice under the cursor."""
        item, draft = self.query_one("#plan", Rows).current, self.wizard.draft
        if item is None or draft is None:
            return None
        return next((advice for advice in (draft.plan.stage, *draft.plan.advice) if advice.field == item.key), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        asked = any(ask.display for ask in self.query(Ask))  # the list of values may have the focus, not the plan
        if action in ("expert", "fewer") and self._everything != (action == "fewer"):
            return False
        if action in ("edit", "why", "expert", "fewer", "review", "fits", "versus", "gate", "keep"):
            return self.wizard.draft is not None and not asked
        if action == "measure":
            return self.wizard.draft is not None and not asked and not self._measuring
        if action == "undo":
            choice = None if asked or self.wizard.draft is None else self.wizard.draft.choice
            return choice is not None and bool(choice.edits or choice.stage)
        return True

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        self.action_review()

    def action_review(self) -> None:
        self.go("review")

    def action_expert(self) -> None:
        self._show_settings(everything=True)

    def action_fewer(self) -> None:
        self._show_settings(everything=False)

    def _show_settings(self, everything: bool) -> None:
        self._everything = everything
        self.drafted()
        count = sum(isinstance(item, AdviceLine) for item in self.query_one("#plan", Rows).items)
        self.notice(f"{'all' if everything else 'the first'} {count} settings", seconds=4)

    def action_edit(self) -> None:
        advice, draft = self.advice, self.wizard.draft
        item = self.query_one("#plan", Rows).current
        if draft is not None and item is not None and item.key == "reward":
            word = draft.choice.reward or "length:40"
            self.query_one(Ask).ask("reward", word, lambda text: self.set("reward", text), rewards.WORDS, short=True)
            return
        if advice is None or draft is None:
            return
        held = getattr(draft.plan.settings, advice.field, advice.value)
        choices = offer_lines(draft, advice.field)
        others = [number(other.value) for other in advice.alternatives if other.value != held][:_OFFERED]
        hint = " or ".join([f"{number(advice.value)} as advised", *others] if held != advice.value else others)
        self.query_one("#plan").display = not choices  # the values stand in its place
        self.query_one("#ask").set_class(bool(choices), "-list")
        self.query_one("#ask Rows").styles.max_height = len(choices)
        self.query_one(Ask).ask(
            words(advice.field),
            number(held),
            lambda text: self.set(advice.field, typed(text)),
            "↓ to the list" if choices else hint,
            short=True,
            choices=choices,
        )

    def on_ask_closed(self) -> None:
        self.query_one("#ask").remove_class("-list")
        self.query_one("#plan").display = True
        self.query_one("#plan").focus()

    def set(self, field: str, value: Any) -> None:
        """Change one setting, the stage or the reward. Raises FtuiError with what is wrong with the value."""
        from engine import offers

        draft = self.wizard.draft
        if draft is None:
            return
        try:
            after = offers.taken(draft, field, value)
        except FtuiError as error:
            raise FtuiError(error.code, reason(error.cause)) from None
        self.wizard.take(after)
        if field != "reward":
            self._say_moves(field, draft.plan)

    def _say_moves(self, field: str, before: Plan) -> None:
        """What one edit moved: other settings first, then steps, time and memory."""
        from engine.advice import compare

        if (draft := self.wizard.draft) is None:
            return
        changes = compare.compare(before, draft.plan)
        moved = [
            change
            for change in changes
            if change.kind == "setting" and change.name != field and draft.plan.counts(change.name)
        ]
        parts = [
            "{} {} to {}".format(words(change.name), *(word or "none" for word in change.words()))
            for change in moved[:_TOLD]
        ]
        if len(moved) > _TOLD:
            parts.append(f"{len(moved) - _TOLD} other settings")
        if rest := compare.brief(changes):
            parts.append(rest)
        self.notice(f"{words(field)}: " + (", ".join(parts) if parts else "nothing else moves"), seconds=20)

    def action_undo(self) -> None:
        """Back to advice: this field if it was edited, else all of them; the stage only from its own line."""
        draft = self.wizard.draft
        if draft is None:
            return
        item = self.query_one("#plan", Rows).current
        edits = dict(draft.choice.edits)
        if item is not None and item.key == "stage" and draft.choice.stage is not None:
            self.set("stage", draft.dataset.stage)
            return
        what = "everything"
        if item is not None and item.key in edits:
            del edits[item.key]
            what = words(item.key)
        else:
            edits.clear()
        self.wizard.edit(edits)
        self.notice(f"{what} is as advised again")

    def action_why(self) -> None:
        if (advice := self.advice) is not None:
            self.app.push_screen(WhyScreen(self, advice))

    def action_fits(self) -> None:
        self.app.push_screen(FitsScreen(self))

    def action_versus(self) -> None:
        self.app.push_screen(VersusScreen(self))

    def action_gate(self) -> None:
        self.app.push_screen(GateScreen(self))

    def action_keep(self) -> None:
        if (draft := self.wizard.draft) is not None:
            self.query_one(Ask).ask("preset", draft.recipe.name, self._keep, "a name for it", short=True)

    def _keep(self, name: str) -> None:
        from engine import presets

        if (draft := self.wizard.draft) is not None:
            path = presets.save(name, draft)
            self.notice(f"saved as {path}; home lists it with the others", "good")

    def action_measure(self) -> None:
        """Train a few steps of random layers of this model's shape, to know how fast this machine is."""
        from engine import probe

        if (draft := self.wizard.draft) is None:
            return
        self._measuring = True
        self.notice("measuring this machine …", seconds=600)
        folder, settings = draft.model_folder, draft.plan.settings

        def done(_: object) -> None:
            from engine import draft as drafts

            self._measuring = False
            if (now := self.wizard.draft) is not None:
                self.wizard.take(drafts.timed(now))
                self.notice(f"{self.wizard.draft.plan.seconds_source}" if self.wizard.draft else "", "good")

        def measure() -> object:
            try:
                return probe.run(folder, settings)
            except BaseException:
                self._measuring = False
                raise

        self.in_thread(measure, done, group="probe")


def show_warnings(place: Static, draft: Draft) -> None:
    """What speaks against the plan, and what to know; no line where there is nothing to say."""
    from engine import draft as drafts

    found = [Content.styled(f"✗ {safe(spoken(reason))}", BAD) for reason in drafts.refusals(draft)]
    found += [Content.styled(f"! {safe(warning)}", WARN) for warning in draft.plan.warnings]
    place.update(Content("\n").join(found))
    place.display = bool(found)
