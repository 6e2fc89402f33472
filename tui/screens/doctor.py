"""Doctor: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from tui.frame import Frame


class DoctorScreen(Frame):
    TITLE = "Doctor"

    def body(self) -> ComposeResult:
        yield Static("", markup=False)
