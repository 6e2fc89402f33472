"""All are XDG folders: XDG_STATE_HOME, XDG_DATA_HOME, XDG_CONFIG_HOME and XDG_CACHE_HOME move them."""

from __future__ import annotations

import argparse

from engine.cli import options as shared
from engine.cli import show


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="the files of one run instead")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import paths

    if args.run:
        from engine.runs import directory

        found = directory.find(args.run)
        places = {
            "run": found.path,
            "recipe": found.recipe_path,
            "plan": found.plan_path,
            "journal": found.journal_path,
            "log": found.log_path,
            "checkpoints": found.checkpoints,
            "result": found.result or "",
        }
    else:
        places = {
            "runs": paths.runs_dir(),
            "models": paths.models_dir(),
            "state": paths.state_dir(),
            "data": paths.data_dir(),
            "config": paths.config_dir(),
            "cache": paths.cache_dir(),
        }
    if args.json:
        show.emit({name: str(place) for name, place in places.items()})
        return 0
    for name, place in places.items():
        show.say(f"{name:<12} {place or '(none yet)'}")
    return 0
