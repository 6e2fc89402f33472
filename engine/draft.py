"""Everything between "picked" and "started": one function that both faces call.

`make` turns a `Choice` (what a person said) into a `Draft` (what it means: rows read, tokens counted, plan made,
recipe resolved); `replan` answers an edit at once; `start` writes the run directory and hands it to a supervisor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from engine import choice as choices
from engine import hardware, presets, rewards, speeds
from engine import recipe as recipes
from engine.advice import Facts, Plan, advise
from engine.advice.kinds import Goal
from engine.advice.stage import NAMES
from engine.choice import Choice, Given
from engine.data import dataset as datasets_
from engine.data import findings, lengths, split, tokenizer
from engine.models import facts as model_facts
from engine.models import sources, trust
from engine.models.facts import ModelFacts
from engine.recipe import FITTING, RL, TRAINED_STAGES, Check, Checks, Recipe, Settings, Stage

if TYPE_CHECKING:
    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.data.tokenizer import Tokenizer
    from engine.presets import Preset
    from engine.runs.control import Gpu, Warm
    from engine.runs.directory import RunDir

__all__ = [
    "Choice",
    "Draft",
    "answer",
    "fill",
    "from_recipe",
    "intent_of",
    "known",
    "make",
    "refusals",
    "replan",
    "restaged",
    "start",
    "timed",
    "under_preset",
    "worth",
]

Report = Callable[[str, int, int], None]
Intent = Literal["identity", "instructions", "text"]
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
FIRST_LOOK = 2000  # rows of each source that a first picture is made of


class Draft(Struct, kw_only=True):
    """A run that could start now.

    partial  only the first rows were read, for a first picture: nothing starts from it
    """

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

    @property
    def partial(self) -> bool:
        return self.dataset.partial


def make(
    choice: Choice,
    progress: Report | None = None,
    early: Callable[[Draft], None] | None = None,
    *,
    strict: bool = True,
) -> Draft:
    """Read the rows, get the model, count the tokens, make the plan.

    progress  called with (what, done, total) while something lasts; total 0 where it is not known
    early     called with a first picture, made of the first rows, when there are many more
    strict    a row that cannot be used raises, unless the choice says what to do with such; else it becomes a refusal
    Raises FtuiError for anything that is wrong, cheapest check first.
    """
    preset = presets.load(choice.preset) if choice.preset else None
    data = choices.data(choice, preset)
    return _Maker(choice, preset, data, progress).make(early, strict)


def from_recipe(recipe: Recipe, edits: Mapping[str, Any] | None = None, progress: Report | None = None) -> Draft:
    """The draft that repeats `recipe`; every setting in it stands as if the person had set it."""
    settings = {name: getattr(recipe.settings, name) for name in recipes.SETTING_FIELDS}
    data = recipe.data
    choice = Choice(
        model=recipe.model.source,
        trust_remote_code=recipe.model.trust_remote_code,
        data=_word(data),
        more=[_word(source) for source in data.more],
        columns=dict(data.columns),
        subset=data.subset,
        split=data.split,
        stage=recipe.stage,
        reward=recipe.reward,
        preset=recipe.preset,
        values=dict(data.values),
        name=recipe.name,
        edits={**settings, **(edits or {})},
        prompt=data.prompt,
        completion=data.completion,
        system=data.system,
        on_bad_row=data.on_bad_row,
        adapter=recipe.adapter,
    )
    draft = _Maker(choice, None, data, progress, recipe.model.revision).make(None, strict=True)
    again = msgspec.structs.replace(recipe, settings=draft.plan.settings)
    return msgspec.structs.replace(draft, recipe=again)


def _word(source: recipes.Source) -> str:
    return source.source if source.weight == 1 else f"{source.source}*{source.weight:g}"


def replan(draft: Draft, edits: Mapping[str, Any]) -> Draft:
    """The same draft under other edits: `edits` replaces those made before. Instant, nothing is counted again."""
    choice = msgspec.structs.replace(draft.choice, edits=dict(edits))
    return _planned(draft, choice, draft.advice_facts)


def answer(draft: Draft, goal: Goal | None, deadline: float | None) -> Draft:
    """The same draft with other answers to the questions that come before tuning. Instant."""
    choice = msgspec.structs.replace(draft.choice, goal=goal, deadline=deadline)
    facts = msgspec.structs.replace(
        draft.advice_facts, goal=_goal(choice, draft.advice_facts.intent), deadline=deadline
    )
    return _planned(draft, choice, facts)


def worth(draft: Draft, word: str) -> Draft:
    """The same draft under another reward. Raises FtuiError for a word that names none."""
    choice = msgspec.structs.replace(draft.choice, reward=word)
    recipe = msgspec.structs.replace(draft.recipe, reward=rewards.resolved(word))
    return msgspec.structs.replace(draft, choice=choice, recipe=recipe)


def restaged(draft: Draft, stage: Stage) -> Draft:
    """The same draft for another stage, which the person chose. Instant, nothing is counted again."""
    choice = msgspec.structs.replace(draft.choice, stage=stage)
    facts = msgspec.structs.replace(draft.advice_facts, stage=stage)
    again = msgspec.structs.replace(draft, recipe=msgspec.structs.replace(draft.recipe, stage=stage))
    return _planned(again, choice, facts)


def timed(draft: Draft) -> Draft:
    """The same draft after something was measured on this machine: a probe, or a run that ended. Instant."""
    facts = msgspec.structs.replace(draft.advice_facts, speeds=speeds.known(draft.advice_facts.hardware, draft.facts))
    return _planned(draft, draft.choice, facts)


def under_preset(draft: Draft, name: str) -> Draft:
    """The same rows and machine under a preset, without edits: for comparing. Raises FtuiError(PRESET_UNKNOWN)."""
    choice = msgspec.structs.replace(draft.choice, preset=name, edits={}, method=None)
    given = choices.given(choice, presets.load(name))
    return _planned(msgspec.structs.replace(draft, given=given), choice, draft.advice_facts)


def _planned(draft: Draft, choice: Choice, facts: Facts) -> Draft:
    plan = _plan(choice, facts, draft.given)
    recipe = msgspec.structs.replace(draft.recipe, settings=plan.settings)
    return msgspec.structs.replace(draft, choice=choice, plan=plan, recipe=recipe, advice_facts=facts)


def refusals(draft: Draft) -> list[str]:
    """Reasons why this should not start, in words; empty where nothing speaks against it."""
    reasons = list(draft.plan.refusals)
    if draft.partial:
        reasons.append("the rows are still being read")
    if draft.recipe.stage not in FITTING[draft.dataset.stage]:
        fitting = [stage for stage in FITTING[draft.dataset.stage] if stage in TRAINED_STAGES]
        can = f"they can train {', '.join(fitting)}" if fitting else "there is no stage for them here yet"
        reasons.append(f"these rows are not for {NAMES[draft.recipe.stage]}: {can}")
    if draft.recipe.stage in RL:
        answers = "completion" in draft.dataset.shape.columns or draft.dataset.stage == "sft"
        if why := rewards.reason(draft.recipe.reward, draft.recipe.model.source, answers):
            reasons.append(why)
    if draft.dataset.skipped and draft.choice.on_bad_row == "abort":
        count = len(draft.dataset.skipped)
        many = "1 row cannot be used: leave it" if count == 1 else f"{count:,} rows cannot be used: leave them"
        reasons.append(f"{many} out (--bad-rows skip), or have mended what can be (--bad-rows repair)")
    elif draft.dataset.repaired and draft.choice.on_bad_row == "abort":  # to look at it, it was read all the same
        reasons.append(f"{draft.dataset.repaired[0].reason}: mend the file, or have it mended (--bad-rows repair)")
    if draft.dataset.placeholders:
        missing = sorted(draft.dataset.placeholders)
        rows = max(draft.dataset.placeholders.values())
        options = " ".join(f"--set {name}=…" for name in missing)
        reasons.append(f"{rows} rows still hold {_names(missing)}: give {options}")
    return reasons


def start(draft: Draft, gpu: Gpu | None = None, warm: Warm | None = None, now: bool = False) -> RunDir:
    """Write the run directory and start the run in the background; returns at once.

    gpu   index of the card to use; "auto" or None: the first that is free
    warm  a worker started ahead by `control.prewarm`
    now   do not wait in line
    """
    from engine.runs import control, directory

    run = directory.create(draft.recipe, msgspec.to_builtins(draft.plan))
    options = {"now": True} if now else {}
    control.start(run, control.Job(kind="train", run=str(run.path), options=options), gpu=gpu, warm=warm)
    return run


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {{name}} that has a value replaced by it."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


class _Maker:
    """Makes the drafts of one choice: a first one of the first rows, then the whole."""

    def __init__(
        self,
        choice: Choice,
        preset: Preset | None,
        data: recipes.Data,
        progress: Report | None,
        revision: str | None = None,
    ) -> None:
        self._choice, self._preset, self._data = choice, preset, data
        self._progress, self._revision = progress, revision

    def make(self, early: Callable[[Draft], None] | None, strict: bool) -> Draft:
        dataset = datasets_.load(self._data, strict=strict, limit=FIRST_LOOK)
        folder = sources.resolve(self._choice.model, progress=self._progress, revision=self._revision)
        trust.check(folder, self._choice.trust_remote_code)
        facts = model_facts.read(folder)
        tok = tokenizer.load(folder)
        if dataset.partial:
            if early is not None:
                early(self._draft(dataset, folder, facts, tok, None))
            dataset = datasets_.load(self._data, strict=strict, progress=self._reporting("reading bytes"))
        return self._draft(dataset, folder, facts, tok, self._progress)

    def _reporting(self, what: str) -> Callable[[int, int], None] | None:
        if self._progress is None:
            return None
        report = self._progress
        return lambda done, total: report(what, done, total)

    def _draft(
        self, dataset: Dataset, folder: Path, facts: ModelFacts, tok: Tokenizer, progress: Report | None
    ) -> Draft:
        choice, data = self._choice, self._data
        reporting = self._reporting if progress is not None else lambda what: None
        counted = lengths.count(dataset, tok, reporting("counting tokens"))
        intent = intent_of(self._preset, dataset)
        given = choices.given(choice, self._preset)
        advice_facts = known(choice, dataset, counted, facts, intent)
        plan = _plan(choice, advice_facts, given)
        found = findings.find(
            dataset,
            counted,
            plan.settings.max_length,
            context=facts.context,
            held_out=_held_out(counted, plan.settings),
            progress=reporting("looking at the rows"),
        )
        if overlap := next((finding.count for finding in found if finding.kind == "overlap"), 0):
            advice_facts = msgspec.structs.replace(advice_facts, overlap=overlap)
            plan = _plan(choice, advice_facts, given)
        checks, probe = _questions(self._preset, dataset, data.values)
        recipe = Recipe(
            name=recipes.slug(choice.name) if choice.name else _name(choice, data, intent),
            stage=advice_facts.stage,
            preset=choice.preset,
            model=recipes.Model(
                source=choices.absolute(choice.model),
                revision=self._revision,
                trust_remote_code=choice.trust_remote_code,
            ),
            data=data,
            settings=plan.settings,
            adapter=str(Path(choice.adapter).expanduser().resolve()) if choice.adapter else None,
            reward=rewards.resolved(choice.reward) if choice.reward else None,
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
            findings=found,
            plan=plan,
            recipe=recipe,
            advice_facts=advice_facts,
            given=given,
        )


def known(choice: Choice, dataset: Dataset, counted: Lengths, model: ModelFacts, intent: Intent) -> Facts:
    """What the rules may know of these rows, this model and this machine."""
    machine = hardware.read()
    return Facts(
        model=model,
        hardware=machine,
        rows=len(dataset.repeats(0)),
        p50=counted.percentile(50),
        p95=counted.percentile(95),
        p99=counted.percentile(99),
        max=counted.max,
        mean=counted.mean(),
        lengths=counted.total,
        starts=counted.starts,
        exact=counted.exact,
        intent=intent,
        stage=choice.stage or dataset.stage,
        goal=_goal(choice, intent),
        deadline=choice.deadline,
        has_end_token=len(counted.endless) < len(dataset.examples),
        trained_rows=len(counted.starts),
        speeds=speeds.known(machine, model),
    )


def _held_out(counted: Lengths, settings: Settings) -> list[int]:
    """Numbers of the rows that the worker will hold out."""
    trained = counted.trained_at(settings.max_length)
    return [counted.rows[trained[at]] for at in split.held_out(len(trained), settings.eval_fraction, settings.seed)]


def _goal(choice: Choice, intent: Intent) -> Goal | None:
    return choice.goal or ("persona" if intent == "identity" else None)


def intent_of(preset: Preset | None, dataset: Dataset) -> Intent:
    """What the rows are for, as far as it can be seen."""
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
    edits = choices.edits(choice, given.settings)
    plan = advise(facts, given.settings, edits, preset_name=given.preset, preset_reasons=given.reasons)
    if choice.adapter:
        plan.advice = [
            msgspec.structs.replace(a, source="the adapter", alternatives=[]) if a.field in choices.FIXED else a
            for a in plan.advice
        ]
    return plan


def _names(names: list[str]) -> str:
    return " and ".join("{{" + name + "}}" for name in names)
