"""What is worth knowing about a data set before training on it, each with its rows and a way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from engine.data.convert import Example
from engine.data.dataset import Dataset
from engine.data.lengths import Lengths


class Finding(Struct):
    """`message` is one line; `rows` are row numbers, all of them; `fix` is what to type or do, or empty."""

    kind: str
    level: Literal["problem", "note"]
    message: str
    rows: list[int]
    fix: str = ""


def find(dataset: Dataset, lengths: Lengths | None = None, cutoff: int | None = None) -> list[Finding]:
    """All findings, problems first. Those about tokens need `lengths`, those about cutting also a `cutoff` in tokens."""
    found = [
        *_placeholders(dataset),
        *_skipped(dataset),
        *_order(dataset.examples),
        *_empty_turns(dataset.examples),
        *_duplicates(dataset.examples),
        *_columns(dataset),
    ]
    if lengths is not None:
        found += [*_tokens(lengths), *(_cut(lengths, cutoff) if cutoff is not None else [])]
    return sorted(found, key=lambda finding: finding.level != "problem")


def rows_text(count: int, verb: str, verbs: str) -> str:
    """ "1 row holds" or "3 rows hold"."""
    return f"1 row {verb}" if count == 1 else f"{count} rows {verbs}"


def _placeholders(dataset: Dataset) -> list[Finding]:
    if not dataset.placeholders:
        return []
    marks = [f"{{{{{name}}}}}" for name in dataset.placeholders]
    rows = [e.row for e in dataset.examples if any(_holds(e, name) for name in dataset.placeholders)]
    fix = "fill them: " + " ".join(f"--set {name}=…" for name in dataset.placeholders)
    return [
        Finding("placeholders", "problem", f"{rows_text(len(rows), 'holds', 'hold')} {' or '.join(marks)}", rows, fix)
    ]


def _holds(example: Example, name: str) -> bool:
    return any(
        "{{" in text and f"{{{{{name}}}}}" in text.replace(" ", "").replace("\t", "") for text in _texts(example)
    )


def _texts(example: Example) -> Iterable[str]:
    if example.messages is None:
        return (example.text or "",)
    return (message.content for message in example.messages)


def _skipped(dataset: Dataset) -> list[Finding]:
    if not dataset.skipped:
        return []
    first = dataset.skipped[0]
    message = f"{rows_text(len(dataset.skipped), 'is', 'are')} left out; the first: {first.reason}"
    return [Finding("skipped", "problem", message, [bad.row for bad in dataset.skipped], "mend them in the file")]


def _order(examples: list[Example]) -> list[Finding]:
    """Turns in an order that chat models do not expect. Tool results may follow one another."""
    checks: list[tuple[str, str, Callable[[list[str]], bool]]] = [
        ("two turns of the same side in a row", "", lambda roles: any(a == b != "tool" for a, b in pairwise(roles))),
        ("a system prompt after the first turn", "", lambda roles: "system" in roles[1:]),
        (
            "an answer before any question",
            "that answer is context and not trained",
            lambda roles: [*(role for role in roles if role != "system"), ""][0] == "assistant",
        ),
        (
            "a last question that nobody answers",
            "what follows the last answer is left out",
            lambda roles: roles[-1] != "assistant",
        ),
    ]
    found = []
    roles = {e.row: [m.role for m in e.messages] for e in examples if e.messages}
    for what, effect, wrong in checks:
        rows = [row for row, order in roles.items() if wrong(list(order))]
        if rows:
            message = f"{rows_text(len(rows), 'has', 'have')} {what}" + (f": {effect}" if effect else "")
            found.append(Finding("role-order", "note" if effect else "problem", message, rows, "check these rows"))
    return found


def _empty_turns(examples: list[Example]) -> list[Finding]:
    rows = [e.row for e in examples if any(not m.content.strip() for m in e.messages or () if m.role == "assistant")]
    if not rows:
        return []
    message = (
        f"{rows_text(len(rows), 'has', 'have')} an empty answer between others: the model would learn to say nothing"
    )
    return [Finding("empty-answer", "problem", message, rows, "take these turns out")]


def _duplicates(examples: list[Example]) -> list[Finding]:
    """Exact duplicates of an earlier row, all turns compared."""
    first: dict[tuple[str, ...], int] = {}
    rows = []
    for example in examples:
        key = tuple(_texts(example))
        if first.setdefault(key, example.row) != example.row:
            rows.append(example.row)
    if not rows:
        return []
    message = f"{rows_text(len(rows), 'repeats', 'repeat')} an earlier one word for word"
    return [Finding("duplicates", "note", message, rows, "each counts as often as it stands there")]


def _columns(dataset: Dataset) -> list[Finding]:
    found = []
    if "tools" in dataset.shape.ignored:
        message = "the column tools is not shown to the model: it learns calls without their descriptions"
        found.append(Finding("tools", "problem", message, [], "put what the tools do into the system prompt"))
    unit = dataset.shape.columns.get("text", "")
    if unit in ("line", "paragraph"):
        message = f"each {unit} of the text is one example"
        found.append(Finding("text-unit", "note", message, [], "for another division, write JSONL with a column text"))
    return found


def _tokens(lengths: Lengths) -> list[Finding]:
    found = []
    if lengths.endless:
        message = (
            f"{rows_text(len(lengths.endless), 'ends', 'end')} without an end token: the model would not learn to stop"
        )
        fix = "choose a model whose template ends its answers"
        found.append(Finding("endless", "problem", message, lengths.endless, fix))
    if lengths.literal:
        message = f"{rows_text(len(lengths.literal), 'holds', 'hold')} control tokens of the model as text"
        fix = "they are taken as plain characters; take them out if they were not meant"
        found.append(Finding("control-tokens", "problem", message, lengths.literal, fix))
    if lengths.rewritten:
        message = (
            f"in {rows_text(len(lengths.rewritten), '', '').strip()} only the last answer is trained: "
            "the chat template rewrites earlier turns"
        )
        fix = "to train each answer, make each the last of a row of its own"
        found.append(Finding("rewritten", "note", message, lengths.rewritten, fix))
    if lengths.diverging:
        message = f"the chat template writes the prompt of {rows_text(len(lengths.diverging), '', '').strip()} otherwise when it asks"
        fix = "compare the preview with the prompt in Chat; a model without a train of thought avoids it"
        found.append(Finding("prompt-differs", "note", message, lengths.diverging, fix))
    return found


def _cut(lengths: Lengths, cutoff: int) -> list[Finding]:
    lost = [row for row, end in zip(lengths.rows, lengths.ends, strict=True) if end > cutoff]
    if not lost:
        return []
    message = f"at {cutoff} tokens {rows_text(len(lost), 'loses its', 'lose their')} end token"
    fix = f"{lengths.max} tokens hold every row whole (--length {lengths.max})"
    return [Finding("cut", "problem", message, lost, fix)]
