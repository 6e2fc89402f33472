"""Nothing is started. `ftui train` takes the same options and carries the plan out.

examples:
  ftui plan --preset identity
  ftui plan --data rows.jsonl --model Qwen/Qwen3-0.6B --explain learning_rate
  ftui plan --data rows.jsonl --what-if rank=64 --what-if epochs=3,lr=1e-4
  ftui plan recipe.yaml --against other.yaml
  ftui plan --data rows.jsonl --rank 16 --save mine
  ftui plan --data rows.jsonl --then dpo:pairs.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.cli import options as shared
from engine.cli import show
from engine.text import duration, number, size

if TYPE_CHECKING:
    from engine.advice.compare import Change
    from engine.advice.kinds import Advice, Plan
    from engine.draft import Draft
    from engine.models.memory import Memory

_MEMORY_BAR = 40
_FILLS = "█▓▒░▚▞"
_WIDE = 110  # columns that hold a reason and its source side by side
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
# How an open question of the gate is answered.
_ANSWERS = {"retrieval": "--goal persona, style, format, language, task or changing-facts", "time": "--deadline 2h"}


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_choice(parser)
    parser.add_argument(
        "--explain", metavar="FIELD", help="why this value, and what else it could be; also stage and gate"
    )
    parser.add_argument("--all", action="store_true", help="every setting that counts, and what each of them is")
    parser.add_argument("--fits", action="store_true", help="memory of every method at every micro-batch")
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
    from engine import draft as drafts
    from engine.cli import changes, progress, reasons

    with progress.shown(args.json) as report:
        draft = shared.draft(args, report)
        other = changes.against(draft, args.against, report) if args.against else None
    if args.save:
        return save(args, draft)
    if args.what_if or other:
        compared(args, draft, other)
    elif args.explain:
        if args.json:
            show.emit(reasons.document(draft, args.explain))
        else:
            reasons.explain(draft, args.explain)
    elif args.fits and args.json:
        show.emit(fits_document(draft))
    elif args.fits:
        show_fits(draft)
    elif args.json:
        taken = shared.imported(args)
        show.emit({**document(draft), "imported": {"kept": taken.kept, "left": taken.left} if taken else None})
    else:
        shared.say_imported(args)
        show_plan(draft, args.all)
        for one in drafts.stages(draft)[1:]:
            show.say()
            show.say(f"then {heading(one)}", "bold")
            show_plan(one, args.all)
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


def heading(draft: Draft) -> str:
    """A later stage, what it begins from and what it is rewarded by: "dpo, from the adapter of sft"."""
    from engine import chain

    recipe = draft.recipe
    begins = f"from the adapter of {chain.reference(recipe.adapter)}" if recipe.adapter else "from the base"
    rewarded = f", rewarded by {chain.reference(recipe.reward) or recipe.reward}" if recipe.reward else ""
    return f"{recipe.stage}, {begins}{rewarded}"


def show_plan(draft: Draft, everything: bool = False) -> None:
    plan = draft.plan
    show_gate(draft)
    show.say(plan.sentence, "bold")
    show.say(f"stage {plan.stage.value}: {plan.stage.reason} ({plan.stage.source})")
    _settings(draft.plan, everything)
    show_memory(draft)
    time = duration(plan.seconds) if plan.seconds is not None else "not known"
    show.paragraph(f"{plan.steps:,}   time {time}   ({plan.seconds_source})", lead="steps ")
    for warning in plan.warnings:
        show.paragraph(warning, "yellow", lead="! ")
    show.say(verdict(draft), "bold")


def _settings(plan: Plan, everything: bool) -> None:
    """The settings with value, reason and source, `everything` with what each is; where the screen is narrow sources stand below."""
    from engine.advice.fields import HELP

    narrow = show.console().width < _WIDE
    sources: list[str] = []
    rows: list[tuple[object, ...]] = []

    def add(advice: Advice) -> None:
        reason, source = plan.why(advice)
        sources.extend([source] if source not in sources else [])
        mark = f" {str(sources.index(source) + 1).translate(_RAISED)}" if narrow else f" ({source})"
        why = show.styled(reason).append_text(show.styled(mark, "dim"))
        if everything:
            why.append_text(show.styled(f"\n{HELP[advice.field]}", "dim", newlines=True))
        rows.append((advice.field, number(getattr(plan.settings, advice.field)), why))

    few, expert = plan.shown(everything)
    for advice in few:
        add(advice)
    if expert:
        rows.append((show.styled("expert", "dim"), "", ""))
        for advice in expert:
            add(advice)
    show.console().print(show.table(("setting", "value", "why"), rows, right=("value",), wrap="why"))
    if narrow:
        # A mark never stands alone at the end of a line.
        marks = [f"{str(index).translate(_RAISED)}\u00a0{source}" for index, source in enumerate(sources, 1)]
        show.paragraph("  ".join(marks), "dim")
    rest = [advice for advice in plan.shown(True)[1] if advice not in expert]
    if rest:
        values = (f"{advice.field} {number(getattr(plan.settings, advice.field))}" for advice in rest)
        show.paragraph(", ".join(values), "dim", lead="as advised, --all says why: ")


def show_gate(draft: Draft) -> None:
    """Whether to tune at all, where that is not plain, and how to answer what is open."""
    gate = draft.plan.gate
    if gate.verdict == "tune":
        return
    lead = "do not tune: " if gate.verdict == "do not tune" else "unsure: "
    show.paragraph(gate.why, "bold yellow", lead=lead)
    for question in gate.questions:
        if not question.known and question.key in _ANSWERS:
            show.say(f"  answer with {_ANSWERS[question.key]}", "dim")


def show_memory(draft: Draft) -> None:
    """Memory while training as one bar against what the device has, and by part for training, evaluation and chat."""
    phases = _phases(draft)
    if not phases:
        return
    budget = draft.advice_facts.hardware.budget
    parts = [(name, count) for name, count in phases["training"].parts() if count]
    whole = max(budget, phases["training"].total)
    bar = "".join(
        _FILLS[i % len(_FILLS)] * max(1, round(count / whole * _MEMORY_BAR)) for i, (_, count) in enumerate(parts)
    )
    there = draft.advice_facts.hardware.when_there
    show.say(f"memory {bar:┄<{_MEMORY_BAR}} {size(phases['training'].total)} of {size(budget)}{there}")
    rows: list[tuple[str, ...]] = []
    for i, (name, _) in enumerate(parts):
        counts = (getattr(memory, name) for memory in phases.values())
        rows.append((f"{_FILLS[i % len(_FILLS)]} {name}", *(size(count) if count else "" for count in counts)))
    rows.append(("  all", *(size(memory.total) for memory in phases.values())))
    show.console().print(show.table(("memory by part", *phases), rows, right=tuple(phases)))


def show_fits(draft: Draft) -> None:
    """What else fits: every method at every micro-batch, and of the others why they cannot be used."""
    from engine import fits

    table = fits.table(draft)
    columns = ("rows at once", *map(str, fits.MICRO_BATCHES))
    rows = []
    for fit in table:
        if not fit.refused:
            cells = [
                (f"{'✓' if c.fits else '✗'} {size(c.memory.total)}", "green" if c.fits else "dim") for c in fit.cells
            ]
            name = f"{fit.label} *" if fit.checkpointing else fit.label
            rows.append((show.styled(name), *(show.styled(*cell) for cell in cells)))
    machine = draft.advice_facts.hardware
    show.say(f"✓ fits into the {size(machine.budget)} for a run here{machine.when_there}, ✗ does not", "dim")
    show.console().print(show.table(columns, rows, right=columns[1:]))
    if any(fit.checkpointing for fit in table):
        show.say("* with gradient checkpointing", "dim")
    for fit in table:
        if fit.refused:
            show.paragraph(fit.refused, "dim", lead=f"{fit.label}: ")


def fits_document(draft: Draft) -> list[dict[str, Any]]:
    from engine import fits

    return [
        {
            **msgspec.to_builtins(fit),
            "cells": [{**msgspec.to_builtins(cell), "total": cell.memory.total} for cell in fit.cells],
        }
        for fit in fits.table(draft)
    ]


def verdict(draft: Draft) -> str:
    from engine import draft as drafts

    reasons = drafts.refusals(draft)
    if reasons:
        return "will not start: " + "; ".join(reasons)
    return f"ready: `ftui train` with the same options starts it as {draft.recipe.name}"


def _phases(draft: Draft) -> dict[str, Memory]:
    """The memory of training, of evaluation beside it, and of a chat as long as a row may be."""
    from engine.models import memory

    if draft.plan.memory is None:
        return {}
    facts, settings, known = draft.facts, draft.plan.settings, draft.advice_facts
    device, stage = known.hardware.device, known.stage
    return {
        "training": draft.plan.memory,
        "evaluation": memory.forecast(
            facts, settings, longest=draft.lengths.max, device=device, phase="evaluate", stage=stage
        ),
        "chat": memory.forecast(facts, settings, longest=settings.max_length, device=device, phase="chat", stage=stage),
    }


def document(draft: Draft) -> dict[str, Any]:
    from engine import draft as drafts

    return {
        "plan": draft.plan,
        "recipe": drafts.whole(draft),
        "findings": draft.findings,
        "memory": dict(draft.plan.memory.parts()) if draft.plan.memory else None,
        "phases": {phase: dict(memory.parts()) for phase, memory in _phases(draft).items()},
        "budget": draft.advice_facts.hardware.budget,
        "refusals": drafts.refusals(draft),
        **({"then": document(draft.then)} if draft.then is not None else {}),
    }
