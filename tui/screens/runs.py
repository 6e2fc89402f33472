"""Runs: home."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from tui.frame import Frame


class RunsScreen(Frame):
    TITLE = "Runs"

    def body(self) -> ComposeResult:
        yield Static("", markup=False)
