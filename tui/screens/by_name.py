"""A step that takes one of a list, or another that is typed or pasted."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from tui.ask import Ask, after_slash, first_line
from tui.rows import Rows
from tui.wizard import Step

ANOTHER = "another"  # the key of the line that asks for one


class ByName(Step):
    """`WHAT` is asked for, with `HINT` beside the field."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # As / of each of the screens: a path can be typed at once.
        Binding("tilde", "another('~')", "A path from home", show=False, priority=True, id="another.home"),
    ]
    WHAT: ClassVar[str]
    HINT: ClassVar[str] = ""

    def take(self, text: str) -> None:
        """Take what was typed. Raises ValueError or FtuiError where it names nothing."""
        raise NotImplementedError

    def choose(self, key: str) -> None:
        """Take a line of the list."""
        raise NotImplementedError

    def held(self) -> str:
        """What the field opens with, ready to be typed over."""
        return ""

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        if event.item.key != ANOTHER:
            self.choose(event.item.key)
        elif not isinstance(self.focused, Input):  # else a / right behind enter has opened it
            self.action_another()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "another" or not isinstance(self.focused, Input)

    def on_paste(self, event: events.Paste) -> None:
        """Pasted onto the list: it can only be meant for the field."""
        if line := first_line(event.text):
            self.action_another(line)

    def action_another(self, begun: str = "") -> None:
        """Ask for one by name. `begun` is what was typed or pasted of it on the list; the key / is one letter of a path."""
        meant: Callable[[str], str] = after_slash if begun == "/" else str
        self.query_one(Ask).ask(
            self.WHAT,
            begun or self.held(),
            lambda text: self.take(meant(text)),
            self.HINT,
            begun=bool(begun),
            paths=True,
        )
