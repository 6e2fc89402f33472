"""One stage's draft out of a choice: rows read, model found, tokens counted, plan made, recipe resolved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from engine import chain, hardware, questions, rewards, speeds
from engine import choice as choices
from engine import recipe as recipes
from engine.advice.kinds import Facts, Goal, Plan
from engine.advice.plan import advise
from engine.choice import Choice, Given
from engine.data import dataset as datasets_
from engine.data import findings, lengths, split, tokenizer
from engine.models import facts as model_facts
from engine.models import sources, trust
from engine.models.facts import ModelFacts
from engine.recipe import Recipe, Settings

if TYPE_CHECKING:
    from engine.data.dataset import Dataset
    from engine.data.findings import Finding
    from engine.data.lengths import Lengths
    from engine.data.tokenizer import Tokenizer
    from engine.presets import Preset

Report = Callable[[str, int, int], None]
Intent = Literal["identity", "instructions", "text"]
FIRST_LOOK = 2000  # rows of each source that a first picture is made of


class Draft(Struct, kw_only=True):
    """A run that could start now.

    partial  only the first rows were read, for a first picture: nothing starts from it
    then     the next stage of a chain; `whole` gives the recipe of all of them
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
    then: Draft | None = None

    @property
    def partial(self) -> bool:
        return self.dataset.partial


class Maker:
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
        given = choices.given(self._choice, self._preset)
        tok = tokenizer.load(folder, choices.added_tokens(self._choice, given))
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
        advice_facts = known(choice, dataset, counted, facts, intent, tok)
        plan = planned(choice, advice_facts, given)
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
            plan = planned(choice, advice_facts, given)
        checks, probe = questions.of(self._preset, dataset, data.values)
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
            adapter=_adapter(choice.adapter),
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


def _adapter(word: str | None) -> str | None:
    """A folder by its whole path; what an earlier stage leaves by the stage's name."""
    return str(Path(word).expanduser().resolve()) if word and not chain.reference(word) else word


def recounted(draft: Draft, words: tuple[str, ...]) -> Draft:
    """The same draft, its rows counted with other words made tokens of. Raises FtuiError as `tokenizer.load`."""
    tok = tokenizer.load(draft.model_folder, words)
    counted = lengths.count(draft.dataset, tok)
    before = draft.advice_facts
    facts = known(draft.choice, draft.dataset, counted, draft.facts, before.intent, tok)
    facts = msgspec.structs.replace(
        facts, stage=before.stage, goal=before.goal, deadline=before.deadline, overlap=before.overlap
    )
    return msgspec.structs.replace(draft, tokenizer=tok, lengths=counted, advice_facts=facts)


def known(
    choice: Choice, dataset: Dataset, counted: Lengths, model: ModelFacts, intent: Intent, tok: Tokenizer | None = None
) -> Facts:
    """What the rules may know of these rows, this model and this machine. `tok` is the model's tokenizer, None for an estimate."""
    machine = hardware.read()
    asked, words, numbers = (tok.asked, tok.added_words, tok.added) if tok is not None else ([], [], [])
    model = model.with_added(numbers)
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
        # A model that goes on with a text reads on where the last part ended.
        around=0 if model.shape == "causal" or tok is None else len(tok.opening) + len(tok.closing),
        starts=counted.starts,
        shared=counted.shared,
        exact=counted.exact,
        intent=intent,
        stage=choice.stage or dataset.stage,
        goal=goal_of(choice, intent),
        deadline=choice.deadline,
        has_end_token=len(counted.endless) < len(dataset.examples),
        trained_rows=len(counted.starts),
        speeds=speeds.known(machine, model),
        added_known=[word for word in dict.fromkeys(asked) if word not in words],
        added_idle=counted.without(words, numbers),
    )


def _held_out(counted: Lengths, settings: Settings) -> list[int]:
    """Numbers of the rows that the worker will hold out."""
    trained = counted.trained_at(settings.max_length)
    return [counted.rows[trained[at]] for at in split.held_out(len(trained), settings.eval_fraction, settings.seed)]


def goal_of(choice: Choice, intent: Intent) -> Goal | None:
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


def planned(choice: Choice, facts: Facts, given: Given) -> Plan:
    """The plan for what the person picked and edited. Raises FtuiError(RECIPE_INVALID) for an edit that cannot be."""
    edits = choices.edits(choice, given)
    plan = advise(facts, given.settings, edits, preset_name=given.preset, preset_reasons=given.reasons)
    plan.advice = [
        msgspec.structs.replace(a, source="the adapter", alternatives=[])
        if a.field in given.fixed
        else msgspec.structs.replace(a, source="the adapter")
        if choice.before and a.field == "method" and a.reason == given.reasons.get("method")
        else a
        for a in plan.advice
    ]
    return plan
