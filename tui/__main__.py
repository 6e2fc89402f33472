"""The command `ftui`: the app on a terminal, the verbs everywhere else. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_SCREENS = {"attach": "train", "chat": "chat"}  # verbs that are a screen of the app where there is a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ftui`; `argv` without the program's name. Returns the exit code."""
    os.umask(0o077)  # nothing that is written here is anybody else's business
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stdin.isatty() and sys.stdout.isatty():
        if not arguments:
            return _app("runs", None)
        screen = _SCREENS.get(arguments[0])
        names = [word for word in arguments[1:] if not word.startswith("-")]
        if screen and len(arguments) <= 2 and len(names) == len(arguments) - 1 and (names or screen == "train"):
            return _app(screen, names[0] if names else None)
    from engine.cli import main as verbs

    return verbs(arguments or ["--help"])


def _app(screen: str, name: str | None) -> int:
    from engine.cli.app import guarded

    def opened() -> int:
        run = None
        if name is not None:
            from engine.runs import directory

            run = directory.find(name)
        from tui.app import run as open_app

        open_app(screen, run)

    return guarded(opened, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
