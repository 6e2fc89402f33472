"""A line in which a person edits a text that may have come from anywhere."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.widgets import Input

from engine.text import one_for_one


class Field(Input):
    """Textual's Input writes its value to the terminal as it is: the name of a file may hold escape sequences."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False, id="field.complete", tooltip="Take what is suggested"),
    ]
    cursor_blink = reactive(False, init=False)  # it would be sent twice a second, over the slowest line too

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "complete" or (self.cursor_at_end and len(self._suggestion) > len(self.value))

    def action_complete(self) -> None:
        self.action_cursor_right()  # which takes it

    @property
    def _value(self) -> Text:
        """What is drawn: a mark for each character that is not shown, so that the cursor stands where it seems to."""
        return Text(one_for_one(self.value), no_wrap=True, overflow="ignore", end="")
