"""The description of one run: typed, complete, and the same in YAML as in memory.

`ftui train recipe.yaml` repeats the run it came from. Nothing in a recipe is left to a default of a library:
what the plan advised and what the person changed are both resolved to plain values here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import yaml
from msgspec import Meta, Struct, field

from engine import __version__, recipe_words
from engine.errors import Exit, FtuiError

Method = Literal["lora", "qlora", "ia3", "prompt", "prefix", "bottleneck", "freeze", "galore", "full"]
LOW_RANK: tuple[Method, ...] = ("lora", "qlora")  # two small matrices beside each large one
ALL: tuple[Method, ...] = ("galore", "full")  # every weight learns
WHOLE: tuple[Method, ...] = (
    "freeze",
    *ALL,
)  # weights of the model itself learn, and a whole model is what the run leaves
VIRTUAL: tuple[Method, ...] = ("prompt", "prefix")  # what learns stands in for tokens ahead of the text
ADDING: tuple[Method, ...] = (*LOW_RANK, "bottleneck", *WHOLE)  # can train rows of the embedding for added tokens
Stage = Literal["sft", "pretraining", "dpo", "kto", "reward", "grpo", "rloo", "ppo"]
STAGES: tuple[Stage, ...] = get_args(Stage)
RL: tuple[Stage, ...] = ("grpo", "rloo", "ppo")  # the model answers prompts, and learns from a reward
PACKED: tuple[Stage, ...] = ("sft", "pretraining")  # rows can be put together
PPO_PASSES = 4  # optimizer steps that PPO makes of the same answers (TRL's PPO, when it had one)
GALORE_SCALE = 0.25  # of a step in GaLore's small space, that a weight moves by (its paper)
# What rows can train that are made for the stage before the colon: prompts are in all of them but plain text.
FITTING: dict[Stage, tuple[Stage, ...]] = {
    "sft": ("sft", *RL),
    "pretraining": ("pretraining",),
    "dpo": ("dpo", "reward", "sft", *RL),
    "kto": ("kto", *RL),
    "grpo": RL,
}
# The losses of TRL's trainers, by stage; the first is the stage's own. Of DPO's two are left out: "sft" is no preference,
# and "discopop" begins by drawing the answers together (its slope where policy and reference are equal is the wrong way).
LOSSES: dict[Stage, tuple[str, ...]] = {
    "dpo": (
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "sigmoid_norm",
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "grpo": ("dapo", "grpo", "dr_grpo", "bnpo"),
}
TOGETHER = ("aot", "aot_unpaired", "kto")  # compare the rows of a micro-batch with each other: two at least
Precision = Literal["fp32", "bf16", "fp16"]
Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0.0, le=0.5)]


class Model(Struct, kw_only=True, forbid_unknown_fields=True):
    """`source` is "starter", a hub id, a local folder or a GGUF file."""

    source: str
    revision: str | None = None
    trust_remote_code: bool = False


class Source(Struct, kw_only=True, forbid_unknown_fields=True):
    """One place that rows come from.

    source      a file, a folder of files, "preset:NAME", "hub:OWNER/NAME", or "dataset_info.json:ENTRY"
    weight      how often its rows count: 2 twice in each epoch, 0.5 a half of them (drawn once, by the seed)
    columns     role -> column, where a person corrected what was found: {"prompt": "question"}
    prompt      a template over a row's columns ("Summarise:\\n{dialogue}"), for shapes that are not found by themselves
    completion  the same for the answer ("{summary}")
    subset      of a data set on the hub, with `split`
    """

    source: str
    weight: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    columns: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    subset: str | None = None
    split: str | None = None


class Data(Source, kw_only=True, forbid_unknown_fields=True):
    """The first source, those that are mixed with it, and what holds for the rows of all.

    more        other sources, mixed in
    values      what stands in for placeholders: {"name": "Congyu"} fills {{name}}
    system      a system prompt put before every conversation that has none
    on_bad_row  what to do with a row that cannot be used: stop, leave it out, or mend it where its meaning is plain
    """

    more: list[Source] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    system: str | None = None
    on_bad_row: Literal["abort", "skip", "repair"] = "abort"

    @property
    def sources(self) -> list[Source]:
        """All of them, the first one first."""
        return [self, *self.more]


class Settings(Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields that the plan decides. Lengths in tokens, batches in rows, rates per optimizer step.

    rank                 of LoRA's matrices; the width of bottleneck adapters; of what GaLore projects gradients to
    bits                 the base is packed into, for QLoRA
    double_quantization  the scales of 4-bit weights are packed too
    trained_layers       the last layers, which are what freeze tuning trains
    rope                 how positions are stretched when `max_length` is beyond the model's context
    beta                 how close DPO and KTO keep to the reference model; None for stages without one
    loss                 which of the stage's losses (LOSSES); None for stages that have one only
    generations          answers to each prompt, for GRPO and RLOO; a step sees micro_batch x accumulation answers. PPO has
                         none: it draws one answer to each of micro_batch x accumulation prompts
    answer_length        tokens of an answer at most, for RL, with `temperature` that they are drawn at
    rslora               LoRA's product is scaled by alpha / sqrt(rank) instead of alpha / rank
    dora                 LoRA turns each matrix, and a vector of its own scales its columns
    init                 what LoRA starts from: "default" (noise and zeros), "pissa" (the matrix's largest components)
    lora_plus            LoRA's B learns at this many times the rate of A; None: both at one rate
    neftune              noise on the embeddings while training: this over sqrt(tokens x features) at most; None: none
    virtual_tokens       of prompt and prefix tuning
    added_tokens         words that are one token each from now on; the embedding gets rows for them, which learn
    unpadded             rows of a micro-batch lie end to end, and what they begin with is computed once
    packing              rows are put together, up to `max_length` tokens; micro_batch then counts these packs
    fused_lora           LoRA's products are one step, where the weights are fp32
    """

    method: Method
    learning_rate: Annotated[float, Meta(gt=0.0, le=1.0)]
    epochs: Annotated[float, Meta(gt=0.0, le=1e6)]
    micro_batch: Positive
    accumulation: Positive
    max_length: Annotated[int, Meta(ge=8)]
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)]
    targets: Literal["all-linear", "attention"]
    precision: Precision
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit"]
    schedule: Literal["cosine", "linear", "constant"]
    warmup: Fraction  # of all optimizer steps
    weight_decay: Annotated[float, Meta(ge=0.0)]
    max_grad_norm: Annotated[float, Meta(gt=0.0)]
    gradient_checkpointing: bool
    eval_fraction: Fraction  # of the rows, held out
    stop_on_plateau: bool
    save_every: Positive  # optimizer steps
    sample_every: Positive  # optimizer steps
    seed: Annotated[int, Meta(ge=0)]
    bits: Literal[4, 8] = 4
    double_quantization: bool = True
    trained_layers: Positive = 2
    rope: Literal["none", "linear", "dynamic", "yarn", "llama3"] = "none"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    beta: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    loss: str | None = None
    generations: Annotated[int, Meta(ge=2)] | None = None
    answer_length: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(gt=0.0, le=2.0)] | None = None
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "pissa"] = "default"
    lora_plus: Annotated[float, Meta(ge=1.0, le=64.0)] | None = None
    neftune: Annotated[float, Meta(gt=0.0, le=100.0)] | None = None
    virtual_tokens: Positive = 20
    added_tokens: tuple[str, ...] = ()
    unpadded: bool = True
    packing: bool = False
    fused_lora: bool = True

    @property
    def adapts(self) -> bool:
        """Whether an adapter learns and is what the run leaves; else a whole model."""
        return self.method not in WHOLE


