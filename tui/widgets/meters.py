"""Numbers with their names: names at the left, values right-aligned."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import safe, shorten


def line(name: str, value: str, width: int) -> tuple[str, str]:
    """Name and value padded so that together they fill `width` cells; the name gives way first."""
    value = shorten(value, width)
    name = shorten(name, max(0, width - cell_len(value) - 1))
    return name + " " * max(0, width - cell_len(name) - cell_len(value)), value


class Meters(Widget):
    """Rows of (name, value); a value may be "" while it is not known. Texts are made safe here."""

    DEFAULT_CSS = """
    Meters {
        height: auto;
        width: 26;

        & > .meters--name { color: $foreground 65%; }
        & > .meters--value { text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {"meters--name", "meters--value"}

    rows: reactive[tuple[tuple[str, str], ...]] = reactive((), layout=True)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)

    def show(self, rows: Sequence[tuple[str, str]]) -> None:
        """Replace all rows; nothing is drawn again if none changed."""
        self.rows = tuple((safe(name), safe(value) or "–") for name, value in rows)

    def render(self) -> Content:
        width = self.content_size.width
        name_style = self.get_visual_style("meters--name")
        value_style = self.get_visual_style("meters--value")
        lines = []
        for name, value in self.rows:
            name, value = line(name, value, width)
            lines.append(Content.assemble((name, name_style), (value, value_style)))
        return Content("\n").join(lines)
