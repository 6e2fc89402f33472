"""A preset is a starting point: `ftui train --preset NAME`, with your own --data where it brings no rows."""

from __future__ import annotations

import argparse

from engine.cli import options as shared
from engine.cli import show
from engine.text import number


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="PRESET", help="everything about one preset")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import presets

    chosen = [presets.load(name) for name in ([args.name] if args.name else presets.names())]
    if args.json:
        show.emit(chosen[0] if args.name else chosen)
        return 0
    if not args.name:
        rows = [(p.name, p.title, p.summary, "its own" if p.data else "yours (--data)") for p in chosen]
        show.console().print(show.table(("preset", "title", "what it does", "rows"), rows, wrap="what it does"))
        return 0
    preset = chosen[0]
    show.say(f"{preset.title}   {preset.summary}", "bold")
    show.say(preset.when)
    show.say(f"rows: {'its own, from preset:' + preset.name if preset.data else 'yours, with --data FILE'}")
    for name, value in preset.values.items():
        show.say(f"  --set {name}={value}")
    for name, value in preset.settings.items():
        show.say(f"  {name} {number(value)}")
    for m in preset.measured:
        show.say(f"measured {m.date}: {m.model} on {m.hardware}, {m.steps} steps in {m.seconds:.0f} s", "dim")
    return 0
