"""Rows that were held out are answered by the base model and by the tuned one, greedily, and measured: loss, perplexity, ROUGE
(F1; Chinese by characters), BLEU (0 to 100). Kept in the run's folder; the same question again is answered at once.

examples:
  ftui evaluate congyu                               the scores, on 50 held-out rows at most
  ftui evaluate congyu --answers                     each prompt, its reference, the base's and the tuned answer
  ftui evaluate congyu --data unseen.jsonl --rows 200
  ftui evaluate congyu --against congyu-rank-64      two runs on the same rows
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.runs.directory import RunDir
    from engine.runs.events import Scores
    from engine.runs.measured import Asked, Measurement

# Name of a score -> (what it is called, decimals)
_SCORES = {
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "bleu": ("BLEU", 1),
}
_MOST_PERPLEXITY = 1e6  # above, a number says nothing to anybody


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    parser.add_argument("--data", metavar="FILE", help="measure these rows, read as the run reads its own")
    parser.add_argument("--rows", type=shared.whole, default=50, metavar="N", help="so many at most (default 50)")
    parser.add_argument(
        "--max-tokens", type=shared.whole, default=128, metavar="N", help="longest answer in new tokens (default 128)"
    )
    parser.add_argument("--against", metavar="RUN", help="another run, measured on the same rows")
    parser.add_argument("--answers", action="store_true", help="the answers side by side, in a pager on a terminal")
    parser.add_argument("--again", action="store_true", help="measure once more, whatever was kept")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.choice import absolute
    from engine.runs import directory
    from engine.runs.measured import Asked

    found = shared.named_run(args)
    data = absolute(args.data) if args.data else None
    asked = Asked(data=data, rows=args.rows, max_tokens=args.max_tokens)
    other = directory.find(args.against) if args.against else None
    if other == found:
        raise FtuiError(
            Exit.USAGE, "a run against itself differs in nothing", found.name, "name another after --against"
        )
    results = [_measured(found, asked, args)]
    if other is not None:
        only = [row.row for row in results[0].rows]
        theirs = msgspec.structs.replace(asked, of=str(found.path), only=only)
        results.append(_measured(other, theirs, args))
    if args.json:
        one, *more = (msgspec.to_builtins(result) for result in results)
        show.emit({**one, "against": more[0] if more else None})
        return int(Exit.OK)
    if args.answers:
        _page(results)
    else:
        _tell(results)
    return int(Exit.OK)


def _measured(run: RunDir, asked: Asked, args: argparse.Namespace) -> Measurement:
    """What was kept for the same rows and weights, else what a worker finds now."""
    from engine.cli import live
    from engine.runs import control, measured
    from engine.runs.job import Job

    key = measured.ready(run, asked)
    kept = None if args.again else measured.read(run, key)
    if kept is not None:
        return kept
    seen = live.mark(run)
    control.start(run, Job("evaluate", str(run.path), {**msgspec.to_builtins(asked), "key": key}))
    _wait(run, seen, args.json)
    found = measured.read(run, key)
    if found is None:
        raise FtuiError(Exit.RUN_FAILED, "what was measured cannot be read", str(measured.path(run, key)))
    return found


def _wait(run: RunDir, after: int, quiet: bool) -> None:
    """Show how far the worker has come until it is gone. FtuiError with the reason when it measured nothing."""
    from engine.cli import live, progress
    from engine.runs import directory, journal, status
    from engine.runs.events import Failure, Measured, Progress

    reader, name, done = journal.Reader(run.journal_path), directory.handle(run), False
    try:
        with progress.shown(quiet) as report:
            while True:
                alive = status.read(run).worker_alive  # before the journal: its last words must still be read
                for events in reader.chunks():
                    for event in events:
                        if event.seq <= after:
                            continue
                        if isinstance(event, Progress) and event.what.startswith("evaluate: "):
                            report(f"{name}: {event.what.removeprefix('evaluate: ')}", event.done, event.total)
                        elif isinstance(event, Failure):
                            known = event.code in set(Exit)
                            code = Exit(event.code) if known else Exit.RUN_FAILED
                            raise FtuiError(code, event.cause, event.where, event.next_step)
                        done = done or isinstance(event, Measured)
                if not alive:
                    break
                time.sleep(live.POLL)
    except KeyboardInterrupt:
        if not quiet:
            show.say(f"it goes on without you: the same command shows it later, `ftui stop {name}` ends it")
        raise
    if not done:
        raise FtuiError(
            Exit.RUN_FAILED, "the evaluation ended without a result", str(run.log_path), f"see `ftui logs {name}`"
        )


def _tell(results: Sequence[Measurement]) -> None:
    """The table of scores, what it rests on, and what must be said beside it."""
    first, last = results[0], results[-1]
    show.say(_basis(first))
    two = len(results) > 1
    sides = [("base", first.base), *((one.run if two else "tuned", one.tuned) for one in results)]
    left, right = (first.tuned, last.tuned) if two else (first.base, first.tuned)
    intervals = {} if two else first.intervals
    columns = ["", *(name for name, _ in sides), "difference", *(["95 %"] if intervals else [])]
    rows = []
    for name, (title, decimals) in _SCORES.items():
        if all(getattr(scores, name) is None for _, scores in sides):
            continue
        low, high = intervals.get(name, (None, None))
        row = [
            title,
            *(_number(getattr(scores, name), decimals) for _, scores in sides),
            _gap(left, right, name, decimals),
        ]
        if intervals:
            row.append("" if low is None else f"{low:+.{decimals}f} to {high:+.{decimals}f}")
        rows.append(row)
    show.console().print(show.table(columns, rows, right=columns[1:]))
    for line in _remarks(results):
        show.say(line, "yellow")
    if first.bleu:
        show.say(f"ROUGE is F1 from 0 to 1, BLEU from 0 to 100 ({first.bleu})", "dim")
    show.say("next: the same command with --answers shows them side by side", "dim")


def _basis(found: Measurement) -> str:
    """ "50 of 122 held-out rows of congyu, greedy answers of 128 tokens at most"."""
    from pathlib import Path

    asked = found.asked
    where = f"rows of {Path(asked.data).name}" if asked.data else f"held-out rows of {found.run}"
    left = f" ({found.left_out} drawn were left out: nothing to compare, or too long)" if found.left_out else ""
    return f"{len(found.rows)} of {found.available} {where}{left}, greedy answers of {asked.max_tokens} tokens at most"


def _remarks(results: Sequence[Measurement]) -> list[str]:
    lines = []
    for one in results:
        if one.seen:
            lines.append(f"{one.run} was trained on {one.seen} of these rows, word for word: they prove nothing for it")
        elif one.seen is None and (one.asked.data or one.asked.of):
            lines.append(
                f"whether {one.run} was trained on these rows cannot be told: its own are gone or have changed"
            )
    if len(results) > 1 and len(results[1].rows) < len(results[0].rows):
        lines.append(
            f"{results[1].run} could be measured on {len(results[1].rows)} of these rows only: the others are too long"
        )
    if len(results) > 1 and results[0].model != results[1].model:
        lines.append(
            f"base is that of {results[0].run}, {results[0].model}; {results[1].run} began with {results[1].model}"
        )
    if len(results[0].rows) < 30:
        lines.append(f"{len(results[0].rows)} rows are few: differences of some hundredths may be chance")
    return lines


def _number(value: float | None, decimals: int) -> str:
    if value is None or value > _MOST_PERPLEXITY:
        return "–" if value is None else f"over {_MOST_PERPLEXITY:,.0f}"
    return f"{value:.{decimals}f}"


def _gap(left: Scores, right: Scores, name: str, decimals: int) -> str:
    before, after = getattr(left, name), getattr(right, name)
    if before is None or after is None or max(before, after) > _MOST_PERPLEXITY:
        return "–"
    return f"{after - before:+.{decimals}f}"


def _page(results: Sequence[Measurement]) -> None:
    """Every prompt with its reference and its answers beside each other; in a pager where there is a terminal."""
    console = show.console()
    os.environ.setdefault("LESS", "FX")  # less leaves by itself where all fits on the screen, and does not wipe it
    if sys.stdout.isatty():
        with console.pager(styles=False):
            _print(console, results)
    else:
        _print(console, results)


def _print(console: Any, results: Sequence[Measurement]) -> None:
    from rich.table import Table

    first, two = results[0], len(results) > 1
    console.print(show.styled(f"{_basis(first)}; the numbers are ROUGE-L"), soft_wrap=True)
    for at, row in enumerate(first.rows, 1):
        if row.reference is None:
            continue
        others = [next((one for one in result.rows if one.row == row.row), None) for result in results]
        cells = [("reference", row.reference, None), ("base", row.base, row.base_rouge)]
        for result, one in zip(results, others, strict=True):
            if one is not None:
                cells.append((result.run if two else "tuned", one.tuned, one.tuned_rouge))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, show_edge=False)
        for name, _, score in cells:
            head = name if score is None else f"{name}  {score:.2f}"
            table.add_column(show.styled(head, "bold"), ratio=1, overflow="fold")
        table.add_row(*(show.styled(text or "", newlines=True) for _, text, _ in cells))
        console.print()
        console.print(show.styled(f"{at}/{len(first.rows)}  row {row.row}", "dim"))
        console.print(show.styled(row.prompt or "", newlines=True))
        console.print(table)
