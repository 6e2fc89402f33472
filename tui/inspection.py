"""What the Data screen says about a data set, as plain words and numbers. No Textual app is needed to test it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from rich.cells import cell_len
from textual.content import Content

from engine.advice import epoch
from engine.advice.kinds import gigabytes
from engine.data import packs
from engine.text import plural, safe, shorten
from tui.frame import BAD, FAINT, FOCUS, GOOD, WARN
from tui.spoken import spoken
from tui.widgets.preview import Segment, Side, from_answer, of_pieces, of_tokens

if TYPE_CHECKING:
    from engine.data.dataset import Example
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.draft import Draft

Of = Literal["whole", "prompt", "completion"]
VIEWS: tuple[tuple[Of, str], ...] = (("whole", "row"), ("prompt", "prompt"), ("completion", "answer"))
LEVELS = {"problem": ("✗", BAD), "warning": ("!", WARN), "note": ("·", FAINT)}
TITLES = {"chosen": "✓ chosen", "rejected": "✗ rejected"}
FIXES = {
    "placeholders": "f asks what stands in for them",
    "other-placeholders": "f asks what stands in for them, if they are no part of the lesson",
    "cut": "move the cutoff with the arrow keys, or f leaves these rows out",
    "malformed": "f lists them, s leaves them out, r mends what can be mended",
    "unread": "f says where; r mends what can be mended",
    "mapping": "f shows which column is what",
}
ROWS_SHOWN = 6  # row numbers named in a finding before "…"


# lengths ----------------------------------------------------------------------------------------------------------


def views(lengths: Lengths) -> list[tuple[Of, str]]:
    """The measures that differ: plain text has no prompt, so its rows are all there is to look at."""
    return list(VIEWS) if lengths.percentile(100, of="prompt") else [VIEWS[0]]


def buckets(lengths: Lengths, most: int, of: Of = "whole") -> tuple[tuple[int, int, int], ...]:
    """At most `most` buckets (from, to, rows) of a round width, from the shortest row on.

    A few very long rows do not flatten all others into one bar: the last bucket is then as wide as it takes to hold them.
    """
    shortest, nearly, longest = (lengths.percentile(p, of=of) for p in (0, 99, 100))
    far = longest > 3 * nearly
    last = nearly * 5 // 4 if far else longest
    width = next(width for width in _widths() if last // width - shortest // width < most - far)
    first, stop = shortest // width, last // width + 1
    if not far:
        return tuple(lengths.histogram(stop, width * stop - 1, of=of)[first:])
    found = lengths.histogram(stop + 1, width * (stop + 1) - 1, of=of)[first:]  # its last one holds what is longer
    return (*found[:-1], (found[-1][0], longest + 1, found[-1][2]))


def _widths() -> Iterator[int]:
    """2, 3, 4, 6, 8, 12, 16, …: round where lengths are multiples of 8, and near enough to each other to fill the place."""
    width = 2
    while True:
        yield width
        yield width * 3 // 2
        width *= 2


def stats(lengths: Lengths, of: Of, log: bool, width: int = 120) -> Content:
    """The spread of lengths in one line of `width` cells, and which of the measures it is of."""
    there = views(lengths)
    parts: list[str | tuple[str, str]] = [("t", FOCUS)] if len(there) > 1 else [("tokens a row", FAINT)]
    for name, word in there if len(there) > 1 else []:
        parts.append((f" ● {word}", "bold") if name == of else (f" ○ {word}", FAINT))
    for mark, p in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)):
        parts += [(f"  {mark} ", FAINT), (f"{lengths.percentile(p, of=of):,}", "bold")]
    line = Content.assemble(*parts)
    counts = Content.assemble(("  l ", FOCUS), ("● log", "bold") if log else ("○ log", FAINT))
    if line.cell_length + counts.cell_length > width:  # numbers first; that bars are logarithmic has to be said
        counts = Content.styled("  log", "bold") if log else Content("")
    return line + counts


class Costs(Struct, frozen=True):
    """What a cutoff costs, in words. `brief` and `short` are `cut` for less room; `over` says that memory does not suffice."""

    cut: str
    brief: str
    short: str
    ends: str
    trained: str
    padding: str
    packing: str
    memory: str
    over: bool

    def line(self) -> Content:
        """What does not fit on the cutoff line: memory, padding, packing."""
        parts = [self._memory("memory ")] if self.memory else []
        parts += [Content.assemble((f"{label} ", FAINT), words) for label, words in self._waste()]
        return Content("   ").join(parts)

    def block(self) -> Content:
        """Everything, a line each: always as many lines, so that nothing jumps while the cutoff moves."""
        rows = [("cut", Content(self.ends)), ("trained", Content(self.trained))]
        rows += [(label, Content(words)) for label, words in self._waste()]
        rows.append(("memory", self._memory() if self.memory else Content("not known")))
        return Content("\n").join(Content.assemble((f"{label:<9} ", FAINT), words) for label, words in rows)

    def _waste(self) -> list[tuple[str, str]]:
        return [("padding", self.padding), ("packing", self.packing)]

    def _memory(self, label: str = "") -> Content:
        if self.over:
            return Content.styled(f"✗ {label}{self.memory}, too much", f"bold {BAD}")
        return Content.assemble((label, FAINT), self.memory)


def costs(draft: Draft) -> Costs:
    """What the cutoff of this draft costs. Each number follows an edit at once."""
    settings, counted = draft.plan.settings, draft.lengths
    cut = counted.at(settings.max_length)
    rows, ends, untrained = cut.rows_cut, cut.lose_end, cut.untrained
    if rows and draft.advice_facts.divided:
        made = epoch.parts(draft.advice_facts, settings.max_length)
        divided = f"{plural(rows, 'text')} divided, {made:,} parts in all"
        words, untrained = (divided, f"{rows:,} divided, {made:,} parts", f"nothing: {made:,} parts"), 0
    elif rows:
        who = "all" if ends == rows > 1 else f"{ends:,}"
        long = [plural(rows, "row") + " cut", f"{who} {'loses its' if ends == 1 else 'lose their'} end token"]
        brief = [f"{rows:,} cut", f"{who} {'loses' if ends == 1 else 'lose'} the end token"]
        lost = (
            f"{untrained:,} with nothing left to train"
            if untrained
            else f"{percent(cut.trained_lost_fraction)} of trained tokens"
        )
        words = ", ".join([*long, lost]), ", ".join([*brief, lost]), f"{plural(rows, 'row')}, {long[1]}"
    else:
        words = "nothing is cut", "nothing is cut", "nothing"
    trained = "0 % lost" if draft.advice_facts.divided else f"{percent(cut.trained_lost_fraction)} lost"
    if untrained:
        trained += f", all of it in {plural(untrained, 'row')}"
    memory, budget = draft.plan.memory, draft.advice_facts.hardware.budget
    padding, unpadded = percent(cut.padding_fraction(settings.micro_batch)), draft.plan.unpadded(draft.facts)
    return Costs(
        cut=words[0],
        brief=words[1],
        short=words[1] if draft.advice_facts.divided else plural(rows, "row") + " cut" if rows else "nothing is cut",
        ends=words[2],
        trained=trained,
        padding=f"none (else {padding})" if unpadded else f"{padding} at batch {settings.micro_batch}",
        packing="saves 0 %" if unpadded else f"saves {percent(cut.packing(settings.micro_batch))}",
        memory=f"{gigabytes(memory.total)} of {gigabytes(budget)} GB" if memory else "",
        over=memory is not None and 0 < budget < memory.total,
    )


def percent(fraction: float) -> str:
    """A share as a person reads it: "31 %", "0.2 %", "under 0.1 %"."""
    if 0 < fraction < 0.0005:
        return "under 0.1 %"
    return f"{fraction * 100:.0f} %" if fraction >= 0.0995 or not fraction else f"{fraction * 100:.1f} %"


# while it lasts ----------------------------------------------------------------------------------------------------


def going_on(progress: tuple[str, int, int] | None, rate: float, width: int = 16) -> Content:
    """How far the reading has come: a bar, what is done of what, and how fast."""
    if progress is None:
        return Content("")
    what, done, total = progress
    if not total:
        return Content.styled(f"{what} …", FAINT)
    scale, unit = (1e6, "MB") if what.endswith("bytes") else (1, "rows")
    verb = what.removesuffix(" bytes").removesuffix(" tokens").removesuffix(" the rows")
    words = f"{verb} {done / scale:,.0f} of {total / scale:,.0f} {unit}"
    if rate >= scale:
        words += f", {rate / scale:,.0f} a second"
    cells = min(width, round(done / total * width))
    return Content.assemble(("━" * cells, FOCUS), ("─" * (width - cells), FAINT), f"  {words}")


# rows -------------------------------------------------------------------------------------------------------------


class Walk(Struct, frozen=True):
    """A way through the rows of one finding. `key` is the finding's."""

    key: str
    rows: Sequence[int]
    at: int

    @property
    def row(self) -> int:
        return self.rows[self.at]

    def step(self, by: int) -> Walk:
        return Walk(self.key, self.rows, (self.at + by) % len(self.rows))


