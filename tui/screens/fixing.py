"""What the Data screen does about a finding: fill in placeholders, deal with rows that cannot be used, write a cleaned copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.text import safe
from tui.ask import Ask
from tui.inspection import FindingLine, plural
from tui.rows import Rows
from tui.wizard import Step

if TYPE_CHECKING:
    from engine.data import clean
    from engine.draft import Choice, Draft
    from tui.screens.data import DataScreen

BAD_ROWS = ("malformed", "repaired", "unread")  # findings whose rows are not among the examples
PLACEHOLDERS, MAPPING = "placeholders", "mapping"


def current(screen: DataScreen) -> FindingLine | None:
    """The finding under the cursor that a cleaned copy mends, while the list has the focus."""
    findings = screen.query_one("#findings", Rows)
    item = findings.current
    if not isinstance(item, FindingLine) or screen.focused is not findings or item.kind == PLACEHOLDERS:
        return None
    return item if item.action else None


def _meant(screen: DataScreen) -> FindingLine | None:
    """The finding under the cursor; where the list has no focus, the first one that can be mended."""
    findings = screen.query_one("#findings", Rows)
    if screen.focused is findings and isinstance(findings.current, FindingLine):
        return findings.current
    lines = (item for item in findings.items if isinstance(item, FindingLine))
    return next((item for item in lines if item.action or item.kind in (PLACEHOLDERS, *BAD_ROWS)), None)


def fills(screen: DataScreen) -> bool:
    """Whether what can be mended are placeholders: then their values are asked for."""
    draft, item = screen.wizard.draft, _meant(screen)
    return draft is not None and bool(placeholders(draft)) and (item is None or item.kind == PLACEHOLDERS)


def fix(screen: DataScreen) -> None:
    """Mend the finding that is meant."""
    draft, item = screen.wizard.draft, _meant(screen)
    if draft is None:
        return
    if item is None or item.kind == PLACEHOLDERS:
        screen.notice("nothing here can be fixed by a key; each finding says what to do")
    elif item.kind in BAD_ROWS:
        show_bad_rows(screen, draft)
    elif item.kind == MAPPING:
        screen.action_mapping()
    elif item.action:
        ask_for_copy(screen, draft, sorted(screen.marked | {item.action}))
    else:
        screen.notice(item.fix or item.message)


# placeholders -----------------------------------------------------------------------------------------------------


def placeholders(draft: Draft) -> list[str]:
    """Those of the rows, filled in or not; a name comes first."""
    return sorted({**draft.dataset.placeholders, **draft.dataset.filled}, key=lambda one: (one != "name", one))


def fill_in(screen: Step) -> None:
    """Ask for each placeholder's value, then make the draft anew."""
    if (draft := screen.wizard.draft) is not None and (names := placeholders(draft)):
        _ask_value(screen, names, dict(draft.recipe.data.values))


def _ask_value(screen: Step, names: Sequence[str], values: dict[str, str]) -> None:
    def take(text: str) -> None:
        if not text:
            raise ValueError("this cannot be empty")
        values[names[0]] = text
        if names[1:]:
            _ask_value(screen, names[1:], values)
        else:
            screen.wizard.begin(msgspec.structs.replace(screen.wizard.picked(), values=values))

    hint = f"stands in for {{{{{names[0]}}}}}"
    screen.query_one(Ask).ask(names[0], values.get(names[0], ""), take, hint)


# rows that cannot be used -----------------------------------------------------------------------------------------


def bad_rows(screen: Step, what: str) -> None:
    """Leave rows that cannot be used out ("skip"), or mend those whose meaning is plain ("repair")."""
    screen.wizard.begin(msgspec.structs.replace(screen.wizard.picked(), on_bad_row=what))


def show_bad_rows(screen: DataScreen, draft: Draft) -> None:
    from tui.screens.badrows import BadRowsScreen

    screen.app.push_screen(BadRowsScreen(screen, draft.dataset, draft.choice.on_bad_row))


# the cleaned copy -------------------------------------------------------------------------------------------------


def ask_for_copy(screen: DataScreen, draft: Draft, actions: Sequence[str]) -> None:
    """Ask for a file name, write the copy in a thread, and go on with it."""
    from engine.data import clean

    if draft.partial:
        screen.notice("a cleaned copy waits until every row is read", seconds=5)
        return

    def take(text: str) -> None:
        if not text:
            raise ValueError("type a file name")
        target = Path(text).expanduser()
        clean.check_target(target)
        write_copy(screen, draft, actions, target)

    what = clean.ACTIONS[actions[0]] if len(actions) == 1 else f"{len(actions)} fixes"
    screen.query_one(Ask).ask("write to", str(suggested(draft.choice)), take, safe(what), paths=True)


def write_copy(screen: DataScreen, draft: Draft, actions: Sequence[str], target: Path) -> None:
    from engine.data import clean

    found = list(screen.findings)

    def write() -> clean.Cleaned:
        return clean.clean(draft.dataset, actions, target, found=found)

    def written(copy: clean.Cleaned) -> None:
        screen.marked.clear()
        screen.wizard.begin(on_copy(draft.choice, copy.path))
        screen.notice(result(copy, draft.choice), "good", seconds=20)

    screen.notice(f"writing {safe(target.name)} …", seconds=60)
    screen.in_thread(write, written, group="clean", exclusive=True)


def result(copy: clean.Cleaned, choice: Choice) -> str:
    """What was written, in a sentence."""
    parts = [f"{plural(copy.rows, 'row')} written to {copy.path.name}"]
    parts += [f"{copy.changed:,} changed"] if copy.changed else []
    parts += [f"{copy.left_out:,} left out"] if copy.left_out else []
    if choice.more:
        parts.append("one file now, so weights no longer count")
    return ", ".join(parts)


def on_copy(choice: Choice, path: Path) -> Choice:
    """The same choice on the cleaned copy: it is plain, so nothing about how to read the old rows holds for it."""
    return msgspec.structs.replace(
        choice,
        data=str(path.absolute()),
        more=[],
        said={},
        columns={},
        prompt=None,
        completion=None,
        subset=None,
        split=None,
        on_bad_row="abort",
    )


def suggested(choice: Choice, exists: Callable[[Path], bool] = Path.exists) -> Path:
    """Beside the original where it is a file, else in the current folder: NAME.cleaned.jsonl, numbered when it is there."""
    source = Path(choice.data or f"{choice.preset}")
    folder = source.parent if source.exists() and os.access(source.parent, os.W_OK) else Path()
    name = source.name.removeprefix("preset:").split(".")[0] or "rows"
    name = name.removesuffix(".cleaned")
    for number in range(1, 1000):
        path = folder / f"{name}.cleaned{f'-{number}' if number > 1 else ''}.jsonl"
        if not exists(path):
            return path
    return path
