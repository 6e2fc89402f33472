"""Help: what the focused thing is, what the screen is for, and every key that works there."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from tui.frame import FAINT, FOCUS, MODE_KEYS, Frame


class HelpScreen(Frame):
    """Shown over the screen it explains; the same key or escape closes it."""

    TITLE = "Help"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Close", id="help.close"),
        Binding("question_mark", "back", "Close", show=False, id="help.close-same-key"),
    ]

    def __init__(self, about: Screen, focused: Widget | None) -> None:
        super().__init__()
        self._about = about
        self._focused = focused
        self._bindings_there = list(about.active_bindings.values())  # read now: focus changes with this screen
        self.command = getattr(about, "command", "ftui")

    def body(self) -> ComposeResult:
        with VerticalScroll(can_focus=True):
            yield Static(self._text(), markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def _text(self) -> Content:
        lines: list[Content] = []
        title = str(self._about.TITLE or "")
        focused = str(getattr(self._focused, "help_text", "") or getattr(self._focused, "HELP", "") or "")
        about = str(getattr(self._about, "HELP", "") or "")
        if focused and focused != about:
            lines += [Content.styled("Here", "bold"), Content(focused), Content("")]
        if about:
            lines += [Content.styled(title, "bold"), Content(about), Content("")]
        lines.append(Content.styled("Keys", "bold"))
        modes = {f"show({mode!r})" for _, mode, _ in MODE_KEYS}
        rows: dict[str, list[str]] = {}
        for _, binding, enabled, tooltip in self._bindings_there:
            what = tooltip or binding.description
            # What has no id is Textual's own, and no news: pgup pages up.
            if enabled and what and binding.id and binding.action not in modes:
                rows.setdefault(what, []).append(self.app.get_key_display(binding))
        for what, keys in rows.items():
            lines.append(Content.assemble((" ".join(keys).ljust(14) + " ", FOCUS), what))
        lines += [Content(""), Content.styled("Everywhere", "bold")]
        lines += [Content.assemble((key.ljust(15), FOCUS), word) for key, _, word in MODE_KEYS]
        lines.append(Content.assemble(("tab".ljust(15), FOCUS), "next thing on this screen"))
        lines.append(Content.assemble(("ctrl+p".ljust(15), FOCUS), "palette: every command by name"))
        lines += [
            Content(""),
            Content.styled("Keys can be changed in keys.yaml; `ftui where` prints the folder.", FAINT),
        ]
        return Content("\n").join(lines)