def row_words(draft: Draft, index: int, example: Example, walk: Walk | None) -> Content:
    """Which row the preview shows, how long it is, and how it was rated."""
    total = len(draft.dataset.examples)
    parts: list[str | tuple[str, str]] = [(f"row {example.row:,}", "bold")]
    if walk is None:
        parts.append((f" of {total:,}", FAINT))
    else:
        parts.append((f", {walk.at + 1:,} of {len(walk.rows):,} found", FAINT))
    if example.label is not None:
        parts += ["   ", ("✓ good", GOOD) if example.label else ("✗ bad", BAD)]
    if len(draft.dataset.begins) > 1:
        file, number, _ = draft.dataset.origin(example.row)
        parts.append((f"   {shorten(safe(file.rpartition('/')[2]), 24)} {number:,}", FAINT))
    counted = draft.lengths
    if len(counted.total) == total:
        whole, trained = counted.total[index], counted.completion[index]
        lost = whole - draft.plan.settings.max_length
        if lost > 0 and draft.advice_facts.divided:
            around = draft.advice_facts.around
            many = len(packs.parts(whole - around, draft.plan.settings.max_length - around))
            parts.append((f"   {whole:,} tokens in {many:,} parts", FAINT))
        elif lost > 0:  # what is lost matters more than how much is trained
            parts += [(f"   {whole:,} tokens", FAINT), (f"   ✂ {lost:,} cut off", WARN)]
        else:
            bold = " (bold)" if len(parts) == 2 and walk is None else ""
            parts.append((f"   {whole:,} tokens, {trained:,} trained{bold}", FAINT))
    return Content.assemble(*parts)


