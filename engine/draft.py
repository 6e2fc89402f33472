"""Everything between "picked" and "started": one function that both faces call.

`make` turns a `Choice` (what a person said) into a `Draft` (what it means: rows read, tokens counted, plan made,
recipe resolved); `replan` answers an edit at once; `start` writes the run directory and hands it to a supervisor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from engine import hardware, presets
from engine import recipe as recipes
from engine.advice import Facts, Plan, advise
from engine.advice.kinds import Goal
from engine.data import dataset as datasets_
from engine.data import findings, lengths, tokenizer
from engine.errors import Exit, FtuiError
from engine.models import facts as model_facts
from engine.models import sources
from engine.models.facts import ModelFacts
from engine.recipe import Check, Checks, Recipe

if TYPE_CHECKING:
    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.data.tokenizer import Tokenizer
    from engine.presets import Preset
    from engine.runs.control import Warm
    from engine.runs.directory import RunDir

Report = Callable[[str, int, int], None]
Intent = Literal["identity", "instructions", "text"]
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
# An adapter that is trained further keeps the shape it was born with.
_FIXED = ("rank", "alpha", "targets")
# How the matrices of a feed-forward block are named in the families in use; an adapter without them is attention only.
_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h", "c_fc")


class Choice(Struct, kw_only=True):
    """What a person picked. Nothing here is resolved or checked yet.

    data      a file, "preset:NAME", or None for the rows that the preset brings
    values    what stands in for placeholders; merged over the preset's own values
    more      other rows to mix in, each "FILE" or "FILE*WEIGHT"
    columns   role -> column, corrections to what was found
    goal      what the tuning is for, if the person said so; `deadline` in seconds
    name      the run's name; None makes one from values["name"] or the data file
    edits     settings the person changed, kept apart from advice
    adapter   a folder with an adapter to start from
    """

    model: str = "starter"
    data: str | None = None
    more: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    subset: str | None = None
    split: str | None = None
    goal: Goal | None = None
    deadline: float | None = None
    preset: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    method: str | None = None
    edits: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    on_bad_row: Literal["abort", "skip", "repair"] = "abort"
    adapter: str | None = None


class Given(Struct, kw_only=True):
    """Settings that hold until the person edits them, and why: a preset's, and those of the adapter to start from."""

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    preset: str = ""


class Draft(Struct, kw_only=True):
    """A run that could start now."""

    choice: Choice
    model_folder: Path
    facts: ModelFacts
    dataset: Dataset
    tokenizer: Tokenizer
    lengths: Lengths
    findings: list[Finding]
    plan: Plan
    recipe: Recipe
    advice_facts: Facts
    given: Given


def make(choice: Choice, progress: Report | None = None) -> Draft:
    """Read the rows, get the model, count the tokens, make the plan.

    progress  called with (what, done, total) while something lasts; total 0 where it is not known
    Raises FtuiError for anything that is wrong, cheapest check first.
    """
    preset = presets.load(choice.preset) if choice.preset else None
    data = _data(choice, preset)
    return _prepare(choice, preset, data, progress)


def from_recipe(recipe: Recipe, edits: Mapping[str, Any] | None = None, progress: Report | None = None) -> Draft:
    """The draft that repeats `recipe`; every setting in it stands as if the person had set it."""
    settings = {name: getattr(recipe.settings, name) for name in recipes.SETTING_FIELDS}
    choice = Choice(
        model=recipe.model.source,
        data=recipe.data.source,
        preset=recipe.preset,
        values=dict(recipe.data.values),
        name=recipe.name,
        edits={**settings, **(edits or {})},
        prompt=recipe.data.prompt,
        completion=recipe.data.completion,
        system=recipe.data.system,
        on_bad_row=recipe.data.on_bad_row,
        adapter=recipe.adapter,
    )
    draft = _prepare(choice, None, recipe.data, progress, revision=recipe.model.revision)
    again = msgspec.structs.replace(recipe, settings=draft.plan.settings)
    return msgspec.structs.replace(draft, recipe=again)


