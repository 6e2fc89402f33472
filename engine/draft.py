"""Everything between "picked" and "started": one function that both faces call.

`make` turns a `Choice` (what a person said) into a `Draft` (what it means: rows read, tokens counted, plan made,
recipe resolved); `replan` answers an edit at once; `start` writes the run directory and hands it to a supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine import chain, presets, rewards, speeds
from engine import choice as choices
from engine import recipe as recipes
from engine.advice.kinds import Facts, Goal
from engine.advice.stage import NAMES
from engine.chain import Later
from engine.choice import Choice
from engine.errors import FtuiError
from engine.making import FIRST_LOOK, Draft, Maker, Report, goal_of, intent_of, known, planned, recounted
from engine.questions import fill
from engine.recipe import FITTING, RL, Recipe, Stage
from engine.text import plural

if TYPE_CHECKING:
    from engine.runs.control import Gpu, Warm
    from engine.runs.directory import RunDir

__all__ = [
    "FIRST_LOOK",
    "Choice",
    "Draft",
    "Report",
    "answer",
    "extended",
    "fill",
    "from_recipe",
    "intent_of",
    "known",
    "make",
    "refusals",
    "renamed",
    "replan",
    "restaged",
    "stages",
    "start",
    "timed",
    "under_preset",
    "whole",
    "worth",
]


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
    return extended(Maker(choice, preset, data, progress).make(early, strict), choice.then, progress, strict=strict)


def extended(draft: Draft, later: Sequence[Later], progress: Report | None = None, *, strict: bool = True) -> Draft:
    """The same draft with these stages after it, each with a plan of its own, from the result of those before.

    Raises FtuiError as `make`, and RECIPE_INVALID for a chain that cannot be followed, before its rows are read.
    """
    drafts = stages(draft)
    first = drafts[0].choice
    for one in later:
        before = [made.recipe for made in drafts]
        choice = Choice(
            model=first.model,
            trust_remote_code=first.trust_remote_code,
            data=one.data,
            stage=one.stage,
            reward=chain.reward(before, one.stage) or (first.reward if one.stage in RL else None),
            goal=first.goal,
            values=dict(before[0].data.values),
            name=chain.name_of(before[0].name, one.stage),
            edits=dict(one.edits) | _same_tokens(one.stage, before),
            system=first.system,
            on_bad_row=first.on_bad_row,
            adapter=chain.base(before, one.stage),
            before=before,
        )
        chain.check_next(one.stage, before[0].model.source, choice.adapter, choice.reward, before)
        data = choices.data(choice, None)
        try:
            made = Maker(choice, None, data, progress, before[0].model.revision).make(None, strict)
        except FtuiError as error:
            raise FtuiError(error.code, f"stage {one.stage}: {error.cause}", error.where, error.next_step) from None
        if one.stage != chain.JUDGE and not (made.recipe.checks.identity or made.recipe.checks.general):
            # What the stages before were asked is asked again, so that it shows what is forgotten.
            made.recipe.checks = before[0].checks
        drafts.append(made)
    return _linked(drafts)


def stages(draft: Draft) -> list[Draft]:
    """The drafts of all stages in their order."""
    return [draft, *(stages(draft.then) if draft.then is not None else [])]


def _linked(drafts: Sequence[Draft]) -> Draft:
    first, *rest = drafts
    later = [chain.Later(stage=d.recipe.stage, data=_word(d.recipe.data), edits=d.choice.edits) for d in rest]
    choice = msgspec.structs.replace(first.choice, then=later)
    return msgspec.structs.replace(first, choice=choice, then=_linked(rest) if rest else None)


def whole(draft: Draft) -> Recipe:
    """The recipe of all stages."""
    return chain.linked(made.recipe for made in stages(draft))


def from_recipe(recipe: Recipe, edits: Mapping[str, Any] | None = None, progress: Report | None = None) -> Draft:
    """The draft that repeats `recipe`, with all its stages; every setting in it stands as if the person had set it.

    edits  by the name of the setting, for a later stage by "STAGE.NAME"
    """
    chain.check(recipe)
    each = chain.stages(recipe)
    first = {name: value for name, value in (edits or {}).items() if "." not in name}
    given = chain.by_stage([one.stage for one in each[1:]], {k: v for k, v in (edits or {}).items() if "." in k})
    drafts: list[Draft] = []
    for at, one in enumerate(each):
        own = first if at == 0 else given[one.stage]
        drafts.append(_repeated(one, own, progress, [made.recipe for made in drafts]))
    return _linked(drafts)


def _repeated(recipe: Recipe, edits: Mapping[str, Any], progress: Report | None, before: list[Recipe]) -> Draft:
    settings = {name: getattr(recipe.settings, name) for name in recipes.SETTING_FIELDS}
    data = recipe.data
    choice = Choice(
        model=recipe.model.source,
        trust_remote_code=recipe.model.trust_remote_code,
        data=_word(data),
        more=[_word(source) for source in data.more],
        columns=dict(data.columns),
        said={
            _word(one): choices.Columns(columns=dict(one.columns), prompt=one.prompt, completion=one.completion)
            for one in data.more
        },
        subset=data.subset,
        split=data.split,
        stage=recipe.stage,
        reward=recipe.reward,
        preset=recipe.preset,
        values=dict(data.values),
        name=recipe.name,
        edits={**settings, **edits},
        prompt=data.prompt,
        completion=data.completion,
        system=data.system,
        on_bad_row=data.on_bad_row,
        adapter=recipe.adapter,
        before=before,
    )
    draft = Maker(choice, None, data, progress, recipe.model.revision).make(None, strict=True)
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
        draft.advice_facts, goal=goal_of(choice, draft.advice_facts.intent), deadline=deadline
    )
    return _planned(draft, choice, facts)


def worth(draft: Draft, word: str) -> Draft:
    """The same draft under another reward. Raises FtuiError for a word that names none."""
    choice = msgspec.structs.replace(draft.choice, reward=word)
    recipe = msgspec.structs.replace(draft.recipe, reward=rewards.resolved(word))
    return msgspec.structs.replace(draft, choice=choice, recipe=recipe)


def restaged(draft: Draft, stage: Stage) -> Draft:
    """The same draft for another stage, which the person chose, or for the rows' own. Instant, nothing is counted again."""
    choice = msgspec.structs.replace(draft.choice, stage=None if stage == draft.dataset.stage else stage)
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
    plan = planned(choice, facts, draft.given)
    if plan.settings.added_tokens != tuple(draft.tokenizer.asked):
        draft = recounted(msgspec.structs.replace(draft, choice=choice, advice_facts=facts), plan.settings.added_tokens)
        facts = draft.advice_facts
        plan = planned(choice, facts, draft.given)
    recipe = msgspec.structs.replace(draft.recipe, settings=plan.settings)
    made = msgspec.structs.replace(draft, choice=choice, plan=plan, recipe=recipe, advice_facts=facts)
    then = None if made.then is None else _following(made.then, [*choice.before, recipe])
    return msgspec.structs.replace(made, then=then)


