"""Mapping: which column plays which role, with a value of each, and how to change it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import FtuiError
from engine.text import safe, shorten
from tui.ask import Ask
from tui.frame import BAD, FAINT, FOCUS, Frame
from tui.inspection import plural
from tui.listing import pad
from tui.rows import Rows
from tui.spoken import spoken

if TYPE_CHECKING:
    from engine.choice import Choice, Columns
    from engine.data.shapes import Shape
    from tui.wizard import Step

NONE = "–"
STAGES = {
    "sft": "for SFT",
    "dpo": "for DPO",
    "kto": "for KTO",
    "grpo": "for reinforcement learning",
    "pretraining": "for continued pre-training",
}


class Sample(Struct, frozen=True):
    """The first rows of a source, and what a registry says about its columns."""

    rows: list[dict[str, Any]]
    columns: dict[str, str]
    tags: dict[str, str]

    @property
    def values(self) -> dict[str, Any]:
        """Each column with a value it has: the first that is neither null nor empty."""
        found: dict[str, Any] = {}
        for row in self.rows:
            for name, value in row.items():
                if found.get(name) in (None, "", []):
                    found[name] = value
        return found


def look(choice: Choice, at: int = 0) -> Sample:
    """Read the first rows of a source of the choice, the first one or one of `more`. Raises FtuiError where nothing can be read."""
    from engine import choice as choices
    from engine import presets
    from engine.data import locate, shapes, sources

    source = choices.data(choice, presets.load(choice.preset) if choice.preset else None).sources[at]
    located = locate.files(msgspec.structs.replace(source, columns={}))
    rows = sources.read(located.paths[0], lambda *_: None, array=located.array)
    return Sample([row.value for row in islice(rows, shapes.SAMPLE)], located.columns, located.tags)


class Roles:
    """What a person says about the columns, and what follows from it.

    given      role -> column, "" for a role that no column plays
    templates  "prompt" and "completion" -> a text with columns in braces
    shape      what the rows are then; None where they are nothing, and `error` says why
    """

    def __init__(self, sample: Sample, given: Mapping[str, str], templates: Mapping[str, str]) -> None:
        from engine.data import shapes

        self.sample = sample
        self.columns = list(sample.values)
        self.roles = shapes.ROLES
        self.given, self.templates = dict(given), dict(templates)
        self.found = self._shape({}, {})[0]
        self._follow()
        # Roles that are played come first, and stay where they are while columns change.
        self.order = sorted(self.roles, key=lambda role: not self.column(role))

    def _shape(self, given: Mapping[str, str], templates: Mapping[str, str]) -> tuple[Shape | None, FtuiError | None]:
        from engine import recipe
        from engine.data import shapes

        columns = {**self.sample.columns, **given}
        try:
            if not templates:
                return shapes.detect(self.sample.rows, columns, self.sample.tags), None
            source = recipe.Source(source="", prompt=templates.get("prompt"), completion=templates.get("completion"))
            return shapes.from_templates(self.sample.rows, source, columns, self.sample.tags), None
        except FtuiError as error:
            return None, error

    def _follow(self) -> None:
        self.shape, self.error = self._shape(self.given, self.templates)

    def column(self, role: str) -> str:
        """The column or template of a role; empty where it has none. While the rows are nothing, what was found stays."""
        if role in self.templates:
            return self.templates[role]
        if role in self.given:
            return self.given[role]
        if self.shape is not None:
            return self.shape.columns.get(role, "")
        found = self.found.columns.get(role, "") if self.found else ""
        return "" if found in self.given.values() else found

    def step(self, role: str, by: int) -> None:
        """Give a role the next column, or none."""
        options = ["", *self.columns]
        before = self.column(role)
        self.templates.pop(role, None)
        column = options[(options.index(before) + by) % len(options)] if before in options else options[by]
        if column == (self.found.columns.get(role, "") if self.found else ""):
            self.given.pop(role, None)
        else:
            self.given[role] = column
        self._follow()

    def template(self, role: str, text: str) -> None:
        """Make a role from several columns; an empty text takes that back. Raises FtuiError for a wrong template."""
        before = dict(self.templates)
        self.templates.pop(role, None)
        if text:
            self.templates[role] = text
        self._follow()
        if text and self.error is not None and self.error.cause.startswith(("a template", f"the {role} template")):
            error, self.templates = self.error, before
            self._follow()
            raise error

    def reset(self) -> None:
        self.given, self.templates = {}, {}
        self._follow()

    @property
    def unused(self) -> list[str]:
        return self.shape.ignored if self.shape else []

    def lines(self) -> list[RoleLine]:
        """Every role."""
        values = self.sample.values
        found = []
        for role in self.order:
            column = self.column(role)
            said = role in self.given or role in self.templates
            value = words(values[column]) if column in values else words(self._filled(column)) if column else ""
            found.append(RoleLine(role, safe(column), value, self.roles[role], said))
        return found

    def _filled(self, template: str) -> str:
        """A template with the values of its columns."""
        from engine.data import shapes

        values = self.sample.values
        return shapes.COLUMN.sub(lambda match: str(values.get(match[1].strip(), match[0])), template)


class RoleLine(Struct, frozen=True):
    """One role. `key` is its name; `said` that a person gave it its column."""

    key: str
    column: str
    value: str
    meaning: str
    said: bool

    def line(self, width: int) -> Content:
        column = min(24, width // 3)
        rest = max(0, width - 14 - column - 4)
        return Content.assemble(
            (pad(self.key, 14), "" if self.column else FAINT),
            (pad(self.column or NONE, column), f"bold {FOCUS}" if self.said else "bold" if self.column else FAINT),
            ("✎ " if self.said else "  ", FOCUS),
            "  ",
            (shorten(self.value, rest), "") if self.column else (shorten(self.meaning, rest), FAINT),
        )


def words(value: Any) -> str:
    """A cell in one line: text as it is, turns by their number and the first one's text."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return f"{plural(len(value), 'turn')}: {words(value[0])}"
    if isinstance(value, dict) and isinstance(text := value.get("content", value.get("value")), str):
        value = text
    if isinstance(value, str):
        return safe(value[:300])
    return safe(json.dumps(value, ensure_ascii=False, default=str)[:300])


