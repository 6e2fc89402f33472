"""What `ftui data` prints: shape, lengths, what a cutoff costs, findings, the text that the model sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.advice import epoch
from engine.cli import data, show
from engine.text import plural, safe, shorten, size

if TYPE_CHECKING:
    from rich.text import Text

    from engine.cli.data import Seen
    from engine.data.clean import Cleaned
    from engine.data.dataset import BadRow, Dataset, Example
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths, Of
    from engine.data.preview import Piece
    from engine.data.tokenizer import AnyTokenizer

_BAR = 40
_LEVELS = {"problem": ("✗ ", "bold yellow"), "warning": ("! ", "yellow"), "note": ("· ", "dim")}
_NAMED = 8  # row numbers of a finding that are printed
_BAD = 3  # bad rows that are printed
_LONG = 600  # cells of the columns' names, which are foreign
_WORDS = {"whole": "a row", "prompt": "a prompt", "completion": "an answer"}


def show_seen(seen: Seen, of: Of, log: bool) -> None:
    """Everything but the preview."""
    _shape(seen)
    _lengths(seen.lengths, of, log, seen.cutoff)
    if seen.cutoff is not None:
        _cutoff(seen, seen.cutoff)
    for finding in seen.findings:
        _finding(seen, finding)


def _shape(seen: Seen) -> None:
    """Each source with its shape, its columns and what they are taken for."""
    read = seen.dataset
    many = len(seen.data.sources) > 1
    name = f"{len(seen.data.sources)} sources" if many else _short(read.source)
    partly = " read so far" if read.partial else ""
    show.say(f"{name}   {plural(len(read.examples), 'row')}{partly}, {read.shape.name}, for {read.stage}", "bold")
    for index, (source, shape) in enumerate(zip(seen.data.sources, read.shapes, strict=False)):
        if many:
            stops = [*read.begins[1:], len(read.examples)]
            weight = f" x {source.weight:g}" if source.weight != 1 else ""
            show.say(
                f"{_short(source.source)}   {plural(stops[index] - read.begins[index], 'row')}{weight}, {shape.name}"
            )
        roles = ", ".join(f"{role} ← {column}" for role, column in shape.columns.items())
        unused = f"; not used: {', '.join(shape.ignored)}" if shape.ignored else ""
        show.paragraph(shorten(safe(roles + unused), _LONG), lead="columns  ")
        for note in shape.notes:
            show.paragraph(note, "dim", lead="         ")
    for note in read.notes:
        show.paragraph(note, "dim", lead="         ")
    show.say("         not so? --columns ROLE=COLUMN, or --prompt and --completion", "dim")


def _short(source: str) -> str:
    return Path(source).name if source.startswith("/") else source


def _bad_rows(rows: Sequence[BadRow]) -> None:
    """The first few, each with its place."""
    rows = [bad for bad in rows if bad.row]  # a flaw of a whole file is a finding of its own
    several = len({bad.source for bad in rows}) > 1
    for bad in rows[:_BAD]:
        place = [_short(bad.source)] if several else []
        place += [f"line {bad.line}" if bad.line is not None else f"row {bad.row}"]
        place += [f"column {bad.column}"] if bad.column is not None else []
        show.paragraph(f"{bad.reason}{f' → {bad.repaired}' if bad.repaired else ''}", lead=f"  {', '.join(place)}: ")
    if len(rows) > _BAD:
        show.say(f"  … and {len(rows) - _BAD:,} more (--json has all)", "dim")


def show_first(read: Dataset, counted: Lengths) -> None:
    """A first picture while the rest is still being read."""
    show.say(f"{_short(read.source)}   the first {len(read.examples):,} rows, {read.shape.name}", "bold")
    _lengths(counted, "whole", False, None)
    show.say()


def _lengths(counted: Lengths, of: Of, log: bool, cutoff: int | None) -> None:
    """The spread of lengths, how they were counted, and the histogram."""
    spread = "   ".join(f"p{p} {counted.percentile(p, of=of):,}" for p in data.PERCENTILES)
    show.say(f"tokens {_WORDS[of]}   {spread}   max {counted.percentile(100, of=of):,}")
    counted_of = len(counted.rows)
    sample = f", {counted_of:,} of {counted.of_rows:,} rows, evenly spread" if counted_of < counted.of_rows else ""
    exact = "exact" if counted.exact else "an estimate"
    show.say(f"{counted.tokenizer} tokenizer, {exact}{sample}{'; bars are logarithmic' if log else ''}", "dim")
    bins = data.histogram(counted, of, cutoff)
    most = max((count for _, _, count in bins), default=0)
    for index, (low, high, count) in enumerate(bins):
        marks = []
        if index == len(bins) - 1 and counted.percentile(100, of=of) >= high:
            marks.append("and longer")
        if of == "whole" and cutoff is not None and low <= cutoff < high:
            marks.append(f"┄┄ cutoff {cutoff:,}")
        drawn = show.bar(math.log1p(count), math.log1p(most), _BAR) if log else show.bar(count, most, _BAR)
        number = f" {count:,}" if count else ""
        show.say(f"{low:>7,} ▏{drawn}{number}{'  ' if marks else ''}{'  '.join(marks)}".rstrip())


def _cutoff(seen: Seen, cutoff: int) -> None:
    """What keeping so many tokens costs, and what the plan needs then."""
    cut, divided = seen.lengths.at(cutoff), seen.dataset.stage == "pretraining"
    lost = f"{_percent(cut.trained_lost_fraction)} of trained tokens lost"
    lines = [
        f"{plural(cut.rows_cut, 'row')} cut, {cut.lose_end:,} {'loses its' if cut.lose_end == 1 else 'lose their'} end token, {lost}"
        if cut.rows_cut
        else "no row is cut"
    ]
    if divided and cut.rows_cut and seen.facts is not None:
        texts = "1 text" if cut.rows_cut == 1 else f"{cut.rows_cut:,} texts"
        lines = [f"{texts} divided, {epoch.parts(seen.facts, cutoff):,} parts in all: nothing is lost"]
    elif cut.untrained:
        rows = "1 row" if cut.untrained == 1 else f"{cut.untrained:,} rows"
        lines.append(f"{rows} with nothing left to train")
    if seen.micro_batch > 1:
        padding, saved = cut.padding_fraction(seen.micro_batch), cut.packing(seen.micro_batch)
        found = f"{_percent(padding)} padding, packing would save {_percent(saved)}"
        if seen.plan is not None and seen.facts is not None and seen.plan.unpadded(seen.facts.model):
            found = f"no padding (else {_percent(padding)}), so that packing saves nothing"
        lines.append(f"{seen.micro_batch} rows at once: {found}")
    if seen.plan is not None and seen.plan.memory is not None and seen.facts is not None:
        lines.append(f"memory {size(seen.plan.memory.total)} of {size(seen.facts.hardware.budget)}")
    lead = f"at {cutoff:,}: "
    for index, line in enumerate(lines):
        show.paragraph(line, lead=" " * len(lead) if index else lead)


def _percent(fraction: float) -> str:
    """ "31 %", "0.2 %", "under 0.1 %"."""
    if 0 < fraction < 0.0005:
        return "under 0.1 %"
    return f"{fraction * 100:.1f} %" if 0 < fraction < 0.0995 else f"{fraction * 100:.0f} %"


def _finding(seen: Seen, finding: Finding) -> None:
    """What was found, where, an example, and the way out."""
    mark, style = _LEVELS[finding.level]
    show.paragraph(finding.message.replace("\n", " "), style, lead=mark)
    alone = finding.count == 1 and finding.example.startswith("row ")
    if finding.rows and not alone:
        more = finding.count - _NAMED
        numbers = ", ".join(f"{row:,}" for row in finding.rows[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        show.paragraph(f"{'row' if finding.count == 1 else 'rows'} {numbers}", "dim", lead="  ")
    if finding.kind in ("malformed", "repaired"):
        _bad_rows(seen.dataset.skipped if finding.kind == "malformed" else seen.dataset.repaired)
    elif finding.example:
        show.paragraph(finding.example, "dim", lead="  ")
    if finding.sampled:
        show.paragraph(finding.sampled, "dim", lead="  ")
    ways = [finding.fix, f"--fix {finding.action}" if finding.action else ""]
    if finding.kind == "malformed":
        ways.append("in training: --bad-rows skip, or repair")
    if way := "; ".join(filter(None, ways)):
        show.paragraph(way, "cyan", lead="  → ")


def preview(seen: Seen, first: int, count: int, tokens: bool) -> None:
    """The exact text that the model sees: what is trained between ⟦ and ⟧ and underlined, token boundaries as │."""
    chosen: list[Example] = []
    for example in seen.dataset.examples:
        if len(chosen) >= count:
            break
        if example.row >= first:
            chosen.append(example)
    if not chosen:
        return
    show.say()
    show.say("what the model sees; ⟦what it is trained to say⟧" + (", │ ends a token" if tokens else ""), "dim")
    for example in chosen:
        for title, pieces in _sides(example, seen.tokenizer, tokens):
            line = show.styled(f"row {example.row}  {f'{title}  ' if title else ''}", "dim")
            for piece, trained in pieces:
                _piece(line, piece, trained)
            line.rstrip()
            show.console().print(line, soft_wrap=True)


def _sides(example: Example, tokenizer: AnyTokenizer, tokens: bool) -> list[tuple[str, list[Piece]]]:
    """(title, pieces) of the one text, or of both sides of a preference pair; with │ after each token if wanted."""
    from engine.data import preview

    if not tokens:
        return preview.sides(example, tokenizer)
    return [
        (title, _runs((text, trained) for text, trained, _ in found))
        for title, found in preview.token_sides(example, tokenizer)
    ]


def _runs(pieces: Iterable[Piece]) -> list[Piece]:
    """Tokens as longer pieces of the same kind, │ after each: marks of what is trained stand around the whole."""
    found: list[Piece] = []
    for text, trained in pieces:
        text = f"{text}│"
        if found and found[-1][1] == trained:
            found[-1] = (found[-1][0] + text, trained)
        else:
            found.append((text, trained))
    return found


def _piece(line: Text, piece: str, trained: bool) -> None:
    """One piece, its line feeds visible; the mark of a token's end stays on the line that the token ends."""
    text = piece.replace("\n", "⏎\n").replace("⏎\n│", "⏎│\n")
    shown = text.removesuffix("\n")
    marked, style = (f"⟦{shown}⟧", "underline") if trained else (shown, "dim")
    line.append_text(show.styled(marked, style, newlines=True))
    line.append("\n" * (shown != text))


def show_cleaned(cleaned: Cleaned) -> None:
    show.say()
    show.say(
        f"wrote {cleaned.path}: {plural(cleaned.rows, 'row')}, {cleaned.changed:,} changed, {cleaned.left_out:,} left out",
        "bold",
    )
    for action, rows in cleaned.actions.items():
        show.say(f"  {action:<22} {plural(rows, 'row')}")
