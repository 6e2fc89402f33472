"""Goes on exactly where the newest whole checkpoint stands, with the same losses as if nothing had happened.

With --edit it goes on otherwise: with less memory, another rate, more epochs.
Of a chain (`ftui train --then`), all that is not finished goes on, whichever of its runs is named."""

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
    from engine.cli import after, live
    from engine.runs import control, links

    found = shared.named_run(args)
    seen = {run: live.mark(run) for run in links.members(found)}
    edits = shared.typed(args.edit, "--edit")
    done = control.resume_chain(found, edits=edits, force=args.force, gpu=args.gpu, now=args.now)
    return after.go_on([run for run, _ in done], args, dict(done), seen)
