"""Memory as a bar that is split by what needs it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.geometry import Size
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import safe, size

GLYPHS = "█▓▒░▚▞"  # one a part, so that the parts differ without colour
_COLOURS = ("$primary", "$accent", "$success", "$warning", "$secondary", "$foreground")
Part = tuple[str, int]  # name, bytes


def split(parts: Sequence[int], budget: int, width: int) -> list[int]:
    """How many of `width` cells each part gets when `budget` (or more, if the parts need more) fills them all.

    Largest remainders round; a part above 0 gets at least one cell while there is room.
    """
    whole = max(budget, sum(parts), 1)
    exact = [part / whole * width for part in parts]
    cells = [max(int(share), 1 if part else 0) for share, part in zip(exact, parts, strict=True)]
    spare = min(width, round(sum(exact))) - sum(cells)
    for index in sorted(range(len(parts)), key=lambda i: int(exact[i]) - exact[i]):
        if spare > 0 and exact[index] >= 1:
            cells[index] += 1
            spare -= 1
    while sum(cells) > width:
        cells[cells.index(max(cells))] -= 1
    return cells


def verdict(parts: Sequence[int], budget: int) -> str:
    """How much of what, in words: "2.1 GB of 23 GB", "25 GB, 2 GB more than there is"."""
    total = sum(parts)
    if not budget:
        return size(total)
    if total > budget:
        return f"{size(total)}, {size(total - budget)} more than there is"
    return f"{size(total)} of {size(budget)}"


def wrap(labels: Sequence[str], width: int) -> list[list[int]]:
    """Which labels stand on which line (three spaces apart): lists of indices."""
    lines: list[list[int]] = []
    used = width
    for index, text in enumerate(labels):
        if not lines or used + 3 + len(text) > width:
            lines.append([])
            used = -3
        lines[-1].append(index)
        used += 3 + len(text)
    return lines


class MemoryBar(Widget):
    """`parts` of memory (name, bytes) against `budget` bytes (0 = not known): a bar, then what each glyph means."""

    DEFAULT_CSS = """
    MemoryBar { height: auto; }
    """
    HELP = "What the run needs in memory, by part. The dots are what stays free on this device."

    parts: reactive[tuple[Part, ...]] = reactive((), layout=True)
    budget: reactive[int] = reactive(0, layout=True)

    def __init__(
        self, parts: Sequence[Part] = (), budget: int = 0, *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.set_reactive(MemoryBar.parts, tuple(parts))
        self.set_reactive(MemoryBar.budget, budget)

    def show(self, parts: Sequence[Part], budget: int) -> None:
        self.parts, self.budget = tuple(parts), budget

    def _lines(self, width: int) -> list[Content]:
        if not self.parts or width < 20:
            return []
        # Parts of no size say nothing; a seventh part would share a glyph, so the list must stay this short.
        shown = [(name, count) for name, count in self.parts if count][: len(GLYPHS)]
        counts = [count for _, count in shown]
        words = verdict(counts, self.budget)
        room = max(8, min(width - len(words) - 2, 60))
        cells = split(counts, self.budget, room)
        bar = Content.assemble(*((GLYPHS[i] * n, _COLOURS[i]) for i, n in enumerate(cells) if n))
        free = "·" * (room - sum(cells))
        over = bool(self.budget) and sum(counts) > self.budget
        lines = [
            bar
            + Content.styled(free, "$foreground 40%")
            + "  "
            + Content.styled(words, "bold $error" if over else "bold")
        ]
        labels = [f"{GLYPHS[i]} {safe(name)} {size(count)}" for i, (name, count) in enumerate(shown)]
        for line in wrap(labels, width):
            parts = [Content.assemble((labels[i][0], _COLOURS[i]), labels[i][1:]) for i in line]
            lines.append(Content("   ").join(parts))
        return lines

    def render(self) -> Content:
        return Content("\n").join(self._lines(self.content_size.width))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))
