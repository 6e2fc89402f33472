"""The export is loaded back and its logits compared with base + adapter before it counts as done.

examples:
  ftui export congyu                              the adapter, for peft
  ftui export congyu --merged --to ./congyu       a whole model, for transformers and everything that reads it
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    parser.add_argument("--merged", action="store_true", help="the whole model instead of the adapter alone")
    parser.add_argument("--to", metavar="DIR", help="a new folder (default: under the data folder of `ftui where`)")
    parser.add_argument(
        "--shard-size", default="2GB", metavar="SIZE", help="largest file of a merged model (default 2GB)"
    )
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import live
    from engine.runs import control
    from engine.runs.job import Job

    if not re.fullmatch(r"\d+(\.\d+)?\s*[MG]i?B", args.shard_size, re.IGNORECASE):
        raise FtuiError(Exit.USAGE, f"{args.shard_size} is not a size", next_step="write it like 500MB or 2GB")
    found = shared.named_run(args)
    if found.result is None:
        raise FtuiError(
            Exit.RUN_STATE, f"{found.name} has no result yet", str(found.path), "`ftui runs` shows its state"
        )
    job_options = {
        "kind": "merged" if args.merged else "adapter",
        "to": str(Path(args.to).expanduser().resolve()) if args.to else None,
        "shard_size": args.shard_size,
    }
    if not args.json:
        show.say("exporting, then loading it back to compare …", "dim")
    seen = live.mark(found)
    control.start(found, Job(kind="export", run=str(found.path), options=job_options))
    done = live.exported(found, seen, quiet=args.json)
    if args.json:
        show.emit(done)
    else:
        show.say(f"exported to {done.path}", "bold")
        show.say(f"loaded back and compared: the largest difference between logits is {done.difference:.2g}")
    return 0
