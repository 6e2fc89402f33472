"""Reads the rows, says what is in them, counts tokens of whole rendered rows and
shows what is trained. Rows that cannot be used are listed and never stop it.
Lengths are exact with a model (--model, or the starter if it is here), else an
estimate. Several files are mixed, by weight if you like: 'more.jsonl*0.5'.

examples:
  ftui data rows.jsonl
  ftui data rows.jsonl --columns prompt=question --of completion --log
  ftui data names.json --set name=Ada --cutoff 256 --rows 2 --tokens
  ftui data rows.jsonl --fix all --out cleaned.jsonl
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.advice.kinds import Facts, Plan
    from engine.data.clean import Cleaned
    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths, Of
    from engine.data.tokenizer import AnyTokenizer
    from engine.draft import Report
    from engine.recipe import Data

_PATIENCE = 0.3  # seconds after which a first picture is worth having
_SHORTEST = 8  # tokens that a plan may cut at
PERCENTILES = (50, 95, 99)
VIEWS: tuple[Of, ...] = ("whole", "prompt", "completion")


class Seen(Struct):
    """What one look at the rows found.

    facts, plan  what a plan with this model would rest on, and be; None without a model
    cutoff       tokens: what the person asked about, else what the plan would take, else None
    micro_batch  rows computed at once, in the plan's way
    """

    data: Data
    dataset: Dataset
    tokenizer: AnyTokenizer
    lengths: Lengths
    findings: list[Finding]
    facts: Facts | None
    plan: Plan | None
    cutoff: int | None
    micro_batch: int


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="+",
        metavar="FILE",
        help="json, jsonl, csv, tsv, parquet, arrow or txt, .gz and .zst of them, a folder, preset:NAME, "
        "hub:OWNER/NAME, or dataset_info.json:ENTRY; several are mixed",
    )
    parser.add_argument("-m", "--model", help="count with this model's tokenizer and template")
    shared.add_rows(parser)
    parser.add_argument("--of", choices=VIEWS, default="whole", help="which length the histogram is of")
    parser.add_argument("--log", action="store_true", help="bars on a logarithmic scale, so that few rows show")
    parser.add_argument("--sample", type=shared.whole, metavar="N", help="count the tokens of N rows, evenly spread")
    parser.add_argument("--cutoff", type=shared.whole, metavar="N", help="what it costs to cut rows at N tokens")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="how many rows to preview (default 1)")
    parser.add_argument("--row", type=shared.whole, default=1, metavar="K", help="the first row to preview (default 1)")
    parser.add_argument("--tokens", action="store_true", help="show where each token ends in the preview")
    parser.add_argument(
        "--fix", metavar="ACTION,…", help="apply what findings offer, or all of it, to a copy (with --out)"
    )
    parser.add_argument("--out", metavar="FILE", help="where the cleaned copy goes; never over a file that is there")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import inspection, progress

    if bool(args.fix) != bool(args.out):
        raise FtuiError(Exit.USAGE, "--fix and --out go together", next_step="--fix all --out cleaned.jsonl")
    if args.out:
        from engine.data import clean

        clean.check_target(Path(args.out).expanduser())
    with progress.shown(args.json) as report:
        watched = sys.stdout.isatty() and not args.json
        seen = look(args, report, inspection.show_first if watched else None)
        cleaned = _clean(args, seen, report) if args.fix else None
    if args.json:
        show.emit({**document(seen, args.of), **({"cleaned": cleaned} if cleaned else {})})
        return 0
    inspection.show_seen(seen, args.of, args.log)
    inspection.preview(seen, args.row, args.rows, args.tokens)
    if cleaned:
        inspection.show_cleaned(cleaned)
    return 0


def look(args: argparse.Namespace, report: Report, early: Callable[[Dataset, Lengths], None] | None) -> Seen:
    """Read and count, plan where there is a model, and look for what is wrong.

    early  called with what the first rows say, where all of them take a while
    """
    from engine import choice as choices
    from engine import draft as drafts
    from engine import presets
    from engine.advice.plan import advise
    from engine.data import dataset, findings, lengths, placeholders, tokenizer
    from engine.models import facts as model_facts
    from engine.models import sources

    choice = choices.Choice(**{name: value for name, value in shared.rows(args, args.file).items() if value})
    first = args.file[0].removeprefix("preset:")
    preset = presets.load(first) if first != args.file[0] else None
    data = choices.data(choice, preset)
    read = dataset.load(data, strict=False, limit=drafts.FIRST_LOOK)
    folder = sources.resolve(args.model, report) if args.model else sources.local("starter")
    tokens = tokenizer.load(folder) if folder else tokenizer.estimate()
    if read.partial:
        glance, begun = read, time.monotonic()

        def reading(done: int, total: int) -> None:
            nonlocal early
            report("reading bytes", done, total)
            if early is not None and time.monotonic() - begun > _PATIENCE:
                early(glance, lengths.count(glance, tokens, limit=drafts.FIRST_LOOK))
                early = None

        read = dataset.load(data, strict=False, progress=reading)
    placeholders.check(choice.values, [read])
    counted = lengths.count(read, tokens, lambda done, total: report("counting tokens", done, total), limit=args.sample)
    facts = plan = None
    if folder:
        facts = drafts.known(choice, read, counted, model_facts.read(folder), drafts.intent_of(preset, read))
        plan = advise(facts, {}, {"max_length": max(_SHORTEST, args.cutoff)} if args.cutoff else {})
    cutoff = args.cutoff or (plan.settings.max_length if plan else None)
    found = findings.find(
        read,
        counted,
        cutoff,
        context=facts.model.context if facts and facts.model else None,
        progress=lambda done, total: report("looking at the rows", done, total),
    )
    return Seen(data, read, tokens, counted, found, facts, plan, cutoff, plan.settings.micro_batch if plan else 8)


def _clean(args: argparse.Namespace, seen: Seen, report: Report) -> Cleaned:
    from engine.data import clean

    asked = [word.strip() for word in args.fix.split(",") if word.strip()]
    if asked == ["all"]:
        asked = list(dict.fromkeys(found.action for found in seen.findings if found.action))
    return clean.clean(
        seen.dataset,
        asked,
        Path(args.out).expanduser(),
        seen.data.values,
        found=seen.findings,
        progress=lambda done, total: report("looking at the copy", done, total),
    )


def histogram(counted: Lengths, of: Of, cutoff: int | None, bins: int = 16) -> list[tuple[int, int, int]]:
    """[(from, to, rows)] of a power of two of tokens, the narrowest that make at most `bins`.

    A few very long rows do not press all others into one bar: the last one then holds what is longer.
    """
    nearly, longest = counted.percentile(99, of=of), counted.percentile(100, of=of)
    if longest > 3 * nearly:
        longest = nearly * 5 // 4
    if of == "whole":
        longest = max(longest, cutoff or 0)
    width = 1
    while longest // width >= bins:
        width *= 2
    count = longest // width + 1
    return counted.histogram(count, upto=count * width - 1, of=of)


def document(seen: Seen, of: Of) -> dict[str, Any]:
    """Everything as JSON."""
    read, counted = seen.dataset, seen.lengths
    views = {
        view: {
            **{f"p{p}": counted.percentile(p, of=view) for p in PERCENTILES},
            "max": counted.percentile(100, of=view),
            "histogram": [{"from": a, "to": b, "rows": n} for a, b, n in histogram(counted, view, seen.cutoff)],
        }
        for view in VIEWS
    }
    document: dict[str, Any] = {
        "source": read.source,
        "shape": read.shape.name,
        "columns": read.shape.columns,
        "ignored": read.shape.ignored,
        "notes": [*read.notes, *read.shape.notes],
        "shapes": read.shapes,
        "stage": read.stage,
        "rows": len(read.examples),
        "skipped": read.skipped,
        "repaired": read.repaired,
        "sha256": read.sha256,
        "placeholders": read.placeholders,
        "filled": read.filled,
        "identity": read.identity,
        "counted": len(counted.rows),
        "tokens": {"tokenizer": counted.tokenizer, "exact": counted.exact, **views[of], "views": views},
        "findings": seen.findings,
    }
    if seen.cutoff is not None:
        cut = counted.at(seen.cutoff)
        document["cutoff"] = {
            "at": seen.cutoff,
            "rows_cut": cut.rows_cut,
            "lose_end": cut.lose_end,
            "untrained": cut.untrained,
            "trained_lost_fraction": cut.trained_lost_fraction,
            "micro_batch": seen.micro_batch,
            "padding_fraction": cut.padding_fraction(seen.micro_batch),
            "packing_saves": cut.packing(seen.micro_batch),
        }
    if seen.plan is not None and seen.plan.memory is not None and seen.facts is not None:
        parts = dict(seen.plan.memory.parts())
        document["memory"] = {**parts, "total": seen.plan.memory.total, "budget": seen.facts.hardware.budget}
    return document
