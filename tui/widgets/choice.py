"""One of a few things, each with a line that says what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import safe, shorten


class Choice(Widget, can_focus=True):
    """Options (name, word, meaning), one of them chosen: ● and bold. Up and down choose, enter accepts."""

    DEFAULT_CSS = """
    Choice {
        height: auto;

        & > .choice--chosen { text-style: bold; }
        &:focus > .choice--chosen { color: $primary; text-style: bold; }
        & > .choice--other { color: $foreground 75%; }
        & > .choice--meaning { color: $foreground 60%; }
    }
    """
    COMPONENT_CLASSES = {"choice--chosen", "choice--other", "choice--meaning"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Choose", key_display="↑↓", id="choice.up"),
        Binding("down", "move(1)", "Choose", show=False, id="choice.down"),
        Binding("space", "move(1)", "Choose", show=False, id="choice.next"),
        Binding("enter", "accept", "Accept", show=False, id="choice.accept"),
    ]

    chosen: reactive[str] = reactive("")

    class Changed(Message):
        """Another option was chosen."""

        def __init__(self, choice: Choice, chosen: str) -> None:
            super().__init__()
            self.choice = choice
            self.chosen = chosen

        @property
        def control(self) -> Choice:
            return self.choice

    class Accepted(Message):
        """Enter was pressed."""

    def __init__(
        self,
        options: Sequence[tuple[str, str, str]],
        chosen: str = "",
        *,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(id=id, classes=classes, disabled=disabled)
        self.options = list(options)
        self.set_reactive(Choice.chosen, chosen or self.options[0][0])

    def render(self) -> Content:
        wide = max(cell_len(word) for _, word, _ in self.options)
        lines = []
        for name, word, meaning in self.options:
            here = name == self.chosen
            style = self.get_visual_style("choice--chosen" if here else "choice--other")
            text = shorten(safe(meaning), max(0, self.content_size.width - wide - 5))
            lines.append(
                Content.assemble(
                    (f"{'●' if here else '○'} {word:<{wide}}", style),
                    "   ",
                    (text, self.get_visual_style("choice--meaning")),
                )
            )
        return Content("\n").join(lines)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self.options)

    def action_move(self, by: int) -> None:
        names = [name for name, _, _ in self.options]
        self._choose(names[(names.index(self.chosen) + by) % len(names)])

    def action_accept(self) -> None:
        self.post_message(self.Accepted())

    def on_click(self, event: events.Click) -> None:
        if 0 <= event.y < len(self.options):
            self._choose(self.options[event.y][0])

    def _choose(self, name: str) -> None:
        if name != self.chosen:
            self.chosen = name
            self.post_message(self.Changed(self, name))