def _following(draft: Draft, before: list[Recipe]) -> Draft:
    """A later stage after something has changed in those `before` it: it may begin from another adapter."""
    adapter, reward, stage = draft.choice.adapter, draft.choice.reward, draft.recipe.stage
    if chain.reference(adapter) and chain.found(adapter, before) is None:
        adapter = chain.base(before, stage)
    if chain.reference(reward) and chain.found(reward, before) is None:
        reward = chain.reward(before, stage)
    edits = draft.choice.edits | _same_tokens(stage, before)
    choice = msgspec.structs.replace(draft.choice, adapter=adapter, reward=reward, before=before, edits=edits)
    recipe = msgspec.structs.replace(draft.recipe, adapter=adapter, reward=reward)
    again = msgspec.structs.replace(draft, given=choices.given(choice, None), recipe=recipe)
    return _planned(again, choice, draft.advice_facts)


def _same_tokens(stage: Stage, before: list[Recipe]) -> dict[str, Any]:
    """What begins from the base reads what the first stage's adapter writes: the same tokens are added for both."""
    words = before[0].settings.added_tokens
    return {"added_tokens": words} if stage == chain.JUDGE and words else {}


def renamed(draft: Draft, name: str) -> Draft:
    """The same draft, and its later stages, under another name."""
    first, *rest = stages(draft)
    drafts = [_named(first, name), *(_named(one, chain.name_of(name, one.recipe.stage)) for one in rest)]
    return _linked(drafts)


