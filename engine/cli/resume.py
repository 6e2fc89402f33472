"""Goes on exactly where the newest whole checkpoint stands, with the same losses as if nothing had happened.

With --edit it goes on otherwise: with less memory, another rate, more epochs."""

from __future__ import annotations

import argparse

from engine.cli import options as shared


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    shared.add_place(parser, "as before")
    shared.add_edit(parser, "go on with another setting, as in max_length=512 (the recipe before is kept)")
    parser.add_argument("--force", action="store_true", help="end the run first if it hangs")
    shared.add_wait(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import live
    from engine.runs import control

    found = shared.named_run(args)
    seen = live.mark(found)
    step = control.resume(found, edits=shared.typed(args.edit, "--edit"), force=args.force, gpu=args.gpu, now=args.now)
    return live.go_on(found, args, step, seen)
