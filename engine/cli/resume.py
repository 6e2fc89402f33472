"""Goes on exactly where the newest whole checkpoint stands, with the same losses as if nothing had happened."""

from __future__ import annotations

import argparse

from engine.cli import options as shared


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    parser.add_argument("--gpu", type=int, metavar="N", help="index of the card to use (default: as before)")
    shared.add_wait(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import live
    from engine.runs import control

    found = shared.named_run(args)
    seen = live.mark(found)
    step = control.resume(found, gpu=args.gpu)
    return live.go_on(found, args, step, seen)