class Check(Struct, kw_only=True, forbid_unknown_fields=True):
    """A question and what its answer must contain (any one of `expect`, letter case ignored)."""

    ask: str
    expect: list[str]


class Checks(Struct, kw_only=True, forbid_unknown_fields=True):
    """Asked before and after training. `identity` must be learned, `general` must not be lost."""

    identity: list[Check] = field(default_factory=list)
    general: list[Check] = field(default_factory=list)


class Recipe(Struct, kw_only=True, forbid_unknown_fields=True):
    """One run, whole.

    adapter  a folder with an adapter to start from ("new run from an adapter"), or null
    reward   what the answers are worth, for RL: a word of engine.rewards
    probe    the prompt that is answered at intervals while the model trains
    then     the next stage of a chain (engine.chain): a run of its own, whose `adapter` and `reward` may name the result of
             an earlier stage, as in "stage:sft"
    """

    name: str
    stage: Stage = "sft"
    preset: str | None = None
    model: Model
    data: Data
    settings: Settings
    adapter: str | None = None
    reward: str | None = None
    probe: str = ""
    checks: Checks = field(default_factory=Checks)
    ftui: str = __version__
    then: Recipe | None = None

    @property
    def effective_batch(self) -> int:
        """Rows an optimizer step sees."""
        return self.settings.micro_batch * self.settings.accumulation


