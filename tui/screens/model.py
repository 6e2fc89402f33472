"""Model: the first step of a new run."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from tui.frame import Frame


class ModelScreen(Frame):
    TITLE = "New run"

    def body(self) -> ComposeResult:
        yield Static("", markup=False)
