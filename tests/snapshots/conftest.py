"""The fixtures of the screens' tests, for their pictures."""

from tests.tui.stage import machine, started, tiny_starter

__all__ = ["machine", "started", "tiny_starter"]
