"""A line in which a person edits a text that may have come from anywhere."""

from __future__ import annotations

from rich.text import Text
from textual.reactive import reactive
from textual.widgets import Input

from engine.text import one_for_one


class Field(Input):
    """Textual's Input writes its value to the terminal as it is: the name of a file may hold escape sequences."""

    cursor_blink = reactive(False, init=False)  # it would be sent twice a second, over the slowest line too

    @property
    def _value(self) -> Text:
        """What is drawn: a mark for each character that is not shown, so that the cursor stands where it seems to."""
        return Text(one_for_one(self.value), no_wrap=True, overflow="ignore", end="")
