"""The line at the bottom of a chat: grows with what is typed, enter sends it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import TextArea


class Prompt(TextArea):
    """A text of one to five lines. Enter submits, ctrl+j (or a paste) puts in a line feed."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        max-height: 5;
        border: none;
        padding: 0;
        background: transparent;
        background-tint: transparent;
        &:focus { border: none; background-tint: transparent; }
        & .text-area--cursor-line { background: transparent; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j", "line_feed", "New line", show=False, id="prompt.line-feed"),
    ]
    cursor_blink = reactive(False, init=False)  # it would be sent twice a second, over the slowest line too
    HELP = "Type and press enter. ctrl+j puts in a new line. With nothing typed, up takes the last message back to edit it."

    class Submitted(Message):
        """Enter was pressed."""

        def __init__(self, prompt: Prompt, text: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.text = text

        @property
        def control(self) -> Prompt:
            return self.prompt

    class Recall(Message):
        """Up was pressed with nothing typed."""

    def __init__(self, *, placeholder: str = "", id: str | None = None, classes: str | None = None) -> None:
        super().__init__(
            placeholder=placeholder,
            compact=True,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            id=id,
            classes=classes,
        )

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            self.post_message(self.Submitted(self, self.text))
        elif event.character == "?" and not self.text:
            event.prevent_default()
            event.stop()
            await self.run_action("app.help")  # as everywhere else, while it cannot be part of a question
        elif event.key == "up" and not self.text:
            event.prevent_default()
            event.stop()
            self.post_message(self.Recall())
        else:
            await super()._on_key(event)

    def action_line_feed(self) -> None:
        self.insert("\n")

    def put(self, text: str) -> None:
        """Replace what is typed, cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)
