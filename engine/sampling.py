"""What an answer may be drawn with, whoever asks for it."""

from __future__ import annotations

HOTTEST = 5.0  # temperature; beyond it every token is about as likely as any other
