"""One question in one line, with its mistake beside it: how a value is edited anywhere in ftui."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.errors import FtuiError
from engine.text import safe
from tui.frame import BAD, FAINT
from tui.rows import Item, Rows
from tui.widgets.field import Field
from tui.widgets.paths import Paths


class Ask(Vertical):
    """Hidden until `ask`. Enter gives the value to `done`; an FtuiError, ValueError or OSError it raises is shown beside the value,
    which stays open. Escape takes everything back. Where there are values to choose from, they stand in a list below."""

    DEFAULT_CSS = """
    Ask {
        height: auto;
        display: none;

        & > .line { height: 1; }
        & .label { width: auto; }
        & Input { width: 1fr; min-width: 16; }
        &.-short Input { width: 20; }
        & .mistake { width: auto; max-width: 60%; padding: 0 0 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        & > .below { display: none; height: auto; }
        & > Rows { display: none; margin: 1 0 0 0; }
    }
    """
    HELP = "Type the value; enter takes it, escape leaves everything as it was. Where a list stands below, down goes into it."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Leave as it was", id="ask.close"),
        Binding("down", "list", "Choose", show=False, id="ask.list", tooltip="Go to the values below"),
    ]

    class Closed(Message):
        """The question is gone, answered or not."""

    _done: Callable[[str], None] | None = None
    _hint = ""
    _label = 0  # cells
    _back_to: Widget | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Static("", classes="label", markup=False)
            yield Field(disabled=True)  # disabled while hidden, else it could get the focus
            yield Static("", classes="mistake", markup=False)
        yield Static("", classes="below", markup=False)
        yield Rows(verb="Take it", disabled=True)

    def ask(
        self,
        label: str,
        value: str,
        done: Callable[[str], None],
        hint: str = "",
        short: bool = False,
        choices: Sequence[Item] = (),
        begun: bool = False,
        paths: bool = False,
    ) -> None:
        """Open with `value`, ready to be typed over. `hint` stands beside it until there is a mistake to show.

        short    the value needs few letters, so that more room is left for hint and mistake
        choices  values to choose from; the key of each is what a person would type
        begun    `value` is the beginning of what is being typed: typing goes on behind it
        paths    what is there is suggested
        """
        self.set_class(short, "-short")
        if not self.display:
            self._back_to = self.screen.focused
        self._done, self._hint = done, hint
        shown = Content.styled(f"{safe(label)} ", "bold")
        self._label = shown.cell_length
        self.query_one(".label", Static).update(shown)
        self._say(hint)
        rows = self.query_one(Rows)
        rows.display, rows.disabled = bool(choices), not choices
        rows.show(choices)
        rows.put_cursor(value)
        field = self.query_one(Input)
        field.suggester = Paths() if paths else None
        field.value = value
        field.disabled = False
        self.display = True
        field.select_on_focus = not begun
        if begun:
            field.action_end()
        else:
            field.action_select_all()
        self.screen.set_focus(field)  # not field.focus(): that waits behind the keys that were typed in the meantime

    def _say(self, text: str, bad: bool = False) -> None:
        content = Content.styled(f"✗ {safe(text)}", BAD) if bad else Content.styled(safe(text), FAINT)
        # What its style and the two before it leave it.
        width = self.query_one(".line").size.width
        room = min(width * 6 // 10, width - self._label - (20 if self.has_class("-short") else 16))
        beside = not bad or content.cell_length < room
        self.query_one(".mistake", Static).update(content if beside else "")
        below = self.query_one(".below", Static)
        below.update("" if beside else content)
        below.display = not beside

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        room = self.query_one(".line").size.width - self._label - cell_len(event.value) - 3
        self._say(self._hint if self.has_class("-short") or len(self._hint) <= room else "")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._take(event.value.strip())

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        event.stop()
        self._take(event.item.key)

    def _take(self, value: str) -> None:
        done = self._done
        if done is None:
            return
        try:
            done(value)
        except FtuiError as error:
            self._say(error.cause, bad=True)
            return
        except OSError as error:  # of a name that no file can have
            self._say(error.strerror or str(error), bad=True)
            return
        except ValueError as error:
            self._say(str(error), bad=True)
            return
        if self._done is done:  # `done` may have asked the next question
            self.action_close()

    def action_list(self) -> None:
        if (rows := self.query_one(Rows)).display:
            rows.focus()

    def action_close(self) -> None:
        self._done = None
        self.display = self.query_one(Rows).display = False
        back_to = self._back_to if self._back_to is not None and self._back_to.is_attached else None
        self.screen.set_focus(back_to)  # first, else what is disabled would give the focus away a moment later
        self.query_one(Input).disabled = self.query_one(Rows).disabled = True
        self.post_message(self.Closed())


def after_slash(text: str) -> str:
    """What was meant in a field that the key / opened, and that begins with it: a path from the root where something is there,
    else what follows, so that rows.json, hub:OWNER/NAME and OWNER/NAME can be typed after the key too."""
    if not text.startswith("/"):
        return text
    rest = text.lstrip("/")
    first = rest.partition("/")[0]
    return f"/{rest}" if first and Path("/", first).exists() else rest


def first_line(pasted: str) -> str:
    """The first line of a paste that holds anything: what a field takes of it."""
    return pasted.strip().partition("\n")[0].rstrip()
