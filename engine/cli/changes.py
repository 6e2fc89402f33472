"""What moves when a plan is changed, and two plans side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import options, show

if TYPE_CHECKING:
    from engine.advice.compare import Change
    from engine.draft import Draft, Report


def what_if(draft: Draft, asked: Sequence[str]) -> list[tuple[str, list[Change]]]:
    """For each "FIELD=VALUE[,FIELD=VALUE]" what it would change in the draft's plan.

    Raises FtuiError(RECIPE_INVALID) for a value that does not fit, FtuiError(USAGE) for words that are no edit.
    """
    from engine import draft as drafts
    from engine.advice.compare import compare

    found = []
    for words in asked:
        edits = {**draft.choice.edits, **options.typed(words.split(","), "--what-if")}
        found.append((words, compare(draft.plan, drafts.replan(draft, edits).plan)))
    return found


def against(draft: Draft, other: str, report: Report | None) -> tuple[str, list[Change]]:
    """(name of the other plan, what differs from it): `other` is a recipe file, a preset or a run.

    A preset is taken on this draft's rows and model; a file and a run bring their own.
    """
    from engine.advice.compare import compare

    second = _other(draft, other, report)
    return Path(other).name or other, [*_origin(draft, second), *compare(draft.plan, second.plan)]


def _other(draft: Draft, name: str, report: Report | None) -> Draft:
    from msgspec.structs import replace

    from engine import draft as drafts
    from engine import presets
    from engine.llamafactory import Imported

    if name in presets.names() and not Path(name).exists():
        return drafts.under_preset(draft, name)
    again = options.described(name)
    if isinstance(again, Imported):
        choice = again.choice
        return drafts.make(replace(choice, data=choice.data or draft.choice.data), report)
    return drafts.from_recipe(again, None, report)


def _origin(first: Draft, second: Draft) -> list[Change]:
    """Model and rows, where they are not the same."""
    from engine.advice.compare import Change

    def rows(draft: Draft) -> str:
        files = ", ".join(Path(source.source).name for source in draft.recipe.data.sources)
        return f"{len(draft.dataset.examples):,} of {files}"

    pairs = (("model", first.recipe.model.source, second.recipe.model.source), ("rows", rows(first), rows(second)))
    return [Change(name, _short(a), _short(b), "") for name, a, b in pairs if a != b]


def _short(source: str) -> str:
    return Path(source).name if source.startswith("/") else source


def show_list(changes: Sequence[Change], before: str = "now", after: str = "then") -> None:
    """Two plans: what differs, with what that means."""
    if not changes:
        show.say("nothing changes")
        return
    rows = [(_name(change), *change.words(), change.effect) for change in changes if not _sentence(change)]
    show.console().print(show.table(("", before, after, ""), rows, right=(before, after), wrap=""))
    for change in filter(_sentence, changes):
        _say(change)


def show_columns(found: Sequence[tuple[str, list[Change]]]) -> None:
    """Several changes of one plan beside each other: a column each, empty where nothing moves."""
    names: dict[str, Change] = {}
    cells: list[dict[str, Change]] = []
    for _, changes in found:
        cells.append({_name(change): change for change in changes if not _sentence(change)})
        for name, change in cells[-1].items():
            names.setdefault(name, change)
    order = {kind: at for at, kind in enumerate(("setting", "steps", "time", "memory", "part"))}
    rows = [
        (name, change.words()[0], *(column[name].words()[1] if name in column else "" for column in cells))
        for name, change in sorted(names.items(), key=lambda item: order[item[1].kind])
    ]
    titles = [words for words, _ in found]
    show.console().print(show.table(("", "now", *titles), rows, right=("now", *titles)))
    for words, changes in found:
        for change in filter(_sentence, changes):
            _say(change, words)


def document(found: Sequence[tuple[str, list[Change]]]) -> list[dict[str, Any]]:
    return [{"name": name, "changes": changes} for name, changes in found]


def _name(change: Change) -> str:
    return f"  {change.name}" if change.kind == "part" else change.name


def _sentence(change: Change) -> bool:
    """Warnings and refusals are sentences, which stand under the table."""
    return change.kind in ("warning", "refusal")


def _say(change: Change, where: str = "") -> None:
    came = change.after is not None
    lead = f"{where}: " if where else ""
    show.say(
        f"{'!' if came else '·'} {lead}{change.effect}: {change.after or change.before}", "yellow" if came else "dim"
    )
