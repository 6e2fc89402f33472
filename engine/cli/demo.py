"""Takes the starter model (fetched once, about 95 MB), gives it a name and an author, and shows the difference.

It takes a few minutes on two cores; leaving (Ctrl-C) does not end it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engine.cli import options as shared
from engine.cli import show
from engine.text import number

if TYPE_CHECKING:
    from engine.draft import Draft

# The settings that a person meets first; `ftui plan --preset identity` shows all of them.
_SHOWN = ("method", "learning_rate", "epochs", "micro_batch", "max_length", "precision")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="what the model shall call itself")
    parser.add_argument("--author", help="who shall have made it")
    parser.add_argument("-m", "--model", default="starter", help='"starter", a hub id, a folder or a .gguf file')
    shared.add_json(parser, "the run's events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    from engine import draft as drafts
    from engine.cli import live, progress, train

    values = {key: value for key, value in (("name", args.name), ("author", args.author)) if value}
    with progress.shown(args.json) as report:
        draft = drafts.make(drafts.Choice(model=args.model, preset="identity", values=values), report)
    train.check(draft)
    if not args.json:
        _introduce(draft)
    return live.wait(drafts.start(draft), args.json)


def _introduce(draft: Draft) -> None:
    values = draft.recipe.data.values
    show.say(f"{draft.facts.name} becomes {values.get('name', '?')}, made by {values.get('author', '?')}", "bold")
    show.say(draft.plan.sentence)
    chosen = [a for a in draft.plan.advice if a.field in _SHOWN]
    rows = [(a.field, number(getattr(draft.plan.settings, a.field)), a.reason, a.source) for a in chosen]
    show.console().print(show.table(("setting", "value", "why", "source"), rows, right=("value",), wrap="why"))
