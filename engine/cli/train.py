"""Without --wait it returns at once; the run goes on in the background, whatever happens to this terminal.

One run trains at a time on a processor, and on each GPU. Another one waits in line, and starts by
itself when its turn comes: first come, first served. It also waits for a GPU on which others
compute. `ftui runs` shows the line, `ftui runs --gpus` who uses what.

With --then another stage follows by itself: a run of its own, which waits for those it begins from. Its
settings come from its own plan; --edit STAGE.FIELD=VALUE changes one.

examples:
  ftui train --preset identity --set name=Ada --set author=you
  ftui train --data rows.jsonl --model ./my-model --method qlora --wait
  ftui train recipe.yaml --epochs 3
  ftui train --data rows.jsonl --then dpo:pairs.json --edit dpo.beta=0.3
  ftui train --data rows.jsonl --then reward:pairs.json --then grpo:asks.jsonl
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.draft import Draft


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_choice(parser)
    shared.add_place(parser, "auto")
    parser.add_argument("--force", action="store_true", help="start although the plan speaks against it")
    shared.add_wait(parser)


def run(args: argparse.Namespace) -> int:
    from engine import draft as drafts
    from engine.cli import after, line, progress
    from engine.runs import links

    if isinstance(args.gpu, int):
        os.environ["CUDA_VISIBLE_DEVICES"] = str(args.gpu)  # so that the plan is one for this card
    with progress.shown(args.json) as report:
        draft = shared.draft(args, report)
    if not args.force:
        check(draft)
    if not args.json:
        shared.say_imported(args)
        announce(draft)
        if args.now:
            line.warn(draft.plan.memory.total if draft.plan.memory else 0)
    started = drafts.start(draft, gpu=args.gpu, now=args.now)
    return after.go_on(links.members(started), args)


def check(draft: Draft) -> None:
    """Raises FtuiError(PLAN_REFUSED) when the plan cannot work, DISK_FULL when its checkpoints have no room."""
    from engine import draft as drafts
    from engine.advice import refusals

    reasons = drafts.refusals(draft)
    if reasons:
        full = reasons[0] in refusals.disk(draft.advice_facts, draft.plan.settings)
        raise FtuiError(
            Exit.DISK_FULL if full else Exit.PLAN_REFUSED,
            reasons[0],
            "; ".join(reasons[1:]),
            "see `ftui plan` with the same options; --force starts it anyway",
        )


def announce(draft: Draft) -> None:
    """What is about to start, and what to know about it, in few lines; of a chain each stage."""
    show.say(draft.plan.sentence, "bold")
    for warning in draft.plan.warnings:
        show.say(f"! {warning}", "yellow")
    for finding in draft.findings:
        if finding.level == "problem":
            show.say(f"! {finding.message}{f' → {finding.fix}' if finding.fix else ''}", "yellow")
    if draft.then is not None:
        show.say("then, as a run of its own:", "dim")
        announce(draft.then)