def heading(roles: Roles, name: str) -> Content:
    """What the rows are with these roles, or why they are nothing."""
    if roles.shape is None:
        cause = roles.error.cause if roles.error else ""
        return Content.assemble((name, "bold"), "   ", (f"✗ {safe(cause)}", BAD))
    return Content.assemble((name, "bold"), f"   {roles.shape.name}, {STAGES[roles.shape.stage]}")


class MappingScreen(Frame):
    """Shown over the Data screen. Nothing is read anew until enter."""

    TITLE = "Mapping"
    CSS_PATH = "mapping.tcss"
    HELP = (
        "What each column of the rows is. ← and → give the role under the cursor another column, or none; the line on top says "
        "what the rows are then. A template makes a prompt or an answer of several columns: {dialogue} stands for the "
        "column of that name. Of several sources each has columns of its own; s goes to the next. Enter reads the rows anew; "
        "escape leaves everything as it was."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "column(-1)", "Column", key_display="←→", id="mapping.column-before", tooltip="Another column"),
        Binding("right", "column(1)", "Column", show=False, id="mapping.column", tooltip="Another column"),
        Binding("t", "template", "Template", id="mapping.template", tooltip="Make prompt or answer of several columns"),
        Binding("s", "source", "Next source", id="mapping.source", tooltip="The columns of the next source"),
        Binding("u", "reset", "As found", id="mapping.reset", tooltip="Go back to what was found by itself"),
        Binding("escape", "back", "Leave", id="mapping.back", tooltip="Leave everything as it was"),
    ]

    def __init__(self, data: Step) -> None:
        super().__init__()
        self._wizard = data.wizard
        self._choice = data.wizard.picked()
        self._sources = [self._choice.data or f"preset {self._choice.preset}", *self._choice.more]
        self._at = 0  # the source that is shown
        self._all: dict[int, Roles] = {}  # of the sources that were looked at
        self.command = data.command

    @property
    def _roles(self) -> Roles | None:
        return self._all.get(self._at)

    @property
    def _title(self) -> str:
        name = safe(self._sources[self._at].rpartition("/")[2])
        return name if len(self._sources) == 1 else f"{self._at + 1}/{len(self._sources)}  {name}"

    def body(self) -> ComposeResult:
        yield Static("", id="what", markup=False)
        yield Static("", id="labels", markup=False)
        yield Rows(id="roles", verb="Use it", help=self.HELP)
        yield Static("", id="rest", markup=False)
        yield Ask(id="ask")

    def on_mount(self) -> None:
        self.query_one("#roles").focus()
        self._look()

    def _look(self) -> None:
        """Show the source; read its first rows if that was not done yet."""
        at = self._at
        self._show()
        if at not in self._all:
            self.in_thread(lambda: look(self._choice, at), lambda sample: self._looked(at, sample))

    def _looked(self, at: int, sample: Sample) -> None:
        said = self._said(at)
        templates = {"prompt": said.prompt, "completion": said.completion}
        self._all[at] = Roles(sample, said.columns, {role: text for role, text in templates.items() if text})
        self._show()

    def _said(self, at: int) -> Choice | Columns:
        """What the person has said of a source so far."""
        from engine.choice import Columns

        return self._choice if at == 0 else self._choice.said.get(self._sources[at], Columns())

    def _show(self) -> None:
        if (roles := self._roles) is None:
            self.query_one("#what", Static).update(Content.styled(self._title, "bold"))
            self.query_one("#roles", Rows).show([])
            self.query_one("#rest", Static).update("")
            self.refresh_bindings()
            return
        self.query_one("#what", Static).update(heading(roles, self._title))
        width = self.query_one("#roles").size.width
        column = pad("column", min(24, width // 3))
        self.query_one("#labels", Static).update(Content.styled(f"{pad('role', 14)}{column}    value", FAINT))
        rows = self.query_one("#roles", Rows)
        rows.show(roles.lines())
        rows.styles.max_height = len(rows.items)
        rest = []
        if roles.unused:
            rest.append(Content.styled("not used: " + safe(", ".join(roles.unused)), FAINT))
        rest += [
            Content.styled(f"· {safe(spoken(note))}", FAINT) for note in (roles.shape.notes if roles.shape else [])
        ]
        self.query_one("#rest", Static).update(Content("\n").join(rest))
        self.refresh_bindings()

    @property
    def _role(self) -> str:
        """The role under the cursor."""
        item = self.query_one("#roles", Rows).current
        return item.key if item is not None else ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "template":
            return self._roles is not None and self._role in ("prompt", "completion")
        if action == "source":
            return len(self._sources) > 1
        if action == "reset":
            return self._roles is not None and bool(self._roles.given or self._roles.templates)
        return action != "column" or self._roles is not None

    def on_rows_moved(self, event: Rows.Moved) -> None:
        self.refresh_bindings()

    def action_column(self, by: int) -> None:
        if self._roles is not None and self._role:
            self._roles.step(self._role, by)
            self._show()

    def action_source(self) -> None:
        self._at = (self._at + 1) % len(self._sources)
        self._look()

    def action_reset(self) -> None:
        if self._roles is not None:
            self._roles.reset()
            self._show()

    def action_template(self) -> None:
        roles, role = self._roles, self._role
        if roles is None:
            return

        def take(text: str) -> None:
            roles.template(role, text)
            self._show()

        column = roles.column(role)
        value = column if role in roles.templates or not column else f"{{{column}}}"
        self.query_one(Ask).ask(role, value, take, "as in Summarise: {dialogue}")

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Read the rows anew, if anything changed."""
        from engine.choice import Columns

        for at, roles in self._all.items():
            if roles.error is not None:
                self._at = at
                self._show()
                self.error(roles.error)
                return
        choice = self._choice
        for at, roles in self._all.items():
            made = Columns(
                columns=dict(roles.given),
                prompt=roles.templates.get("prompt"),
                completion=roles.templates.get("completion"),
            )
            if at == 0:
                choice = msgspec.structs.replace(choice, **msgspec.structs.asdict(made))
            elif made != self._said(at):
                choice = msgspec.structs.replace(choice, said={**choice.said, self._sources[at]: made})
        self.app.pop_screen()
        if choice != self._choice:
            self._wizard.begin(choice)
