"""Reads the file, says what is in it, counts tokens of whole rendered rows and shows what is trained.

Lengths are exact with a model (--model, or the starter if it is here), else an estimate.
examples:
  ftui data rows.jsonl
  ftui data identity.json --set name=Ada --set author=you --cutoff 256 --rows 2
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from engine.cli import options as shared
from engine.cli import show

if TYPE_CHECKING:
    from rich.text import Text

    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.data.tokenizer import AnyTokenizer

PERCENTILES = (50, 95, 99)
_BAR = 40
_BINS = 16


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="json, jsonl, csv, tsv, parquet or txt, or preset:NAME")
    parser.add_argument("-m", "--model", help="count with this model's tokenizer and template")
    shared.add_rows(parser)
    parser.add_argument("--cutoff", type=int, metavar="N", help="what is lost when rows are cut at N tokens")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="how many rows to preview (default 1)")
    parser.add_argument("--row", type=int, default=1, metavar="K", help="the first row to preview (default 1)")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine import recipe
    from engine.cli import progress
    from engine.data import dataset, findings, lengths

    values = shared.pairs(args.set, "--set")
    if args.file.startswith("preset:"):
        from engine import presets

        values = {**presets.load(args.file.removeprefix("preset:")).values, **values}
    source = recipe.Data(
        source=args.file,
        values=values,
        prompt=args.prompt,
        completion=args.completion,
        system=args.system,
        on_bad_row="skip" if args.skip_bad_rows else "abort",
    )
    read = dataset.load(source)
    with progress.shown(args.json) as report:
        tokenizer = _tokenizer(args.model, report)
        counted = lengths.count(read, tokenizer, lambda done, total: report("counting tokens", done, total))
    found = findings.find(read, counted, args.cutoff)
    if args.json:
        show.emit(_document(read, counted, found, args.cutoff))
        return 0
    _print(read, counted, found, args.cutoff)
    _preview(read, tokenizer, args.row, args.rows)
    return 0


def _tokenizer(model: str | None, report: Any) -> AnyTokenizer:
    from engine.data import tokenizer
    from engine.models import sources

    folder = sources.resolve(model, report) if model else sources.local("starter")
    return tokenizer.load(folder) if folder else tokenizer.estimate()


def _histogram(counted: Lengths, cutoff: int | None) -> list[tuple[int, int, int]]:
    """Bins of a power of two of tokens, the narrowest that make at most sixteen; [(from, to, rows)]."""
    longest = max(counted.max, cutoff or 0)
    width = 1
    while longest // width >= _BINS:
        width *= 2
    bins = longest // width + 1
    return counted.histogram(bins, upto=bins * width - 1)


def _print(read: Dataset, counted: Lengths, found: list[Finding], cutoff: int | None) -> None:
    exact = "exact" if counted.exact else "an estimate"
    skipped = f", {len(read.skipped)} skipped" if read.skipped else ""
    show.say(f"{read.source}   {len(read.examples)} rows{skipped}, {read.shape.name}", "bold")
    lengths = "   ".join(f"p{p} {counted.percentile(p)}" for p in PERCENTILES)
    show.say(f"tokens a row   {lengths}   max {counted.max}      {counted.tokenizer} tokenizer, {exact}")
    bins = _histogram(counted, cutoff)
    most = max((count for _, _, count in bins), default=0)
    for low, high, count in bins:
        mark = ""
        if cutoff is not None and low <= cutoff < high:
            mark = f"  ┄┄ cutoff {cutoff}"
        show.say(f"{low:>7} ▏{show.bar(count, most, _BAR)} {count or ''}{mark}".rstrip())
    if cutoff is not None:
        cut = counted.at(cutoff)
        show.say(
            f"at {cutoff}: {cut.rows_cut} rows cut, {cut.lose_end} lose their end token, "
            f"{cut.trained_lost_fraction:.1%} of trained tokens lost"
        )
    for finding in found:
        show.console().print(_finding(finding), soft_wrap=True)


def _finding(finding: Finding) -> Text:
    problem = finding.level == "problem"
    line = show.styled("! " if problem else "· ", "bold yellow" if problem else "dim")
    line.append_text(show.styled(finding.message.replace("\n", " ")))
    if finding.rows:
        shown = ", ".join(map(str, finding.rows[:8])) + (", …" if len(finding.rows) > 8 else "")
        line.append(f"  (rows {shown})", "dim")
    if finding.fix:
        line.append_text(show.styled(f"  → {finding.fix}", "cyan"))
    return line


def _preview(read: Dataset, tokenizer: AnyTokenizer, first: int, count: int) -> None:
    """The exact text that the model sees, what is trained between ⟦ and ⟧ and underlined."""
    from engine.data import preview

    chosen = [example for example in read.examples if example.row >= first][: max(0, count)]
    if chosen:
        show.say()
        show.say("what the model sees; ⟦what it is trained to say⟧", "dim")
    for example in chosen:
        line = show.styled(f"row {example.row}  ", "dim")
        for piece, trained in preview.pieces(example, tokenizer):
            whole = piece.rstrip("\n")
            ends = len(piece) - len(whole)
            text = whole.replace("\n", "⏎\n") + "⏎" * ends
            line.append_text(show.styled(f"⟦{text}⟧", "underline") if trained else show.styled(text, "dim"))
            line.append("\n" * bool(ends))
        line.rstrip()
        show.console().print(line, soft_wrap=True)


def _document(read: Dataset, counted: Lengths, found: list[Finding], cutoff: int | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "source": read.source,
        "shape": read.shape.name,
        "columns": read.shape.columns,
        "rows": len(read.examples),
        "skipped": read.skipped,
        "sha256": read.sha256,
        "placeholders": read.placeholders,
        "filled": read.filled,
        "identity": read.identity,
        "tokens": {
            "tokenizer": counted.tokenizer,
            "exact": counted.exact,
            **{f"p{p}": counted.percentile(p) for p in PERCENTILES},
            "max": counted.max,
            "histogram": [{"from": a, "to": b, "rows": n} for a, b, n in _histogram(counted, cutoff)],
        },
        "findings": found,
    }
    if cutoff is not None:
        cut = counted.at(cutoff)
        document["cutoff"] = {
            "at": cutoff,
            "rows_cut": cut.rows_cut,
            "lose_end": cut.lose_end,
            "trained_lost_fraction": cut.trained_lost_fraction,
        }
    return document