_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
SETTING_FIELDS: tuple[str, ...] = tuple(f.name for f in msgspec.structs.fields(Settings))


def slug(name: str) -> str:
    """`name` as it can stand in a folder name: letters, digits, dot, dash, underscore; never empty, never hidden."""
    cleaned = re.sub(r"[^\w.-]+", "-", name.strip(), flags=re.UNICODE).strip("-.")
    # A file name holds 255 bytes, and a letter may take four.
    return cleaned[:60].encode()[:160].decode(errors="ignore").strip("-.") or "run"


def setting(name: str, value: Any) -> Any:
    """`value` (a string from a command line or a typed value) as the type that setting `name` has; "none" is no value,
    "yes" and "no" are what they say, 2,304 is 2304. Several words stand with commas between them (as LLaMA-Factory has them).

    Raises FtuiError(RECIPE_INVALID) with the reason when it does not fit.
    """
    types = {f.name: f.type for f in msgspec.structs.fields(Settings)}
    if name not in types:
        raise FtuiError(
            Exit.RECIPE_INVALID, f"there is no setting named {name}", next_step="settings: " + ", ".join(SETTING_FIELDS)
        )
    if value == "none" and type(None) in get_args(types[name]):
        return None
    if get_origin(types[name]) is tuple and isinstance(value, str):
        value = [] if value == "none" else [word for part in value.split(",") if (word := part.strip())]
    if types[name] is bool and isinstance(value, str):
        value = {"yes": "true", "no": "false"}.get(value.lower(), value)
    elif get_origin(types[name]) is not tuple and isinstance(value, str) and _THOUSANDS.fullmatch(value):
        value = value.replace(",", "")
    try:
        return msgspec.convert(value, types[name], strict=False)
    except msgspec.ValidationError:
        raise FtuiError(Exit.RECIPE_INVALID, recipe_words.misfit(name, value, types[name])) from None


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, in the order of the fields above."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, allow_unicode=True, width=110)


def from_yaml(text: str, where: str = "recipe") -> Recipe:
    """Read a recipe. Raises FtuiError(RECIPE_INVALID) naming the field or the line."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise FtuiError(Exit.RECIPE_INVALID, recipe_words.no_yaml(error), where, "mend the YAML") from None
    try:
        return msgspec.convert(raw, Recipe)
    except RecursionError as error:
        raise FtuiError(Exit.RECIPE_INVALID, recipe_words.no_yaml(error), where, "mend the YAML") from None
    except msgspec.ValidationError as error:
        cause = recipe_words.told(error, raw, Recipe)
        raise FtuiError(Exit.RECIPE_INVALID, cause, where, "mend the field, or make it anew with `ftui plan`") from None


def load(path: Path) -> Recipe:
    """Read a recipe file."""
    try:
        return from_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise FtuiError(Exit.RECIPE_INVALID, f"cannot read the recipe: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise FtuiError(Exit.RECIPE_INVALID, "the recipe is not UTF-8 text", str(path)) from None
