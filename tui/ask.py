"""One question in one line, with its mistake beside it: how a value is edited anywhere in ftui."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.errors import FtuiError
from engine.text import safe
from tui.frame import BAD, FAINT
from tui.widgets.field import Field


class Ask(Horizontal):
    """Hidden until `ask`. Enter gives the value to `done`; an FtuiError, ValueError or OSError it raises is shown beside the value,
    which stays open. Escape takes everything back."""

    DEFAULT_CSS = """
    Ask {
        height: 1;
        display: none;

        & > .label { width: auto; }
        & > Input { width: 1fr; min-width: 16; }
        &.-short > Input { width: 20; }
        & > .mistake { width: auto; max-width: 60%; padding: 0 0 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """
    HELP = "Type the value; enter takes it, escape leaves everything as it was."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Leave as it was", id="ask.close"),
    ]

    _done: Callable[[str], None] | None = None
    _hint = ""
    _back_to: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Static("", classes="label", markup=False)
        yield Field(disabled=True)  # disabled while hidden, else it could get the focus
        yield Static("", classes="mistake", markup=False)

    def ask(self, label: str, value: str, done: Callable[[str], None], hint: str = "", short: bool = False) -> None:
        """Open with `value`, ready to be typed over. `hint` stands beside it until there is a mistake to show.

        short  the value needs few letters, so that more room is left for hint and mistake
        """
        self.set_class(short, "-short")
        if not self.display:
            self._back_to = self.screen.focused
        self._done, self._hint = done, hint
        self.query_one(".label", Static).update(Content.styled(f"{safe(label)} ", "bold"))
        self._say(hint)
        field = self.query_one(Input)
        field.value = value
        field.disabled = False
        self.display = True
        field.focus()
        field.action_select_all()

    def _say(self, text: str, bad: bool = False) -> None:
        content = Content.styled(f"✗ {safe(text)}", BAD) if bad else Content.styled(safe(text), FAINT)
        self.query_one(".mistake", Static).update(content)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._say(self._hint)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        done = self._done
        if done is None:
            return
        try:
            done(event.value.strip())
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

    def action_close(self) -> None:
        self._done = None
        self.display = False
        self.query_one(Input).disabled = True
        if self._back_to is not None and self._back_to.is_attached:
            self._back_to.focus()
