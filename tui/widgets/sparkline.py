"""A curve in one line, for tables and status lines."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.widgets.braille import spark


class Sparkline(Widget):
    """The course of `values` in one line of braille. In a table cell use `braille.spark` directly."""

    DEFAULT_CSS = """
    Sparkline { height: 1; color: $primary; }
    """

    values: reactive[tuple[float, ...]] = reactive((), always_update=False)

    def __init__(self, values: Sequence[float] = (), *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.set_reactive(Sparkline.values, tuple(values))

    def render(self) -> Content:
        return Content(spark(self.values, self.content_size.width))
