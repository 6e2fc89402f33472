"""Any of these, a folder, a .gguf file or a hub id can stand after --model."""

from __future__ import annotations

import argparse

from engine.cli import options as shared
from engine.cli import show


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.models import sources

    known = sources.known()
    if args.json:
        show.emit(known)
        return 0
    rows = [(m.source, m.title, _count(m.parameters), m.where) for m in known]
    show.console().print(show.table(("model", "title", "parameters", "where"), rows, right=("parameters",)))
    return 0


def _count(parameters: int | None) -> str:
    if parameters is None:
        return ""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"