def replan(draft: Draft, edits: Mapping[str, Any]) -> Draft:
    """The same draft under other edits: `edits` replaces those made before. Instant, nothing is counted again."""
    choice = msgspec.structs.replace(draft.choice, edits=dict(edits))
    plan = _plan(choice, draft.advice_facts, draft.given)
    recipe = msgspec.structs.replace(draft.recipe, settings=plan.settings)
    return msgspec.structs.replace(draft, choice=choice, plan=plan, recipe=recipe)


def refusals(draft: Draft) -> list[str]:
    """Reasons why this should not start, in words; empty where nothing speaks against it."""
    reasons = list(draft.plan.refusals)
    if draft.dataset.placeholders:
        missing = sorted(draft.dataset.placeholders)
        rows = max(draft.dataset.placeholders.values())
        options = " ".join(f"--set {name}=…" for name in missing)
        reasons.append(f"{rows} rows still hold {_names(missing)}: give {options}")
    return reasons


def start(draft: Draft, gpu: int | None = None, warm: Warm | None = None) -> RunDir:
    """Write the run directory and start the run in the background; returns at once.

    gpu   index of the card to use; None leaves the choice to the worker
    warm  a worker started ahead by `control.prewarm`
    """
    from engine.runs import control, directory

    run = directory.create(draft.recipe, msgspec.to_builtins(draft.plan))
    control.start(run, control.Job(kind="train", run=str(run.path)), gpu=gpu, warm=warm)
    return run


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {{name}} that has a value replaced by it."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def _prepare(
    choice: Choice, preset: Preset | None, data: recipes.Data, progress: Report | None, revision: str | None = None
) -> Draft:
    dataset = datasets_.load(data)
    folder = sources.resolve(choice.model, progress=progress, revision=revision)
    facts = model_facts.read(folder)
    tok = tokenizer.load(folder)
    counted = lengths.count(dataset, tok, _counting(progress))
    intent = _intent(preset, dataset)
    given = _given(choice, preset)
    advice_facts = Facts(
        model=facts,
        hardware=hardware.read(),
        rows=len(dataset.examples),
        p50=counted.percentile(50),
        p95=counted.percentile(95),
        p99=counted.percentile(99),
        max=counted.max,
        mean=sum(counted.total) / max(1, len(counted.total)),
        lengths=counted.total,
        exact=counted.exact,
        intent=intent,
    )
    plan = _plan(choice, advice_facts, given)
    checks, probe = _questions(preset, dataset, data.values)
    recipe = Recipe(
        name=recipes.slug(choice.name) if choice.name else _name(choice, data, intent),
        preset=choice.preset,
        model=recipes.Model(source=absolute(choice.model), revision=revision),
        data=data,
        settings=plan.settings,
        adapter=str(Path(choice.adapter).expanduser().resolve()) if choice.adapter else None,
        probe=probe,
        checks=checks,
    )
    return Draft(
        choice=choice,
        model_folder=folder,
        facts=facts,
        dataset=dataset,
        tokenizer=tok,
        lengths=counted,
        findings=findings.find(dataset, counted),
        plan=plan,
        recipe=recipe,
        advice_facts=advice_facts,
        given=given,
    )


def _data(choice: Choice, preset: Preset | None) -> recipes.Data:
    """The data part of the recipe: the person's word over the preset's."""
    if choice.data:
        source = choice.data if choice.data.startswith("preset:") else absolute(choice.data)
    elif preset is not None and preset.data_path is not None:
        source = f"preset:{preset.name}"
    elif preset is not None:
        raise FtuiError(
            Exit.DATA_MISSING,
            f"the preset {preset.name} brings no rows of its own",
            next_step="give yours with --data FILE",
        )
    else:
        raise FtuiError(
            Exit.DATA_MISSING,
            "no data given",
            next_step="give --data FILE, or a preset that brings rows (`ftui presets`)",
        )
    return recipes.Data(
        source=source,
        values={**(preset.values if preset else {}), **choice.values},
        prompt=choice.prompt or (preset.prompt if preset else None),
        completion=choice.completion or (preset.completion if preset else None),
        system=choice.system,
        on_bad_row=choice.on_bad_row,
    )


