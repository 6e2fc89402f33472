"""Counts as horizontal bars in eighths of a cell, with a cutoff line that a person can move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from engine.text import safe, shorten

Role = Literal["label", "kept", "cut", "count", "cutoff", "none"]
Bucket = tuple[int, int, int]  # from (included), to (excluded), count
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FAR = "Move the cutoff line by a whole bar"


def bar(count: float, most: float, width: int, *, cut: bool = False, log: bool = False) -> str:
    """A bar of at most `width` cells for `count` of `most`; anything above 0 is seen.

    cut  drawn in ▒, whole cells only: what lies beyond the cutoff differs in shape, not in colour alone
    log  as long as the logarithm of count + 1, so that a handful of rows shows beside a million
    """
    if count <= 0 or most <= 0 or width < 1:
        return ""
    part = math.log1p(count) / math.log1p(most) if log else count / most
    if cut:
        return "▒" * max(1, round(part * width))
    eighths = max(1, round(part * width * 8))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def rows(
    buckets: Sequence[Bucket],
    cutoff: int | None,
    caption: str,
    width: int,
    *,
    log: bool = False,
    beyond: int | None = None,
) -> list[list[tuple[str, Role]]]:
    """One row a bucket, and the cutoff line after the last bucket that begins below it: lists of (text, role).

    beyond  how much of all lies beyond the cutoff: a bucket that the cutoff falls into is then drawn in two parts
    A last bucket that is wider than the others has a + behind its number.
    """
    if not buckets:
        return []
    most = max(count for _, _, count in buckets)
    label_width = max(5, *(len(f"{low:,}") for low, _, _ in buckets), len(f"{cutoff or 0:,}"))
    count_width = len(f"{most:,}") + 1
    room = max(1, width - label_width - 2 - count_width)
    after = None if cutoff is None else sum(1 for low, _, _ in buckets if low < cutoff)
    found: list[list[tuple[str, Role]]] = []
    for number, (low, high, count) in enumerate(buckets):
        if number == after:
            found.append(_line(cutoff or 0, caption, label_width, width))
        plus = "+" if high - low > buckets[0][1] - buckets[0][0] else " "
        if beyond is None:
            over = count if after is not None and number >= after else 0
        else:
            over = min(count, max(0, beyond - sum(count for _, _, count in buckets[number + 1 :])))
        cells = len(bar(count, most, room, log=log))
        cut = bar(over, count, cells, cut=True) if over else ""
        kept = bar(count, most, room, log=log)[: cells - len(cut)] if over < count else ""
        found.append(
            [
                (f"{low:>{label_width},}{plus}", "label"),
                ("▏", "label"),
                (kept, "kept"),
                (cut, "cut"),
                (f" {count:,}" if count else "", "count"),
            ]
        )
    if after == len(buckets):
        found.append(_line(cutoff or 0, caption, label_width, width))
    return found


def _line(cutoff: int, caption: str, label_width: int, width: int) -> list[tuple[str, Role]]:
    text = shorten(f"┄┄┄┄ {caption}" if caption else "┄" * 12, max(0, width - label_width - 1))
    return [(f"{cutoff:>{label_width},} ", "cutoff"), (text, "cutoff")]


class Histogram(Widget, can_focus=True):
    """Bars for buckets (from, to, count), and the line at `cutoff`; arrow keys move the line.

    The captions of the line ("1 row cut, 1 loses its end token", and shorter ones) are the owner's to set when
    `CutoffChanged` arrives.
    """

    DEFAULT_CSS = """
    Histogram {
        height: auto;

        & > .histogram--label { color: $foreground 60%; }
        & > .histogram--kept { color: $primary; }
        & > .histogram--cut { color: $warning; }
        & > .histogram--count { color: $foreground 60%; }
        & > .histogram--cutoff { color: $warning; }
        &:focus > .histogram--cutoff { color: $warning; text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {f"histogram--{role}" for role in ("label", "kept", "cut", "count", "cutoff")}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Cutoff", key_display="←→", id="histogram.less", tooltip="Move the cutoff line"),
        Binding("right", "move(1)", "Cutoff", show=False, tooltip="Move the cutoff line", id="histogram.more"),
        Binding("shift+left", "far(-1)", "Cutoff, far", show=False, tooltip=_FAR, id="histogram.much-less"),
        Binding("shift+right", "far(1)", "Cutoff, far", show=False, tooltip=_FAR, id="histogram.much-more"),
        Binding("down", "app.focus_next", "Next thing", show=False, id="histogram.next"),
        Binding("up", "app.focus_previous", "Thing before", show=False, id="histogram.before"),
    ]
    HELP = (
        "How many rows have how many tokens. The dashed line is the cutoff: rows below it are cut to that many tokens. "
        "← and → move it, with shift by a whole bar; a click puts it where you click."
    )

    cutoff: reactive[int | None] = reactive(None)
    captions: reactive[tuple[str, ...]] = reactive(())
    logarithmic: reactive[bool] = reactive(False)
    beyond: reactive[int | None] = reactive(None)
    buckets: reactive[tuple[Bucket, ...]] = reactive((), layout=True)

    class CutoffChanged(Message):
        """The person moved the line."""

        def __init__(self, histogram: Histogram, cutoff: int) -> None:
            super().__init__()
            self.histogram = histogram
            self.cutoff = cutoff

        @property
        def control(self) -> Histogram:
            return self.histogram

    def __init__(
        self,
        buckets: Sequence[Bucket] = (),
        cutoff: int | None = None,
        *,
        step: int = 8,
        least: int = 8,
        most: int = 1 << 20,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """step  tokens that one key press moves the line; least, most  where it stops."""
        super().__init__(id=id, classes=classes)
        self.step, self.least, self.most = step, least, most
        self.set_reactive(Histogram.buckets, tuple(buckets))
        self.set_reactive(Histogram.cutoff, cutoff)

    def render(self) -> Content:
        lines = []
        width, log = self.content_size.width, self.logarithmic
        for row in rows(self.buckets, self.cutoff, self._caption, width, log=log, beyond=self.beyond):
            parts = ((text, self.get_visual_style(f"histogram--{role}")) for text, role in row if text)
            lines.append(Content.assemble(*parts))
        return Content("\n").join(lines)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self.buckets) + (self.cutoff is not None and bool(self.buckets))

    def watch_cutoff(self, before: int | None, after: int | None) -> None:
        if (before is None) != (after is None):
            self.refresh(layout=True)

    @property
    def _caption(self) -> str:
        """The first caption that fits on the cutoff line, else the last one."""
        labels = [f"{low:,}" for low, _, _ in self.buckets] + [f"{self.cutoff or 0:,}"]
        room = self.content_size.width - max(5, *map(len, labels)) - 1 - 5
        safe_ = [safe(caption) for caption in self.captions]
        return next((caption for caption in safe_ if cell_len(caption) <= room), safe_[-1] if safe_ else "")

    def action_far(self, bars: int) -> None:
        """Move the line by whole bars, at least eight steps each."""
        width = self.buckets[0][1] - self.buckets[0][0] if self.buckets else 0
        self.action_move(bars * max(8, width // self.step))

    def action_move(self, steps: int) -> None:
        """Move the line by `steps` steps, to a whole multiple of the step."""
        if self.cutoff is None:
            return
        whole = self.cutoff // self.step if steps > 0 else -(-self.cutoff // self.step)
        self._put((whole + steps) * self.step)

    def on_click(self, event: events.Click) -> None:
        """The cutoff goes to the end of the bucket that was clicked."""
        if self.cutoff is None or not self.buckets:
            return
        after = sum(1 for low, _, _ in self.buckets if low < self.cutoff)
        row = event.y if event.y < after else event.y - 1
        if event.y != after and 0 <= row < len(self.buckets):
            self._put(self.buckets[row][1])

    def _put(self, cutoff: int) -> None:
        cutoff = min(self.most, max(self.least, cutoff))
        if cutoff != self.cutoff:
            self.cutoff = cutoff
            self.post_message(self.CutoffChanged(self, cutoff))
