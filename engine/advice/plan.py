"""From facts to a plan: the rules in the order of their dependencies, presets over them, edits over both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine import recipe
from engine.advice import checks, method, numerics, refusals, schedule, time
from engine.advice.disagreements import disagreement
from engine.advice.epoch import Epoch, epoch, of, optimizer_steps
from engine.advice.fit import fits, need
from engine.advice.gate import gate
from engine.advice.kinds import Advice, Alternative, Facts, Plan, Values, gigabytes, held_out
from engine.advice.stage import NAMES, stage
from engine.models.memory import Memory
from engine.recipe import Method, Settings
from engine.speeds import best
from engine.text import duration

Rule = Callable[[Facts, Values], Advice]

# Each rule may look at the values decided before it.
_ORDER: dict[str, Rule] = {
    "seed": schedule.seed,
    "answer_length": schedule.answer_length,
    "max_length": numerics.max_length,
    "generations": schedule.generations,
    "temperature": schedule.temperature,
    "rope": numerics.rope,
    "precision": numerics.precision,
    "method": method.method,
    "bits": method.bits,
    "double_quantization": method.double_quantization,
    "trained_layers": method.trained_layers,
    "rank": method.rank,
    "alpha": method.alpha,
    "dropout": method.dropout,
    "targets": method.targets,
    "rslora": method.rslora,
    "dora": method.dora,
    "init": method.init,
    "lora_plus": method.lora_plus,
    "virtual_tokens": method.virtual_tokens,
    "added_tokens": method.added_tokens,
    "neftune": method.neftune,
    "optimizer": numerics.optimizer,
    "attention": numerics.attention,
    "unpadded": numerics.unpadded,
    "packing": numerics.packing,
    "fused_lora": numerics.fused_lora,
    "learning_rate": schedule.learning_rate,
    "eval_fraction": schedule.eval_fraction,
    "epochs": schedule.epochs,
    "micro_batch": schedule.micro_batch,
    "gradient_checkpointing": schedule.gradient_checkpointing,
    "accumulation": schedule.accumulation,
    "schedule": schedule.schedule,
    "warmup": schedule.warmup,
    "weight_decay": schedule.weight_decay,
    "max_grad_norm": schedule.max_grad_norm,
    "beta": schedule.beta,
    "loss": schedule.loss,
    "stop_on_plateau": schedule.stop_on_plateau,
    "save_every": schedule.save_every,
    "sample_every": schedule.sample_every,
}
_METHODS: dict[Method, str] = {
    "full": "full {stage}",
    "freeze": "{stage} of the last {layers}",
    "lora": "{stage} with LoRA",
    "qlora": "{stage} with QLoRA",
    "ia3": "{stage} with IA3",
    "bottleneck": "{stage} with bottleneck adapters",
    "galore": "{stage} of all weights with GaLore",
    "prompt": "{stage} with prompt tuning",
    "prefix": "{stage} with prefix tuning",
}


def advise(
    facts: Facts,
    preset: Mapping[str, Any] | None = None,
    edits: Mapping[str, Any] | None = None,
    *,
    preset_name: str = "",
    preset_reasons: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for `facts`: pure and instant.

    preset          settings that a preset sets instead of the rules; a rule's value then becomes an alternative
    edits           settings that the person set; kept apart, but everything derived from them is derived anew
    preset_reasons  why the preset sets each of its settings
    Raises FtuiError(RECIPE_INVALID) for a setting that does not exist or a value that it cannot have.
    """
    given = {name: recipe.setting(name, value) for name, value in (preset or {}).items()}
    edited = {name: recipe.setting(name, value) for name, value in (edits or {}).items()}
    reasons = preset_reasons or {}
    _yield_to_edits(given, edited)
    fixed = {**given, **edited}
    # How many rows memory holds depends on checkpointing, and checkpointing on what fits: whoever fixed it comes first.
    values: Values = {name: fixed[name] for name in ("gradient_checkpointing",) if name in fixed}
    advice: dict[str, Advice] = {}
    for name, rule in _ORDER.items():
        made = rule(facts, values)
        if name == "accumulation" and {"micro_batch", "accumulation"} <= given.keys():
            # The preset means an effective batch; how it is split up depends on the micro-batch that came of it.
            given[name] = math.ceil(given["micro_batch"] * given["accumulation"] / values["micro_batch"])
        if name in given and not _must_yield(facts, values, made, given[name]):
            made = _from_preset(made, given[name], preset_name, reasons.get(name, ""))
        # Rules list the sources' numbers; the one that holds is no alternative to itself.
        advice[name] = msgspec.structs.replace(
            made,
            alternatives=[other for other in made.alternatives if other.value != made.value],
            disagreement=disagreement(made, facts, values),
        )
        values[name] = edited.get(name, made.value)
    settings = Settings(**values)
    steps = optimizer_steps(facts, settings)
    memory = need(facts, values)
    seconds, seconds_source = time.seconds(facts, settings)
    plan = Plan(
        advice=[advice[name] for name in recipe.SETTING_FIELDS],
        edits=edited,
        settings=settings,
        steps=steps,
        memory=memory,
        seconds=seconds,
        seconds_source=seconds_source,
        warnings=checks.warnings(facts, settings, steps, memory),
        refusals=refusals.refusals(facts, settings, memory),
        sentence=_sentence(facts, settings, steps, seconds, memory),
        stage=stage(facts),
        gate=gate(facts, None),
    )
    plan.gate = gate(facts, plan)
    return plan


