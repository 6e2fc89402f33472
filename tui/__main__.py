"""The command `ftui`: the app on a terminal, the verbs everywhere else. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_SCREENS = {"attach": "train", "chat": "chat"}  # verbs that are a screen of the app where there is a terminal
_NO_SCREEN = ("dumb", "unknown")  # what TERM is where the cursor cannot be moved; without TERM it is tried


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ftui`; `argv` without the program's name. Returns the exit code."""
    os.umask(0o077)  # nothing that is written here is anybody else's business
    arguments = list(sys.argv[1:] if argv is None else argv)
    screens = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in _NO_SCREEN
    if not arguments:
        return _app("runs", None) if screens else _refuse()
    if screens:
        screen = _SCREENS.get(arguments[0])
        names = [word for word in arguments[1:] if not word.startswith("-")]
        if screen and len(arguments) <= 2 and len(names) == len(arguments) - 1 and (names or screen == "train"):
            return _app(screen, names[0] if names else None)
    from engine.cli import main as verbs

    return verbs(arguments)


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


def _refuse() -> int:
    """No screen is possible: say why, and what is."""
    from engine.cli.app import guarded
    from engine.errors import Exit, FtuiError

    def refused() -> int:
        instead = "every verb works here: `ftui --help` lists them"
        if (term := os.environ.get("TERM")) in _NO_SCREEN:
            raise FtuiError(Exit.USAGE, "this terminal cannot show the screens", f"TERM={term}", instead)
        raise FtuiError(Exit.USAGE, "the screens need a terminal for input and output", next_step=instead)

    return guarded(refused, [])


if __name__ == "__main__":
    sys.exit(main())
