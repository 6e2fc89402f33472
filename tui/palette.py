"""The command palette on an app of several modes.

Textual's takes for granted that the stack of screens that it was opened on is the one on the terminal. A key pressed right
before it, or a run that opens by itself, exchanges that stack: the app would end with an IndexError or a ScreenStackError.
"""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette
from textual.events import Mount


class Palette(CommandPalette):
    """Nothing happens to it, and it does nothing, once it is no longer what is on the terminal."""

    def _on_mount(self, event: Mount) -> None:
        if self.app.screen is not self:
            event.prevent_default()

    def dismiss(self, result: None = None) -> AwaitComplete:
        return super().dismiss(result) if self.app.screen is self else AwaitComplete.nothing()
