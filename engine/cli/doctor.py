"""Takes a few seconds: 4-bit arithmetic is tried out in a process of its own. Exit code 1 if something is broken."""

from __future__ import annotations

import argparse

from engine.cli import options as shared
from engine.cli import show

_GLYPHS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red")}


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import doctor
    from engine.errors import Exit

    checks = doctor.report()
    if args.json:
        show.emit(checks)
    else:
        for check in checks:
            glyph, colour = _GLYPHS[check.level]
            line = show.styled(f"{glyph} {check.name:<16} ", colour)
            line.append_text(show.styled(check.detail))
            show.console().print(line, soft_wrap=True)
            if check.fix:
                show.say(f"  {'':<16} → {check.fix}", "cyan")
    return int(Exit.UNEXPECTED if any(check.level == "bad" for check in checks) else Exit.OK)
