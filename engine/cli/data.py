"""Reads the rows, says what is in them, counts tokens of whole rendered rows and shows what is trained.

Rows that cannot be used are listed and never stop it. Lengths are exact with a model (--model, or the starter if it is
here), else an estimate. Several files are mixed, each with a weight if you like: 'more.jsonl*0.5' (in quotes).
examples:
  ftui data rows.jsonl
  ftui data rows.jsonl --columns prompt=question --of completion --log
  ftui data identity.json --set name=Ada --set author=you --cutoff 256 --rows 2 --tokens
  ftui data rows.jsonl --fix all --out cleaned.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.advice import Facts, Plan
    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.data.tokenizer import AnyTokenizer
    from engine.draft import Report
    from engine.recipe import Data

PERCENTILES = (50, 95, 99)
VIEWS = ("whole", "prompt", "completion")


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
    parser.add_argument("--sample", type=int, metavar="N", help="count the tokens of N rows, evenly spread")
    parser.add_argument("--cutoff", type=int, metavar="N", help="what it costs to cut rows at N tokens")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="how many rows to preview (default 1)")
    parser.add_argument("--row", type=int, default=1, metavar="K", help="the first row to preview (default 1)")
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
    with progress.shown(args.json) as report:
        seen = look(args, report)
    cleaned = _clean(args, seen) if args.fix else None
    if args.json:
        show.emit({**document(seen, args.of), **({"cleaned": cleaned} if cleaned else {})})
        return 0
    inspection.show_seen(seen, args.of, args.log)
    inspection.preview(seen, args.row, args.rows, args.tokens)
    if cleaned:
        inspection.show_cleaned(cleaned)
    return 0


def look(args: argparse.Namespace, report: Report) -> Seen:
    """Read and count, plan where there is a model, and look for what is wrong."""
    from engine.data import dataset, findings, lengths

    data = _source(args)
    read = dataset.load(data, strict=False, progress=lambda done, total: report("reading the rows", done, total))
    folder, tokenizer = _tokenizer(args.model, report)
    counting = lengths.count(
        read, tokenizer, lambda done, total: report("counting tokens", done, total), limit=args.sample
    )
    facts, plan = _plan(read, counting, folder, args.cutoff) if folder else (None, None)
    cutoff = args.cutoff or (plan.settings.max_length if plan else None)
    found = findings.find(
        read,
        counting,
        cutoff,
        context=facts.model.context if facts and facts.model else None,
        progress=lambda done, total: report("looking for flaws", done, total),
    )
    return Seen(data, read, tokenizer, counting, found, facts, plan, cutoff, plan.settings.micro_batch if plan else 8)


def _source(args: argparse.Namespace) -> Data:
    from engine import choice, presets

    given = {name: value for name, value in shared.rows(args, args.file).items() if value}
    first = args.file[0]
    preset = presets.load(first.removeprefix("preset:")) if first.startswith("preset:") else None
    return choice.data(choice.Choice(**given), preset)


def _tokenizer(model: str | None, report: Report) -> tuple[Path | None, AnyTokenizer]:
    from engine.data import tokenizer
    from engine.models import sources

    folder = sources.resolve(model, report) if model else sources.local("starter")
    return folder, tokenizer.load(folder) if folder else tokenizer.estimate()


def _plan(read: Dataset, counted: Lengths, folder: Path, cutoff: int | None) -> tuple[Facts, Plan]:
    """The plan that these rows would get with this model, at the person's cutoff where there is one."""
    from engine import hardware
    from engine.advice import Facts, advise
    from engine.models import facts

    known = Facts(
        model=facts.read(folder),
        hardware=hardware.read(),
        rows=len(read.examples),
        p50=counted.percentile(50),
        p95=counted.percentile(95),
        p99=counted.percentile(99),
        max=counted.max,
        mean=counted.mean(),
        lengths=counted.total,
        exact=counted.exact,
        stage=read.stage,
        intent="identity" if read.identity else "instructions",
    )
    return known, advise(known, {}, {"max_length": cutoff} if cutoff else {})


def _clean(args: argparse.Namespace, seen: Seen) -> Any:
    from engine.data import clean

    asked = [word.strip() for word in args.fix.split(",") if word.strip()]
    if asked == ["all"]:
        asked = list(dict.fromkeys(found.action for found in seen.findings if found.action))
    for action in asked:
        if action not in clean.ACTIONS:
            raise FtuiError(
                Exit.USAGE, f"there is no fix {action}", next_step="fixes: all, " + ", ".join(clean.ACTIONS)
            )
    return clean.clean(seen.dataset, asked, Path(args.out).expanduser(), shared.pairs(args.set, "--set"))


def histogram(seen: Seen, of: str, bins: int = 16) -> list[tuple[int, int, int]]:
    """[(from, to, rows)] of a power of two of tokens, the narrowest that make at most `bins`.

    A few very long rows do not press all others into one bar: the last one then holds what is longer.
    """
    nearly, longest = seen.lengths.percentile(99, of=of), seen.lengths.percentile(100, of=of)
    if longest > 3 * nearly:
        longest = nearly * 5 // 4
    if of == "whole":
        longest = max(longest, seen.cutoff or 0)
    width = 1
    while longest // width >= bins:
        width *= 2
    count = longest // width + 1
    return seen.lengths.histogram(count, upto=count * width - 1, of=of)


def document(seen: Seen, of: str) -> dict[str, Any]:
    """Everything as JSON."""
    read, counted = seen.dataset, seen.lengths
    views = {
        view: {
            **{f"p{p}": counted.percentile(p, of=view) for p in PERCENTILES},
            "max": counted.percentile(100, of=view),
            "histogram": [{"from": a, "to": b, "rows": n} for a, b, n in histogram(seen, view)],
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
