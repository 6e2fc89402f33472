"""Help: what the focused thing is, what the screen is for, and every key that works there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from tui.frame import FAINT, FOCUS, MODE_KEYS, Frame
from tui.listing import pad

ARROWS = "←→↑↓"
COLUMN = 14  # cells of the keys


class HelpScreen(Frame):
    """Shown over the screen it explains; the same key or escape closes it."""

    TITLE = "Help"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Close", id="help.close"),
        Binding("question_mark,f1", "back", "Close", show=False, id="help.close-same-key"),
    ]

    def __init__(self, about: Screen, focused: Widget | None) -> None:
        super().__init__()
        self._about = about
        self._focused = focused
        self._bindings_there = list(about.active_bindings.values())  # read now: focus changes with this screen
        self.command = getattr(about, "command", "ftui")

    def body(self) -> ComposeResult:
        with VerticalScroll(can_focus=True):
            yield Static("", id="text", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        self.query_one("#text", Static).update(self._text(self.app.size.width - 4))  # beside margins and the bar

    def _text(self, width: int) -> Content:
        lines: list[Content] = []
        title = str(self._about.TITLE or "")
        focused = str(getattr(self._focused, "help_text", "") or getattr(self._focused, "HELP", "") or "")
        about = str(getattr(self._about, "HELP", "") or "")
        if focused and focused != about:
            lines += [Content.styled("Here", "bold"), Content(focused), Content("")]
        if about:
            lines += [Content.styled(title, "bold"), Content(about), Content("")]
        lines.append(Content.styled("Keys", "bold"))
        there = self._keys()
        lines += [_line(keys, what, width) for what, keys in there.items()]
        lines += [Content(""), Content.styled("Everywhere", "bold")]
        everywhere = [(key, word) for key, _, word in MODE_KEYS]
        everywhere += [("tab", "next thing on this screen"), ("ctrl+p", "palette: every command by name")]
        lines += [_line([key], word, width) for key, word in everywhere if [key] not in there.values()]
        lines += [
            Content(""),
            Content.styled("Keys can be changed in keys.yaml; `ftui where` prints the folder.", FAINT),
        ]
        return Content("\n").join(lines)

    def _keys(self) -> dict[str, list[str]]:
        """What can be done there, and the keys that do it. A key stands once: where two say the same, by what the footer shows."""
        modes = {f"show({mode!r})" for _, mode, _ in MODE_KEYS}
        there = []
        for _, binding, enabled, tooltip in self._bindings_there:
            what = tooltip or binding.description
            # What has no id is Textual's own, and no news: pgup pages up.
            if enabled and what and binding.id and binding.action not in modes:
                there.append((binding, what))
        rows: dict[str, list[str]] = {what: [] for _, what in there}
        told: set[str] = set()
        for binding, what in sorted(there, key=lambda one: not one[0].show):
            key = self.app.get_key_display(binding)
            if not (keys := set(key) if set(key) <= set(ARROWS) else {key}) <= told:
                told |= keys
                rows[what].append(key)
        return {what: keys for what, keys in rows.items() if keys}


def together(keys: Sequence[str]) -> list[str]:
    """Keys that differ in their arrow alone as one word: ↑ k ↓ as ↑↓ k, shift+← shift+→ as shift+←→."""
    arrows: dict[str, str] = {}
    for key in keys:
        if key[-1] in ARROWS:
            stem = key.rstrip(ARROWS)
            arrows[stem] = arrows.get(stem, "") + key.removeprefix(stem)
    return [*(stem + signs for stem, signs in arrows.items()), *(key for key in keys if key[-1] not in ARROWS)]


def _line(keys: Sequence[str], what: str, width: int) -> Content:
    """Keys in a column of their own, in as many lines as they need, and what they do beside it."""
    left = wrap(" ".join(together(keys)), COLUMN, break_on_hyphens=False)
    right = wrap(what, max(20, width - COLUMN - 2))
    rows = zip_longest(left, right, fillvalue="")
    return Content("\n").join(Content.assemble((pad(key, COLUMN) + "  ", FOCUS), word) for key, word in rows)
