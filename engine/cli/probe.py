"""A few layers of the model train on random tokens, with the settings that a plan has for it; nothing is kept but the
speed. It takes less than a minute, and plans for this model then say how long training takes here.

Without rows, micro-batch 4 and length 512 are measured.

examples:
  ftui probe
  ftui probe --model Qwen/Qwen3-0.6B --method qlora --length 1024
  ftui probe --data rows.jsonl
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import options as shared
from engine.cli import show
from engine.text import duration, safe

if TYPE_CHECKING:
    from engine.draft import Report
    from engine.models.facts import ModelFacts
    from engine.recipe import Settings

_MICRO_BATCH, _LENGTH = 4, 512


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_choice(parser)
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import probe
    from engine.cli import progress

    with progress.shown(args.json) as report:
        folder, facts, settings = _planned(args, report)
        began = time.monotonic()
        speed = probe.run(folder, settings, report)
        took = time.monotonic() - began
    tokens = settings.micro_batch * settings.max_length
    rate = tokens / speed.seconds(tokens, 1, 1 / settings.accumulation)
    if args.json:
        show.emit(
            {
                "model": facts.name,
                "method": settings.method,
                "precision": settings.precision,
                "micro_batch": settings.micro_batch,
                "max_length": settings.max_length,
                "tokens_per_second": rate,
                "speed": speed,
                "seconds": took,
            }
        )
        return 0
    from engine.advice.fields import METHODS

    what = f"{safe(facts.name)}, {METHODS[settings.method]}, {settings.precision}"
    show.say(f"{what}: {rate:,.3g} tokens a second here (a probe of {duration(took)})", "bold")
    rows = "1 row" if settings.micro_batch == 1 else f"{settings.micro_batch} rows"
    show.say(f"at {rows} of {settings.max_length} tokens; plans for this model now use it", "dim")
    if speed.busy:
        show.paragraph(
            "! others used the processor meanwhile: a probe without them tells what this machine can do", "yellow"
        )
    return 0


def _planned(args: argparse.Namespace, report: Report) -> tuple[Path, ModelFacts, Settings]:
    """(the model's folder, its facts, the plan's settings for it)."""
    if args.recipe or args.data or args.preset:
        draft = shared.draft(args, report)
        return draft.model_folder, draft.facts, draft.plan.settings
    from engine import hardware
    from engine.advice.kinds import Facts
    from engine.advice.plan import advise
    from engine.models import facts as model_facts
    from engine.models import sources

    chosen = shared.choice(args)
    folder = sources.resolve(chosen.model, progress=report)
    facts = model_facts.read(folder)
    length = min(_LENGTH, facts.context)
    known = Facts(model=facts, hardware=hardware.read(), rows=1000, p50=length, p95=length, p99=length, max=length)
    edits: dict[str, Any] = {"micro_batch": _MICRO_BATCH, "max_length": length, **chosen.edits}
    return folder, facts, advise(known, edits=edits).settings
