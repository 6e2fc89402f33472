"""What is worth knowing about a data set before training on it: each finding with its rows, an example and a way out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import PurePath
from typing import TYPE_CHECKING

from engine.data import near as nearly
from engine.data.dataset import NAMES, BadRow, Dataset
from engine.data.findings import tokens
from engine.data.findings.chunk import Chunk
from engine.data.findings.encoding import Encoding
from engine.data.findings.endings import Endings
from engine.data.findings.kinds import Check, Finding, Level, Marked
from engine.data.findings.language import Languages
from engine.data.findings.marks import Control, Fields, Placeholders
from engine.data.findings.private import Keys, Personal
from engine.data.findings.ratings import Labels, Pairs
from engine.data.findings.repeats import Repeats
from engine.data.findings.turns import Empty, Order, Systems
from engine.text import safe

if TYPE_CHECKING:
    from engine.data.lengths import Lengths

__all__ = ["Finding", "find"]

_CHUNK = 512  # rows looked at together
_READING: list[tuple[str, str, Level, tuple[str, str], str, str, str]] = [
    (
        "skipped",
        "malformed",
        "problem",
        ("cannot be", "cannot be"),
        "used",
        "mend them in the file, or leave them out",
        "drop-malformed",
    ),
    (
        "repaired",
        "repaired",
        "note",
        ("was mended", "were mended"),
        "while reading",
        "look at them; a cleaned copy keeps them mended",
        "keep-mended",
    ),
]
_LEVELS = ("problem", "warning", "note")


def find(
    dataset: Dataset,
    lengths: Lengths | None = None,
    cutoff: int | None = None,
    *,
    context: int | None = None,
    held_out: Collection[int] | None = None,
    near: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """All findings, problems first. The rows are gone through once; near duplicates are then looked for in what differs.

    lengths   what was counted: without it nothing about tokens is found
    cutoff    tokens that a row is cut at; `context` tokens that the model can read
    held_out  row numbers of the rows kept for evaluation (engine.data.split)
    near      look for near duplicates too
    progress  called with rows done and rows in all; a row that is compared for near duplicates counts twice
    """
    repeats = Repeats(dataset.examples)
    checks: list[Check] = [
        Placeholders(dict.fromkeys([*NAMES, *dataset.placeholders])),
        Order(),
        Empty(),
        Encoding(),
        Pairs(),
        Labels(),
        Keys(),
        Personal(),
        Control(lengths.literal if lengths is not None else ()),
        Endings(),
        repeats,
        Systems(),
        Fields(),
        Languages(),
    ]
    rows = len(dataset.examples)
    compared = min(rows, nearly.LIMIT) if near else 0
    for at in range(0, rows, _CHUNK):
        chunk = Chunk(dataset.examples[at : at + _CHUNK])
        for check in checks:
            check.look(chunk)
        if progress is not None:
            progress(min(rows, at + _CHUNK), rows + compared)
    found = _malformed(dataset)
    for check in checks:
        found += check.findings()
    alike = nearly.Near({}, 0, 0)
    if near:
        alike = nearly.find(dataset.examples, repeats.unique(), _later(progress, rows))
        found += _near_duplicates(alike, repeats)
    if held_out:
        found += repeats.overlap(held_out, alike.of)
    found += _columns(dataset)
    if lengths is not None:
        found += tokens.find(lengths, cutoff, context, dataset.stage == "pretraining")
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def _later(progress: Callable[[int, int], None] | None, rows: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, compared: report(rows + done, rows + compared)


def _malformed(dataset: Dataset) -> list[Finding]:
    """Rows that cannot be used, and rows that were mended while they were read."""
    found: list[Finding] = []
    for bad, kind, level, verbs, what, fix, action in _READING:
        rows: list[BadRow] = getattr(dataset, bad)
        for flaw in [row for row in rows if not row.row]:
            # A file that was cut still gives the rows before; a flaw that costs no row was read over.
            reason = safe(": ".join(filter(None, (flaw.reason, flaw.repaired))))
            message = f"{'a file is flawed' if flaw.repaired else 'a file cannot be read, or not whole'}: {reason}"
            found.append(Finding("unread", level, message, example=_place(flaw), fix="mend the file"))
        marked = Marked(sorted({row.row for row in rows if row.row}))
        if marked:
            first = next(row for row in rows if row.row)
            marked.example = safe(": ".join(filter(None, (_place(first), first.repaired or first.reason))))
        found += marked.finding(kind, level, verbs, what, fix, action)
    return found


def _place(flaw: BadRow) -> str:
    """ "rows.jsonl, line 7, column 3", as far as it is known."""
    parts = [
        PurePath(flaw.source).name,
        *(f"{name} {at}" for name in ("line", "column") if (at := getattr(flaw, name))),
    ]
    return safe(", ".join(filter(None, parts)))


def _near_duplicates(alike: nearly.Near, repeats: Repeats) -> list[Finding]:
    if not alike.of:
        return []
    later = sorted(alike.of)
    marked = Marked(repeats.rows[index] for index in later)
    marked.example = f"row {marked.rows[0]} is nearly row {repeats.rows[alike.of[later[0]]]}"
    fix = "keep the first of each, where they teach nothing new"
    found = marked.finding(
        "near-duplicates", "note", ("repeats", "repeat"), "an earlier one nearly", fix, "drop-near-duplicates"
    )
    if alike.looked < alike.rows:
        found[0].sampled = f"among {alike.looked:,} of {alike.rows:,} rows"
    return found


def _columns(dataset: Dataset) -> list[Finding]:
    found = []
    if "tools" in dataset.shape.ignored:
        message = "the column tools is not shown to the model"
        found.append(Finding("tools", "problem", message, fix="put what the tools do into the system prompt"))
    unit = dataset.shape.columns.get("text", "")
    if unit in ("line", "paragraph"):
        message = f"each {unit} of the text is one example"
        found.append(Finding("text-unit", "note", message, fix="for another division, write JSONL with a column text"))
    return found
