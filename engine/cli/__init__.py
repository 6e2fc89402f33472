"""The verbs: everything that the screens can do, for scripts, pipes and people in a hurry."""

from engine.cli.app import main

__all__ = ["main"]