def absolute(source: str) -> str:
    """A path that exists, made absolute, so that the recipe works from any folder; anything else as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() and source != "starter" else source


def _counting(progress: Report | None) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total: report("counting tokens", done, total)


def _intent(preset: Preset | None, dataset: Dataset) -> Intent:
    if dataset.shape.name == "text":
        return "text"
    if dataset.identity or (preset is not None and preset.intent == "identity"):
        return "identity"
    return "instructions"


def _name(choice: Choice, data: recipes.Data, intent: Intent) -> str:
    if intent == "identity" and data.values.get("name"):
        return recipes.slug(data.values["name"]).lower()
    if data.source.startswith("preset:"):
        return recipes.slug(data.source.removeprefix("preset:"))
    return recipes.slug(Path(data.source).stem)


def _questions(preset: Preset | None, dataset: Dataset, values: Mapping[str, str]) -> tuple[Checks, str]:
    """What is asked before, after (checks) and while (probe) the model trains."""
    asked_by = preset
    if preset is None and dataset.identity and {"name", "author"} <= {k for k, v in values.items() if v}:
        asked_by = presets.load("identity")
    checks, probe = Checks(), ""
    if asked_by is not None:
        checks = Checks(
            identity=_filled(asked_by.checks.identity, values), general=_filled(asked_by.checks.general, values)
        )
        probe = fill(asked_by.probe, values)
    return checks, probe or _first_prompt(dataset)


def _filled(checks: list[Check], values: Mapping[str, str]) -> list[Check]:
    """The checks with their placeholders filled; one that still holds a placeholder cannot be judged and is left out."""
    done = [Check(ask=fill(c.ask, values), expect=[fill(word, values) for word in c.expect]) for c in checks]
    return [c for c in done if not any(PLACEHOLDER.search(part) for part in (c.ask, *c.expect))]


def _first_prompt(dataset: Dataset) -> str:
    """The first thing that a person says in the rows: with no preset to ask better, what the model should learn to answer."""
    for example in dataset.examples:
        for message in example.messages or []:
            if message.role == "user":
                return message.content
    return ""


def _plan(choice: Choice, facts: Facts, given: Given) -> Plan:
    """The plan for what the person picked and edited. Raises FtuiError(RECIPE_INVALID) for an edit that cannot be."""
    edits = {**({"method": choice.method} if choice.method else {}), **choice.edits}
    if choice.adapter:
        _check_adapter_edits(edits, given.settings)
    plan = advise(facts, given.settings, edits, preset_name=given.preset, preset_reasons=given.reasons)
    if choice.adapter:
        plan.advice = [
            msgspec.structs.replace(a, source="the adapter", alternatives=[]) if a.field in _FIXED else a
            for a in plan.advice
        ]
    return plan


def _given(choice: Choice, preset: Preset | None) -> Given:
    """What the preset sets, and over it rank, alpha and targets of the adapter to start from.

    Raises FtuiError(RECIPE_INVALID) for a folder without adapter_config.json.
    """
    given = Given()
    if preset is not None:
        given = Given(settings=dict(preset.settings), reasons=dict(preset.reasons), preset=preset.name)
    if not choice.adapter:
        return given
    path = Path(choice.adapter).expanduser() / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha, modules = int(config["r"]), int(config["lora_alpha"]), config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FtuiError(
            Exit.RECIPE_INVALID,
            "the adapter to start from cannot be read",
            str(path),
            "give a finished LoRA or QLoRA run",
        ) from None
    everything = modules == "all-linear" or any(str(module).endswith(_MLP) for module in modules)
    fixed = {"rank": rank, "alpha": alpha, "targets": "all-linear" if everything else "attention"}
    given.settings.update(fixed)
    given.reasons.update(dict.fromkeys(fixed, "as the adapter to start from has it"))
    return given


def _check_adapter_edits(edits: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if edits.get("method") == "full":
        raise FtuiError(
            Exit.RECIPE_INVALID, "an adapter cannot be trained on with method full", next_step="use lora or qlora"
        )
    for name in _FIXED:
        if name in edits and recipes.setting(name, edits[name]) != settings[name]:
            raise FtuiError(
                Exit.RECIPE_INVALID,
                f"{name} is fixed to {settings[name]} by the adapter to start from",
                next_step=f"leave {name} out, or train a new adapter",
            )


def _names(names: list[str]) -> str:
    return " and ".join("{{" + name + "}}" for name in names)
