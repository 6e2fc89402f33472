"""Nothing is started. The same options as `ftui train`, which carries out this plan.

examples:
  ftui plan --preset identity
  ftui plan --data rows.jsonl --model Qwen/Qwen3-0.6B --explain learning_rate
  ftui plan --data rows.jsonl --what-if rank=64 --what-if epochs=3,lr=1e-4
  ftui plan recipe.yaml --against other.yaml
  ftui plan --data rows.jsonl --rank 16 --save mine
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import options as shared
from engine.cli import show
from engine.text import duration, number, size

if TYPE_CHECKING:
    from engine.advice import Advice
    from engine.advice.compare import Change
    from engine.draft import Draft

_MEMORY_BAR = 40
_FILLS = "█▓▒░▚▞"


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_choice(parser)
    parser.add_argument("--explain", metavar="FIELD", help="why this value, and what else it could be")
    parser.add_argument(
        "--what-if",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="what would move with it; several fields with a comma, and again for another column",
    )
    parser.add_argument("--against", metavar="OTHER", help="what differs from a recipe file, a preset or a run")
    parser.add_argument("--save", metavar="NAME", help="keep what is set here as your own preset")
    parser.add_argument("--force", action="store_true", help="with --save: replace a preset of that name")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import changes, progress

    with progress.shown(args.json) as report:
        draft = shared.draft(args, report)
        other = changes.against(draft, args.against, report) if args.against else None
    if args.save:
        return save(args, draft)
    if args.what_if or other:
        compared(args, draft, other)
    elif args.explain:
        advice = _find(draft, args.explain)
        if args.json:
            show.emit(advice)
        else:
            explain(advice, draft)
    elif args.json:
        show.emit(document(draft))
    else:
        shared.say_imported(args)
        show_plan(draft)
    return 0


def save(args: argparse.Namespace, draft: Draft) -> int:
    from engine import presets

    file = presets.save(args.save, draft, args.force)
    if args.json:
        show.emit({"preset": args.save, "file": str(file)})
    else:
        show.say(f"saved: {file}")
        show.say(f"`ftui plan --preset {args.save}` takes it up, `ftui presets {args.save}` shows it", "dim")
    return 0


def compared(args: argparse.Namespace, draft: Draft, other: tuple[str, list[Change]] | None) -> None:
    """The changes that were asked about, and nothing else of the plan."""
    from engine.cli import changes

    asked = changes.what_if(draft, args.what_if)
    if args.json:
        both = {"what_if": changes.document(asked)} if asked else {}
        show.emit({**both, **({"against": changes.document([other])[0]} if other else {})})
        return
    show.say(draft.plan.sentence, "bold")
    if len(asked) > 1:
        changes.show_columns(asked)
    elif asked:
        changes.show_list(asked[0][1], "now", asked[0][0])
    if other:
        changes.show_list(other[1], Path(args.recipe or "this plan").name, other[0])


def show_plan(draft: Draft) -> None:
    plan = draft.plan
    show.say(plan.sentence, "bold")
    rows = [(a.field, number(getattr(plan.settings, a.field)), *_why(draft, a)) for a in plan.advice]
    show.console().print(show.table(("field", "value", "why", "source"), rows, right=("value",), wrap="why"))
    show_memory(draft)
    time = duration(plan.seconds) if plan.seconds is not None else "not known"
    show.say(f"steps {plan.steps}   time {time}   ({plan.seconds_source})")
    for warning in plan.warnings:
        show.say(f"! {warning}", "yellow")
    show.say(verdict(draft), "bold")


def show_memory(draft: Draft) -> None:
    """Memory by part, as one bar against what the device has."""
    if draft.plan.memory is None:
        return
    parts = [(name, count) for name, count in draft.plan.memory.parts() if count]
    whole = max(draft.advice_facts.hardware.budget, draft.plan.memory.total)
    bar = "".join(
        _FILLS[i % len(_FILLS)] * max(1, round(count / whole * _MEMORY_BAR)) for i, (_, count) in enumerate(parts)
    )
    words = "  ".join(f"{_FILLS[i % len(_FILLS)]} {name} {size(count)}" for i, (name, count) in enumerate(parts))
    show.say(
        f"memory {bar:┄<{_MEMORY_BAR}} {size(draft.plan.memory.total)} of {size(draft.advice_facts.hardware.budget)}"
    )
    show.say(f"       {words}")


def verdict(draft: Draft) -> str:
    from engine import draft as drafts

    reasons = drafts.refusals(draft)
    if reasons:
        return "will not start: " + "; ".join(reasons)
    return f"ready: `ftui train` with the same options starts it as {draft.recipe.name}"


def explain(advice: Advice, draft: Draft) -> None:
    reason, source = _why(draft, advice)
    show.say(f"{advice.field} {number(getattr(draft.plan.settings, advice.field))}", "bold")
    show.say(f"{reason}")
    if advice.field in draft.plan.edits:
        show.say(f"advised {number(advice.value)}: {advice.reason} ({advice.source})")
    else:
        show.say(f"source: {source}, confidence {advice.confidence}", "dim")
    for other in advice.alternatives:
        show.say(f"  {number(other.value):>10}  {other.effect}")
    show.say(f"change it with --edit {advice.field}=VALUE", "dim")


def document(draft: Draft) -> dict[str, Any]:
    from engine import draft as drafts

    return {
        "plan": draft.plan,
        "recipe": draft.recipe,
        "findings": draft.findings,
        "memory": dict(draft.plan.memory.parts()) if draft.plan.memory else None,
        "budget": draft.advice_facts.hardware.budget,
        "refusals": drafts.refusals(draft),
    }


def _why(draft: Draft, advice: Advice) -> tuple[str, str]:
    """Reason and source of the value that holds: the person's own where they changed it."""
    if advice.field in draft.plan.edits and draft.plan.edits[advice.field] != advice.value:
        return f"you set it; advised {number(advice.value)}", "you"
    return advice.reason, advice.source


def _find(draft: Draft, field: str) -> Advice:
    from engine.cli.options import SHORT
    from engine.errors import Exit, FtuiError

    wanted = SHORT.get(field, field).replace("-", "_")
    for advice in draft.plan.advice:
        if advice.field == wanted:
            return advice
    fields = ", ".join(a.field for a in draft.plan.advice)
    raise FtuiError(Exit.USAGE, f"the plan has no field {field}", next_step=f"fields: {fields}")