def sides(draft: Draft, example: Example, tokens: bool, answer: bool) -> list[Side]:
    """The text of a row for the preview; both sides of a preference pair.

    tokens  each token is told from the next, and what the cutoff takes away from the rest; of a text, where its parts begin
    answer  from the first answer on
    """
    from engine.data import preview

    def shown(title: str, segments: list[Segment]) -> Side:
        return TITLES.get(title, title), from_answer(segments) if answer else segments

    if tokens:
        cutoff = draft.plan.settings.max_length
        apart = preview.token_sides(example, draft.tokenizer)
        divided = draft.advice_facts.divided
        return [shown(title, of_tokens(side, cutoff, divided=divided)) for title, side in apart]
    whole = preview.sides(example, draft.tokenizer)
    return [shown(title, of_pieces(side)) for title, side in whole]


# findings ---------------------------------------------------------------------------------------------------------


class FindingLine(Struct, frozen=True):
    """One finding. `action` is set where a cleaned copy mends it, `marked` where that one is to."""

    key: str
    index: int
    kind: str
    level: str
    message: str
    example: str
    fix: str
    action: str
    sampled: str
    rows: tuple[int, ...]
    count: int
    marked: bool = False

    @property
    def _tag(self) -> Content:
        if self.marked:
            return Content.styled("  ✓ marked", GOOD)
        return Content.styled("  fix", FAINT) if self.action else Content("")

    def fits(self, width: int) -> bool:
        """Whether the whole message stands in the line."""
        return cell_len(self.message) <= width - 2 - self._tag.cell_length

    def line(self, width: int) -> Content:
        glyph, colour = LEVELS[self.level]
        room = width - 2 - self._tag.cell_length
        message = shorten(self.message, room)
        numbers = ", ".join(f"{row:,}" for row in self.rows)
        more = " …" if self.count > ROWS_SHOWN else ""
        where = f"   {'row' if self.count == 1 else 'rows'} {numbers}{more}" if self.rows else ""
        left = room - cell_len(message)
        where = shorten(where, left) if left > 12 else ""
        space = " " * max(0, left - cell_len(where))
        return Content.assemble((glyph, colour), " ", message, (where, FAINT), space) + self._tag

    def detail(self, width: int, lines: int = 0) -> Content:
        """What the line has no room for, an example, and what to do about it: shortened to so many lines, or whole."""
        fix = [(f"→ {self.fix}", "")] if self.fix else []
        parts = [(self.message if not self.fits(width) else "", ""), (self.example, FAINT), (self.sampled, FAINT)]
        shown = [part for part in parts if part[0]]
        shown = [*shown[: lines - len(fix)], *fix] if lines else [*shown, *fix]
        return Content("\n").join(
            Content.styled(shorten(text, width) if lines else text, style) for text, style in shown
        )


def findings_at(draft: Draft, cutoff: int) -> list[Finding]:
    """The findings of a draft with those about being cut as they are at this cutoff, and what was noted while reading."""
    from engine.data.findings import Finding, tokens

    kinds, divided = ("cut", "divided"), draft.advice_facts.divided
    others = [found for found in draft.findings if found.kind not in kinds]
    cut = [found for found in tokens.find(draft.lengths, cutoff, None, divided) if found.kind in kinds]
    notes = [Finding("mapping", "note", note) for shape in draft.dataset.shapes for note in shape.notes]
    notes += [Finding("reading", "note", note) for note in draft.dataset.notes]
    return sorted([*notes, *others, *cut], key=lambda found: list(LEVELS).index(found.level))


def finding_lines(findings: Sequence[Finding], marked: set[str]) -> list[FindingLine]:
    """The findings as lines. What a key here does is said in place of the option that the command line has for it."""
    seen: Counter[str] = Counter()
    lines = []
    for index, found in enumerate(findings):
        seen[found.kind] += 1
        lines.append(
            FindingLine(
                key=f"{found.kind} {seen[found.kind]}",
                index=index,
                kind=found.kind,
                level=found.level,
                message=safe(spoken(found.message)),
                example=safe(found.example),
                fix=FIXES.get(found.kind) or safe(spoken(found.fix)),
                action=found.action,
                sampled=safe(found.sampled),
                rows=tuple(found.rows[:ROWS_SHOWN]),
                count=found.count,
                marked=bool(found.action) and found.action in marked,
            )
        )
    return lines
