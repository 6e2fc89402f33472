"""What is said after a start or a resume: how to come back, or with --wait what happens until the end."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.cli import live, show
from engine.errors import Exit

if TYPE_CHECKING:
    from engine.runs.directory import RunDir


def go_on(
    runs: Sequence[RunDir],
    args: argparse.Namespace,
    steps: Mapping[RunDir, int] | None = None,
    seen: Mapping[RunDir, int] | None = None,
) -> int:
    """Follow the runs to their ends with --wait, one after the other, else say how to come back.

    runs   one, or those of a chain in their order
    steps  where runs that were there before go on
    seen   their journals' entries up to these are from before and are not told again
    """
    from engine.runs import directory

    steps, seen = steps or {}, seen or {}
    if not args.json:
        for run in runs:
            if run in steps and not _before(run):
                show.say(f"{directory.title(run)} goes on from step {steps[run]}")
    if args.wait:
        for run in runs:
            if len(runs) > 1 and args.json:
                show.emit({"run": directory.handle(run), "dir": str(run.path)})
            if code := live.wait(run, args.json, seen=seen.get(run, 0)):
                return code
        return int(Exit.OK)
    if args.json:
        first, *rest = [_document(run, steps) for run in runs]
        show.emit({**first, **({"then": rest} if rest else {})})
    else:
        for run in runs:
            _say(run)
    return int(Exit.OK)


def _document(run: RunDir, steps: Mapping[RunDir, int]) -> dict[str, Any]:
    from engine.cli import line
    from engine.runs import directory

    more = {"from_step": steps[run]} if run in steps else {}
    queued = _before(run) or line.told(run)
    return {"run": directory.handle(run), "dir": str(run.path), **more, **({"queued": queued} if queued else {})}


def _before(run: RunDir) -> str:
    """ "waits for congyu (sft)": runs of its chain that are not ready yet; empty where it needs none."""
    from engine.runs import links, status

    needed = [one for one in links.needs(run) if status.read(one).state != "ready"]
    return f"waits for {links.labels(needed)}" if needed else ""


def _say(run: RunDir) -> None:
    from engine.cli import line
    from engine.runs import directory

    name = directory.handle(run)
    if before := _before(run):
        show.say(f"{name} {before} and starts by itself")
    elif queued := line.told(run):
        show.say(f"{name} is queued: {queued}")
        show.say(
            f"it starts by itself; `ftui resume {name} --now` starts it at once, `ftui stop {name}` takes it out of the line"
        )
    else:
        show.say(
            f"{name} runs in the background: `ftui attach {name}` shows it, `ftui stop {name}` ends it with a checkpoint"
        )
