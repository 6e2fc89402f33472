"""Rows that were held out are answered by the base model and by the tuned one, greedily, and measured: loss, perplexity, ROUGE
(F1; Chinese by characters), BLEU (0 to 100). So are plain questions, which show what was forgotten. Beside them stands what
the run noted while it trained: its checks of identity, how well it ranks pairs. Of models that fill in words (BERT) or write
another text (T5): loss, perplexity and how many gaps are filled right. Kept in the run's folder; the same question again is
answered at once.

examples:
  ftui evaluate congyu                            on 50 held-out rows at most
  ftui evaluate congyu --answers                  what both said, side by side
  ftui evaluate congyu --data unseen.jsonl --rows 200
  ftui evaluate congyu --against congyu-rank-64   two runs on the same rows
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit

if TYPE_CHECKING:
    from engine.runs.directory import RunDir
    from engine.runs.measured import Asked
    from engine.runs.scoreboard import Compared


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
    from engine.runs import directory, scoreboard
    from engine.runs.measured import Asked

    found = shared.named_run(args)
    data = absolute(args.data) if args.data else None
    asked = Asked(data=data, rows=args.rows, max_tokens=args.max_tokens)
    other = directory.find(args.against) if args.against else None
    results = _waited(found, asked, other, args)
    if args.json:
        _emit(results)
    elif args.answers and scoreboard.pairs(results):
        _page(results)
    else:
        _tell(results)
    return int(Exit.OK)


def _waited(run: RunDir, asked: Asked, other: RunDir | None, args: argparse.Namespace) -> list[Compared]:
    """What was measured, with how far the worker is meanwhile."""
    from engine.cli import progress
    from engine.runs import directory, measuring

    at = run
    try:
        with progress.shown(args.json) as report:
            steps = measuring.compare(run, asked, other, again=args.again)
            while True:
                try:
                    name, far = next(steps)
                except StopIteration as done:
                    return cast("list[Compared]", done.value)
                at = run if name == directory.handle(run) else other or run
                report(f"{name}: {far.what}", far.done, far.total)
    except KeyboardInterrupt:
        if not args.json:
            name = directory.handle(at)
            show.say(f"it goes on without you: the same command shows it later, `ftui stop {name}` ends it")
        raise


def _emit(results: Sequence[Compared]) -> None:
    """The measurement as it is kept, and beside it what the run itself tells and what a person preferred."""
    from engine.runs import scoreboard

    one, *more = (
        {
            **({"run": result.run} if result.found is None else msgspec.to_builtins(result.found)),
            "history": msgspec.to_builtins(result.history),
        }
        for result in results
    )
    tally = scoreboard.tally(results)
    rated = None if tally is None or not tally.known else msgspec.to_builtins(tally)
    show.emit({**one, "ratings": rated, "against": more[0] if more else None})


def _tell(results: Sequence[Compared]) -> None:
    """The table of scores, what it rests on, and what must be said beside it."""
    from engine.runs import scoreboard

    first = results[0].found
    if first is not None:
        show.say(scoreboard.basis(first))
    lines = scoreboard.table(results)
    spans = any(line.interval for line in lines)
    columns = ["", *scoreboard.heads(results), "difference", *(["95 % within"] if spans else [])]
    rows = [[line.name, *line.cells, line.difference, *([line.interval] if spans else [])] for line in lines]
    show.console().print(show.table(columns, rows, right=columns[1:]))
    for line in filter(None, [scoreboard.verdict(results), *_rated(results)]):
        show.say(line, "bold")
    for line in scoreboard.remarks(results):
        show.say(line, "yellow")
    for line in filter(None, [scoreboard.noted_where(results)]):
        show.say(line, "dim")
    if first is not None and first.bleu:
        show.say(f"ROUGE is F1 from 0 to 1, BLEU from 0 to 100 ({first.bleu})", "dim")
    if scoreboard.pairs(results):
        show.say("next: the same command with --answers shows them side by side", "dim")


def _rated(results: Sequence[Compared]) -> list[str]:
    from engine.runs import scoreboard

    tally = scoreboard.tally(results)
    names = scoreboard.heads(results)[-2:]
    return [] if tally is None else [scoreboard.told(tally, *names)]


def _page(results: Sequence[Compared]) -> None:
    """Every prompt with its reference and its answers beside each other; in a pager where there is a terminal."""
    console = show.console()
    os.environ.setdefault("LESS", "FX")  # less leaves by itself where all fits on the screen, and does not wipe it
    if sys.stdout.isatty():
        with console.pager(styles=False):
            _print(console, results)
    else:
        _print(console, results)


def _print(console: Any, results: Sequence[Compared]) -> None:
    from rich.table import Table

    from engine.runs import scoreboard

    found, two = [one.found for one in results if one.found is not None], len(results) > 1
    first = found[0]
    number = "the share of gaps filled right" if scoreboard.fills(first) else "ROUGE-L"
    console.print(show.styled(f"{scoreboard.basis(first)}; the numbers are {number}"), soft_wrap=True)
    for at, row in enumerate(first.rows, 1):
        if row.reference is None:
            continue
        others = [next((one for one in result.rows if one.row == row.row), None) for result in found]
        cells = [("reference", row.reference, None), ("base", row.base, row.scores[0])]
        for result, one in zip(found, others, strict=True):
            if one is not None:
                cells.append((result.run if two else "tuned", one.tuned, one.scores[1]))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, show_edge=False)
        for name, _, score in cells:
            head = name if score is None else f"{name}  {score:.2f}"
            table.add_column(show.styled(head, "bold"), ratio=1, overflow="fold")
        table.add_row(*(show.styled(text or "", newlines=True) for _, text, _ in cells))
        console.print()
        console.print(show.styled(f"{at}/{len(first.rows)}  row {row.row}", "dim"))
        console.print(show.styled(row.prompt or "", newlines=True))
        console.print(table)
