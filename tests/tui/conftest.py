"""The fixtures of `stage`, for every test of a screen."""

from tests.tui.stage import machine, started, tiny_starter

__all__ = ["machine", "started", "tiny_starter"]
