"""Fixes for what was found, applied to a copy: never to the original, never over a file that is there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.data import findings
from engine.data.convert import Example, Message
from engine.data.dataset import Dataset
from engine.data.findings import encoding, marks, private
from engine.data.findings.kinds import Finding
from engine.data.findings.turns import empty_answer
from engine.data.placeholders import Filler
from engine.data.store import Examples
from engine.errors import Exit, FtuiError

# Name -> what it does, as the end of "choose what to do: ".
ACTIONS: dict[str, str] = {
    "drop-malformed": "leave out rows that cannot be used",
    "keep-mended": "keep rows as they were mended while reading",
    "mend-encoding": "put characters back that were read in the wrong encoding",
    "fill-placeholders": "fill placeholders with the values given",
    "strip-control-tokens": "take control tokens out of the text",
    "mask-secrets": "take keys and tokens out of the text",
    "mask-personal-data": "take e-mail addresses, telephone and card numbers out of the text",
    "merge-turns": "join two turns of the same side to one",
    "cut-open-end": "cut what follows the last answer",
    "drop-lost": "leave out rows that lost characters",
    "drop-secrets": "leave out rows with keys and tokens",
    "drop-personal-data": "leave out rows with data of persons",
    "drop-late-system": "leave out rows with a system prompt after the first turn",
    "drop-empty": "leave out rows with an empty answer",
    "drop-one-sided": "leave out pairs that prefer nothing",
    "drop-contradictions": "leave out rows that are rated good and bad",
    "drop-cut-answers": "leave out rows whose answer stops in the middle",
    "drop-too-long": "leave out rows that are cut",
    "drop-duplicates": "leave out rows that repeat an earlier one word for word",
    "drop-near-duplicates": "leave out rows that nearly repeat an earlier one",
}
_IN_TEXT: dict[str, Callable[[str], str]] = {
    "mend-encoding": encoding.mend,
    "strip-control-tokens": marks.strip_control,
    "mask-secrets": private.mask_keys,
    "mask-personal-data": private.mask_personal,
}
# A second way out of the same finding.
_INSTEAD = {"drop-secrets": "mask-secrets", "drop-personal-data": "mask-personal-data"}

_ROUNDS = 8  # of mending, at most: what one mend takes out may bring together what another finds

Mend = Callable[[Example], bool]  # changes an example in place; True if it did


class Cleaned(Struct):
    """What was written.

    rows      in the copy
    changed   of these, how many are not what they were
    left_out  rows of the original that are not in the copy, unusable ones included
    actions   how many rows each action concerned
    """

    path: Path
    rows: int
    changed: int
    left_out: int
    actions: dict[str, int]


def clean(
    dataset: Dataset,
    actions: Sequence[str],
    target: Path,
    values: Mapping[str, str] | None = None,
    *,
    found: Sequence[Finding] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Cleaned:
    """Write the rows as JSONL that reads back as the same kind, with `actions` (names of ACTIONS) applied.

    Text is mended first and looked at again, so that rows which become the same or empty by that are seen.
    values  for "fill-placeholders": what stands in for {{name}}
    found   findings that took counted tokens, for "drop-too-long"
    progress  as `findings.find`
    Raises FtuiError: USAGE (an action that does not exist, a target that does, nothing left to write), DISK_FULL,
    PERMISSION. Then nothing is written.
    """
    for action in actions:
        if action not in ACTIONS:
            raise FtuiError(Exit.USAGE, f"there is no fix {action}", "", "fixes: " + ", ".join(ACTIONS))
    check_target(target)
    if dataset.partial:
        raise FtuiError(Exit.USAGE, "only the first rows were read, so the copy would lack the others", str(target))
    counts = dict.fromkeys(actions, 0)
    counts |= {
        name: len(rows)
        for name, rows in (("drop-malformed", dataset.skipped), ("keep-mended", dataset.repaired))
        if name in counts
    }
    rows, changed = _mended(dataset.examples, _mends(actions, values or {}), counts)
    if "drop-too-long" in counts:
        long = {row for finding in found if finding.action == "drop-too-long" for row in finding.rows}
        counts["drop-too-long"] = len(long)
        rows = _without(rows, long)
    rows = _dropped(dataset, rows, actions, counts, progress)
    if not rows:
        raise FtuiError(Exit.USAGE, "no row would be left", str(target), "choose fewer fixes")
    _write(rows, target)
    left_out = len(dataset.examples) - len(rows) + sum(1 for bad in dataset.skipped if bad.row)
    return Cleaned(target, len(rows), len(changed.intersection(rows.rows)), left_out, counts)


def check_target(target: Path) -> None:
    """Raises FtuiError(USAGE) unless a copy can be written there."""
    """Raises FtuiError(USAGE) where no copy can be written."""
    if target.suffix.lower() != ".jsonl":
        raise FtuiError(Exit.USAGE, "a cleaned copy is JSONL", str(target), "give it a name that ends in .jsonl")
    if os.path.lexists(target):
        raise FtuiError(Exit.USAGE, "there is such a file, and nothing is written over", str(target), "choose another")
    if not target.absolute().parent.is_dir():
        raise FtuiError(Exit.USAGE, "there is no such folder", str(target.parent), "make it first, or choose another")


# mending ----------------------------------------------------------------------------------------------------------


def _mends(actions: Iterable[str], values: Mapping[str, str]) -> dict[str, Mend]:
    mends: dict[str, Mend] = {"merge-turns": _merge_turns, "cut-open-end": _cut_open_end}
    mends |= {name: _in_text(change) for name, change in _IN_TEXT.items()}
    filler = Filler(values)

    def fill(example: Example) -> bool:
        before = sum(filler.filled.values())
        filler.fill(example)
        return sum(filler.filled.values()) > before

    mends["fill-placeholders"] = fill
    return {name: mends[name] for name in ACTIONS if name in mends and name in actions}


def _mended(examples: Examples, mends: Mapping[str, Mend], counts: dict[str, int]) -> tuple[Examples, set[int]]:
    """The examples with the mends applied, and the numbers of the rows that are changed by that.

    A row of which nothing to train on is left is left out.
    """
    if not mends:
        return examples, set()
    made, changed = Examples(), set[int]()
    for example in examples:
        was_empty = _is_empty(example)
        done = set[str]()
        for _ in range(_ROUNDS):
            found = {name for name, mend in mends.items() if mend(example)}
            done |= found
            if not found:
                break
        for name in done:
            counts[name] += 1
        if done:
            changed.add(example.row)
        if was_empty or not _is_empty(example):
            made.append(example)
    return made, changed


def _is_empty(example: Example) -> bool:
    if example.messages is None:
        return not (example.text or "").strip()
    return empty_answer(example) or not any(message.content.strip() for message in example.messages)


def _in_text(change: Callable[[str], str]) -> Mend:
    """A mend that changes each text of an example by itself."""

    def mend(example: Example) -> bool:
        changed = False
        for message in [*(example.messages or ()), *(example.chosen or ()), *(example.rejected or ())]:
            text = change(message.content)
            if text != message.content:
                message.content, changed = text, True
        if example.text is not None:
            text = change(example.text)
            changed, example.text = changed or text != example.text, text
        return changed

    return mend


def _merge_turns(example: Example) -> bool:
    changed = False
    context = example.messages or []
    if example.chosen and example.rejected and context and context[-1].role == "assistant" == example.chosen[0].role:
        # An answer that was begun for both sides.
        begun = context.pop()
        example.chosen.insert(0, begun)
        example.rejected.insert(0, msgspec.structs.replace(begun))
    for turns in (example.messages, example.chosen, example.rejected):
        merged: list[Message] = []
        for message in turns or ():
            if merged and merged[-1].role == message.role != "tool":
                last = merged[-1]
                last.content = "\n\n".join(filter(None, (last.content, message.content)))
                last.tool_calls = [*(last.tool_calls or ()), *(message.tool_calls or ())] or None
                last.trained = message.trained
                changed = True
            else:
                merged.append(message)
        if turns is not None:
            turns[:] = merged
    return changed


def _cut_open_end(example: Example) -> bool:
    messages = example.messages or []
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if example.chosen is not None or not answers or answers[-1] == len(messages) - 1:
        return False
    del messages[answers[-1] + 1 :]
    return True


# leaving out ------------------------------------------------------------------------------------------------------


def _dropped(
    dataset: Dataset,
    rows: Examples,
    actions: Sequence[str],
    counts: dict[str, int],
    progress: Callable[[int, int], None] | None,
) -> Examples:
    """The rows without those that a finding says to leave out."""
    wanted = {_INSTEAD.get(name, name): name for name in actions if name.startswith("drop-")}
    wanted = {finds: name for finds, name in wanted.items() if name not in ("drop-malformed", "drop-too-long")}
    near = "drop-near-duplicates" in wanted
    while wanted:
        looked = msgspec.structs.replace(dataset, examples=rows)
        out = set[int]()
        for finding in findings.find(looked, near=near, progress=progress):
            if finding.action in wanted:
                counts[wanted[finding.action]] += len(finding.rows)
                out.update(finding.rows)
        if not out:
            break
        rows = _without(rows, out)
        if not near:
            break  # what is common, and so what is near, changes when rows go; nothing else does
    return rows


def _without(rows: Examples, out: set[int]) -> Examples:
    return Examples(example for example in rows if example.row not in out) if out else rows


# writing ----------------------------------------------------------------------------------------------------------


def _write(rows: Examples, target: Path) -> None:
    """Whole or not at all, readable by its owner only."""
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            encode = msgspec.json.Encoder().encode
            for example in rows:
                file.write(encode(_plain(example)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _place(temporary, target)
    except FileExistsError:
        raise FtuiError(
            Exit.USAGE, "there is such a file now, and nothing is written over", str(target), "choose another"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise FtuiError(
            Exit.DISK_FULL if full else Exit.PERMISSION, f"the copy cannot be written: {reason}", str(target)
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _place(temporary: Path, target: Path) -> None:
    """Give the file its name. Unlike a rename, a link does not replace what came there meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError from None
        temporary.rename(target)


def _plain(example: Example) -> dict[str, Any]:
    """A row in the shape that reads back as this kind of example."""
    if example.messages is None:
        return {"text": example.text}
    row: dict[str, Any]
    if example.chosen is not None and example.rejected is not None:
        sides = {"prompt": example.messages, "chosen": example.chosen, "rejected": example.rejected}
        row = {name: [_turn(message) for message in turns] for name, turns in sides.items()}
    elif any(message.role == "assistant" and message.trained for message in example.messages):
        weighted = example.label is None
        row = {"messages": [_turn(message, weighted) for message in example.messages]}
        if example.label is not None:
            row["label"] = example.label
    else:
        row = {"prompt": [_turn(message) for message in example.messages]}
    if example.tools:
        row["tools"] = example.tools
    return row


def _turn(message: Message, weighted: bool = False) -> dict[str, Any]:
    """A turn as OpenAI writes it; `weighted` marks answers that carry no loss where that is not plain anyway."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                **({"id": call["id"]} if "id" in call else {}),
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    if weighted and message.role == "assistant" and not message.trained:
        turn["weight"] = 0
    return turn