def _named(draft: Draft, name: str) -> Draft:
    choice = msgspec.structs.replace(draft.choice, name=name)
    return msgspec.structs.replace(draft, choice=choice, recipe=msgspec.structs.replace(draft.recipe, name=name))


def refusals(draft: Draft) -> list[str]:
    """Reasons why this should not start, in words; empty where nothing speaks against it. A later stage's begin with its name."""
    reasons = list(draft.plan.refusals)
    one = draft.recipe
    if trouble := chain.trouble(one.stage, one.model.source, one.adapter, one.reward, draft.choice.before):
        reasons.insert(0, ": ".join(trouble))
    if draft.partial:
        reasons.append("the rows are still being read")
    if draft.recipe.stage not in FITTING[draft.dataset.stage]:
        can = ", ".join(FITTING[draft.dataset.stage])
        reasons.append(f"these rows are not for {NAMES[draft.recipe.stage]}: they can train {can}")
    if draft.recipe.stage == "kto":  # which ratings there are was counted once
        sided = (one for one in draft.findings if one.kind == "label-balance" and one.level == "problem")
        reasons += [f"{one.message}, {one.fix}" for one in sided]
    if draft.recipe.stage in RL:
        answers = "completion" in draft.dataset.shape.columns or draft.dataset.stage == "sft"
        if why := rewards.reason(
            draft.recipe.reward, draft.recipe.model.source, answers, draft.plan.settings.added_tokens
        ):
            reasons.append(why)
    if draft.dataset.skipped and draft.choice.on_bad_row == "abort":
        count = len(draft.dataset.skipped)
        many = "1 row cannot be used: leave it" if count == 1 else f"{count:,} rows cannot be used: leave them"
        reasons.append(f"{many} out (--bad-rows skip), or have mended what can be (--bad-rows repair)")
    elif draft.dataset.repaired and draft.choice.on_bad_row == "abort":  # to look at it, it was read all the same
        reasons.append(f"{draft.dataset.repaired[0].reason}: mend the file, or have it mended (--bad-rows repair)")
    if draft.dataset.placeholders:
        missing = sorted(draft.dataset.placeholders)
        # A row may hold several: how many rows there are was counted with the findings.
        rows = next((one.count for one in draft.findings if one.kind == "placeholders"), 0)
        hold = plural(rows or max(draft.dataset.placeholders.values()), "row", "still holds", "still hold")
        options = " ".join(f"--set {name}=…" for name in missing)
        reasons.append(f"{hold} {_names(missing)}: give {options}")
    if draft.then is not None:
        reasons += [f"{draft.then.recipe.stage}: {reason}" for reason in refusals(draft.then)]
    return reasons


def start(draft: Draft, gpu: Gpu | None = None, warm: Warm | None = None, now: bool = False) -> RunDir:
    """Write the run directory and start the run in the background; returns at once. Of a chain, those of all stages: the
    later ones wait, and the first one is returned.

    gpu   index of the card to use; "auto" or None: the first that is free
    warm  a worker started ahead by `control.prewarm`
    now   do not wait in line
    """
    from engine.runs import control, links

    runs = links.create([(one.recipe, msgspec.to_builtins(one.plan)) for one in stages(draft)])
    options = {"now": True} if now else {}
    for run in runs:
        job = control.Job(kind="train", run=str(run.path), options=options)
        control.start(run, job, gpu=gpu, warm=warm if run == runs[0] else None)
    return runs[0]


def _names(names: list[str]) -> str:
    return " or ".join("{{" + name + "}}" for name in names)