def _yield_to_edits(given: dict[str, Any], edited: Mapping[str, Any]) -> None:
    """Adapt a preset's settings that hang on one the person changed: what the preset meant, not its letters."""
    if "rank" in edited and {"rank", "alpha"} <= given.keys():
        given["alpha"] = max(1, round(given["alpha"] / given["rank"] * edited["rank"]))
    if "method" in given and edited.get("method", given["method"]) != given["method"]:
        for name in ("learning_rate", "optimizer"):  # an adapter's rate would ruin full tuning
            given.pop(name, None)
        if edited["method"] not in recipe.LOW_RANK:
            given.pop("rank", None)
            given.pop("alpha", None)


def _must_yield(facts: Facts, values: Values, made: Advice, value: Any) -> bool:
    """Whether memory holds what the rule says and not what the preset wants: presets are made on other machines."""
    if made.field not in ("method", "micro_batch"):
        return False
    return fits(facts, values, **{made.field: made.value}) and not fits(facts, values, **{made.field: value})


def _from_preset(made: Advice, value: Any, name: str, reason: str) -> Advice:
    """A preset's value in place of a rule's, which stays in sight as the first alternative."""
    others = [other for other in made.alternatives if other.value != value]
    if made.value != value:
        others.insert(0, Alternative(made.value, f"what the rules say: {made.reason} ({made.source})"))
    source = f"preset {name}".strip()
    return Advice(made.field, value, reason or "set by the preset", source, "high", others)


def _put_together(made: Epoch, facts: Facts, settings: Settings) -> str:
    """What becomes of the rows that are trained on: " in 812 parts, in 405 packs"; empty where each stays as it is."""
    words = []
    if made.parts > facts.rows - held_out(facts.rows, settings.eval_fraction):
        words.append(f" in {made.parts:,} parts")
    if settings.packing:
        words.append(f" in {made.items:,} {'pack' if made.items == 1 else 'packs'}")
    return ",".join(words)


def _sentence(facts: Facts, settings: Settings, steps: int, seconds: float | None, memory: Memory | None) -> str:
    """The plan in one sentence: "SFT with LoRA on 91 rows: 115 optimizer steps, about 3 min, 2.1 of 23 GB.". "roughly" 3 min
    where nothing was measured on this machine."""
    rows = "1 row" if facts.rows == 1 else f"{facts.rows:,} rows"
    rows += _put_together(epoch(facts, of(settings)), facts, settings)
    parts = ["1 optimizer step" if steps == 1 else f"{steps:,} optimizer steps"]
    if seconds is not None:
        known = facts.model is not None and best(facts.speeds, facts.model, settings) is not None
        parts.append(duration(seconds) if known else f"roughly {duration(seconds).removeprefix('about ')}")
    if memory is not None:
        parts.append(f"{gigabytes(memory.total)} of {gigabytes(facts.hardware.budget)} GB")
    layers = "layer" if settings.trained_layers == 1 else f"{settings.trained_layers} layers"
    what = _METHODS[settings.method].format(stage=NAMES[facts.stage], layers=layers)
    return f"{what[0].upper()}{what[1:]} on {rows}: {', '.join(parts)}."
