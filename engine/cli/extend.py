"""Goes on from a finished run's last checkpoint with a new schedule over the added epochs."""

from __future__ import annotations

import argparse

from engine.cli import options as shared


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    parser.add_argument("--epochs", type=float, required=True, metavar="N", help="how many epochs more")
    shared.add_place(parser, "as before")
    shared.add_wait(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import after, live
    from engine.runs import control

    found = shared.named_run(args)
    seen = live.mark(found)
    step = control.extend(found, args.epochs, gpu=args.gpu, now=args.now)
    return after.go_on([found], args, {found: step}, {found: seen})
