"""A preset is a starting point: `ftui train --preset NAME`, with your own --data where it brings no rows.

Your own are YAML files in ftui's config folder; `ftui plan … --save NAME` writes one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import options as shared
from engine.cli import show
from engine.text import duration, number, safe, shorten, size

if TYPE_CHECKING:
    from engine.presets import Preset


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="PRESET", help="everything about one preset")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import presets

    chosen = [presets.load(name) for name in ([args.name] if args.name else presets.names())]
    if args.json:
        show.emit(chosen[0] if args.name else chosen)
        return 0
    if args.name:
        show_preset(chosen[0])
        return 0
    rows = [(p.name, p.title, p.summary, "its own" if p.data else "yours", "you" if p.own else "ftui") for p in chosen]
    columns = ("preset", "title", "what it does", "rows", "made by")
    show.console().print(show.table(columns, rows, wrap="what it does"))
    return 0


def show_preset(preset: Preset) -> None:
    """Everything about one preset."""
    show.say(f"{preset.title}   {preset.summary}", "bold")
    show.paragraph(preset.when)
    rows = f"its own ({preset.data})" if preset.data else "yours, with --data FILE"
    facts = [("made by", f"you, {Path(preset.folder) / preset.name}.yaml" if preset.own else "ftui"), ("rows", rows)]
    facts += (
        [("values", "  ".join(f"--set {name}={value}" for name, value in preset.values.items()))]
        if preset.values
        else []
    )
    facts += [(name, text) for name, text in (("--prompt", preset.prompt), ("--completion", preset.completion)) if text]
    facts += [("probe", preset.probe)] if preset.probe else []
    checks = preset.checks
    if checks.identity or checks.general:
        facts.append(("checks", f"{len(checks.identity)} to be learned, {len(checks.general)} not to be lost"))
    for name, text in facts:
        show.paragraph(shorten(safe(text), 300), lead=f"  {name:<14} ")
    if preset.settings:
        show.say()
        settings = [(name, number(value), preset.reasons[name]) for name, value in preset.settings.items()]
        show.console().print(show.table(("setting", "value", "why"), settings, right=("value",), wrap="why"))
    if preset.notes:
        show.say()
    for note in preset.notes:
        show.paragraph(note, lead="· ")
    for m in preset.measured:
        show.say()
        show.paragraph(
            f"measured {m.date}: {m.model} on {m.hardware}, {m.steps} steps in {duration(m.seconds)}, "
            f"loss {m.first_loss:g} to {m.last_loss:g}" + (f", {size(m.memory)}" if m.memory else ""),
            "dim",
        )
        if m.note:
            show.paragraph(m.note, "dim")
