"""Why a plan cannot work, and the way out: every refused combination, its message, and that the way out is one."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from engine.advice import refusals
from engine.advice.kinds import Facts
from engine.advice.plan import advise
from engine.advice.stage import NAMES
from engine.models import support
from engine.recipe import LOSSES, Stage
from tests.engine.advice.cases import GB, LLAMA, OLD_CPU, SMOL, card, facts


class Refused(NamedTuple):
    """`given` with `edits` is refused with `message` (`*` stands for what a forecast says), and not with `way` on top.

    way    None where no setting helps
    flash  the package flash-attn is installed
    """

    message: str
    given: Facts
    edits: dict[str, Any] = {}
    way: dict[str, Any] | None = None
    flash: bool = False


def like(**changes: Any) -> Any:
    """The starter model with other facts."""
    return msgspec.structs.replace(SMOL, **changes)


BIG = facts(5000, model=LLAMA, p99=2000, max=2048, hardware=card(26))
DISK = msgspec.structs.replace(card(80), disk_free=1 * GB)
FEW_PROMPTS = facts(30, stage="ppo")
GROUPED: tuple[Stage, ...] = ("grpo", "rloo")
COMPARED: tuple[tuple[Stage, str], ...] = (("dpo", "aot"), ("dpo", "aot_unpaired"), ("kto", "kto"))
STRANGE = like(
    model_type="opt",
    linears=[
        msgspec.structs.replace(one, name=f"strange_{one.name.rpartition('.')[2]}", attention=False)
        for one in SMOL.linears
    ],
)
MASKED = like(shape="masked", gaps=True)
SEQ2SEQ = like(shape="seq2seq", gaps=True)

TABLE = [
    # rows
    Refused("there is no row to train on", facts(0)),
    Refused(
        "every label of all 1,000 rows is masked: there is no answer to learn, see the preview", facts(trained_rows=0)
    ),
    Refused(
        "every label is masked: at 100 tokens all 3 rows are cut before their answer begins, take at least 101",
        facts(3, starts=[110, 100, 120]),
        {"max_length": 100},
        {"max_length": 101},
    ),
    # stages and their losses
    Refused("DPO needs a beta: 0.1 is the default", facts(stage="dpo"), {"beta": None}, {"beta": 0.1}),
    Refused("KTO needs a beta: 0.1 is the default", facts(stage="kto"), {"beta": None}, {"beta": 0.1}),
    *(
        Refused(
            f"{NAMES[stage]} has no loss named hinged: take one of {', '.join(LOSSES[stage])}",
            facts(stage=stage),
            {"loss": "hinged"},
            {"loss": LOSSES[stage][0], "micro_batch": 2},
        )
        for stage in LOSSES
    ),
    *(
        Refused(
            f"the loss {loss} compares the rows of a micro-batch with each other: take a micro_batch of 2 at least",
            facts(stage=stage),
            {"loss": loss, "micro_batch": 1},
            {"micro_batch": 2},
        )
        for stage, loss in COMPARED
    ),
    # rewards
    *(
        Refused(
            f"{name} needs generations, answer_length and temperature",
            facts(stage=stage),
            {missing: None},
            {"generations": 8, "answer_length": 256, "temperature": 1.0},
        )
        for stage, name, missing in (
            ("grpo", "GRPO", "generations"),
            ("rloo", "RLOO", "answer_length"),
            ("grpo", "GRPO", "temperature"),
        )
    ),
    Refused(
        "PPO needs answer_length and temperature", facts(stage="ppo"), {"answer_length": None}, {"answer_length": 64}
    ),
    Refused(
        "PPO draws one answer to each prompt: leave generations out, or take GRPO or RLOO",
        facts(stage="ppo"),
        {"generations": 4},
        {"generations": None},
    ),
    *(
        Refused(
            f"PPO compares with the base under its adapter, and {method} tuning changes the base: take method lora, "
            "or GRPO or RLOO",
            facts(stage="ppo"),
            {"method": method},
            {"method": "lora"},
        )
        for method in ("full", "freeze", "galore")
    ),
    *(
        Refused(
            f"PPO reads the layers themselves, where {method} tuning has nothing: take method lora, or GRPO or RLOO",
            facts(stage="ppo"),
            {"method": method},
            {"method": "lora"},
        )
        for method in ("prompt", "prefix")
    ),
    Refused(
        "a step of 12 answers cannot hold whole groups of 8: take a micro_batch and an accumulation whose product is a "
        "multiple of 8",
        facts(stage="grpo"),
        {"micro_batch": 4, "accumulation": 3, "generations": 8},
        {"accumulation": 4},
    ),
    Refused(
        "a step wants 8 prompts, and there are 3: take a smaller micro_batch",
        facts(3, stage="grpo"),
        {"micro_batch": 16, "accumulation": 4, "generations": 8},
        {"micro_batch": 2},
    ),
    Refused(
        "a round wants 32 prompts, and there are 30: take a smaller micro_batch",
        FEW_PROMPTS,
        {"micro_batch": 16, "accumulation": 2},
        {"micro_batch": 15},
    ),
    Refused(
        "prompts cannot be held out: the reward of each step shows how it goes, take an eval_fraction of 0",
        facts(stage="rloo"),
        {"eval_fraction": 0.1},
        {"eval_fraction": 0.0},
    ),
    Refused(
        "stop_on_plateau looks at the loss, which says nothing where rewards are learned from: turn it off",
        facts(stage="grpo"),
        {"stop_on_plateau": True},
        {"stop_on_plateau": False},
    ),
    Refused(
        "prompts of 8,000 tokens and answers of 256 are more than the 8,192 that the model can read: shorten either",
        facts(stage="grpo"),
        {"max_length": 8000, "answer_length": 256},
        {"answer_length": 192},
    ),
    # methods
    *(
        Refused(
            f"GaLore brings its own AdamW, which {optimizer} cannot stand in for: take optimizer adamw_torch",
            facts(),
            {"method": "galore", "optimizer": optimizer},
            {"optimizer": "adamw_torch"},
        )
        for optimizer in ("paged_adamw_8bit", "adamw_torch_fused")
    ),
    Refused(
        "the feed-forward part of opt has no name that bottleneck adapters know: take method lora",
        facts(model=STRANGE),
        {"method": "bottleneck"},
        {"method": "lora"},
    ),
    *(
        Refused(
            f"{name} is a setting of LoRA, and {method} tuning has none: leave it out, or take method lora",
            facts(),
            {"method": method, **edit},
            {"method": "lora"},
        )
        for method, name, edit in (
            ("full", "rslora", {"rslora": True}),
            ("ia3", "dora", {"dora": True}),
            ("bottleneck", "init pissa", {"init": "pissa"}),
            ("prompt", "lora_plus", {"lora_plus": 16.0}),
        )
    ),
    Refused(
        "the attention of opt has no name that is known here: take targets all-linear",
        facts(model=STRANGE),
        {"targets": "attention"},
        {"targets": "all-linear"},
    ),
    Refused(
        "init pissa takes matrices apart, and those of qlora are packed: take method lora, or init default",
        facts(),
        {"method": "qlora", "init": "pissa"},
        {"method": "lora"},
    ),
    Refused(
        "dora unpacks each matrix at each step, which fails with 8 bit: take bits 4, or leave dora out",
        facts(),
        {"method": "qlora", "bits": 8, "dora": True},
        {"bits": 4},
    ),
    Refused(
        "init pissa and dora both start from the sizes of the matrices: take one of the two",
        facts(),
        {"init": "pissa", "dora": True},
        {"dora": False},
    ),
    Refused(
        "init pissa takes the 256 largest components of each matrix, and the smallest has 192: take a rank of 192 at most, "
        "or init default",
        facts(),
        {"init": "pissa", "rank": 256},
        {"rank": 192},
    ),
    Refused(
        "the keys, values and features of opt have names that IA3 does not know: take method lora",
        facts(model=STRANGE),
        {"method": "ia3"},
        {"method": "lora"},
    ),
    Refused(
        "a reward model reads its score off the last token, which is not found behind prefix tuning's tokens: take method lora",
        facts(stage="reward"),
        {"method": "prefix"},
        {"method": "lora"},
    ),
    *(
        Refused(
            f"{stage} fills up short prompts on the left, between the tokens of prompt tuning and the text: take method lora",
            facts(stage=stage),
            {"method": "prompt"},
            {"method": "lora"},
        )
        for stage in GROUPED
    ),
    Refused(
        "prefix tuning hands each layer keys and values, which gradient checkpointing would lose: turn it off, or take method "
        "prompt",
        facts(),
        {"method": "prefix", "gradient_checkpointing": True},
        {"method": "prompt"},
    ),
    Refused(
        "8,190 tokens and 20 virtual ones are more than the 8,192 that the model can read: lower max_length or virtual_tokens",
        facts(),
        {"method": "prompt", "max_length": 8190, "rope": "none"},
        {"virtual_tokens": 2},
    ),
    Refused(
        "rloo learns from answers that the model draws, which neftune's noise would spoil: leave it out",
        facts(stage="rloo"),
        {"neftune": 5.0},
        {"neftune": None},
    ),
    Refused(
        "neftune's noise goes with the text, not with the tokens that prompt tuning learns: leave it out",
        facts(),
        {"method": "prompt", "neftune": 5.0},
        {"neftune": None},
    ),
    Refused(
        "the model has 30 layers, 31 cannot be trained: lower trained_layers, or take method full",
        facts(),
        {"method": "freeze", "trained_layers": 31},
        {"trained_layers": 30},
    ),
    # the model
    Refused(
        "sft needs a model that goes on with a text, and this one fills in masked words: take another model, or go on "
        "pre-training it on bare text (stage pretraining)",
        facts(model=MASKED),
    ),
    Refused(
        "dpo needs a model that goes on with a text, and this one is an encoder-decoder: take another model, or go on "
        "pre-training it on bare text (stage pretraining)",
        facts(model=SEQ2SEQ, stage="dpo"),
    ),
    Refused(
        "freeze does not work here with a model that is an encoder-decoder: take method lora or full",
        facts(model=SEQ2SEQ, stage="pretraining"),
        {"method": "freeze"},
        {"method": "full"},
    ),
    Refused(
        "neftune is made for tuning on answers, and this model fills in masked words: turn it off",
        facts(model=MASKED, stage="pretraining"),
        {"neftune": 5.0},
        {"neftune": None},
    ),
    Refused(
        "its tokenizer has no mask token to stand for what is left out: take the tokenizer it was pre-trained with",
        facts(model=like(shape="masked", gaps=False), stage="pretraining"),
    ),
    Refused(
        "its tokenizer has no sentinels (<extra_id_0>, …) to stand for what is left out: take the tokenizer it was "
        "pre-trained with",
        facts(model=like(shape="seq2seq", gaps=False), stage="pretraining"),
    ),
    Refused(
        "9,000 tokens are more than the 8,192 that the model can read: shorten them, or stretch its positions (rope)",
        facts(),
        {"max_length": 9000, "rope": "none"},
        {"rope": "yarn"},
    ),
    Refused(
        "llama has no rotary positions that rope linear could stretch: lower max_length",
        facts(model=like(rope=None)),
        {"max_length": 9000, "rope": "linear"},
        {"max_length": 8192},
    ),
    Refused(
        "this model's positions are stretched already (llama3), which rope yarn would undo: lower max_length",
        facts(model=like(rope="llama3")),
        {"max_length": 9000, "rope": "yarn"},
        {"max_length": 8192},
    ),
    Refused(
        "added_tokens are for models that go on with a text, and this one fills gaps: leave them out",
        facts(model=MASKED, stage="pretraining"),
        {"added_tokens": ("<a>",)},
        {"added_tokens": ()},
    ),
    Refused(
        "ia3 tuning leaves the embedding as it is, so that added_tokens would never learn: take method lora or full",
        facts(),
        {"method": "ia3", "added_tokens": ("<a>",)},
        {"method": "lora"},
    ),
    Refused(
        "freeze tuning with added_tokens leaves the rows of all other tokens as they are, which weight_decay would shrink: "
        "take weight_decay 0",
        facts(),
        {"method": "freeze", "added_tokens": ("<a>",), "weight_decay": 0.1},
        {"weight_decay": 0.0},
    ),
    Refused("the model's folder holds no tokenizer: get tokenizer.json", facts(model=like(has_tokenizer=False))),
    # packs
    *(
        Refused(
            f"packing is for SFT and pre-training, {stage} learns from rows one by one: leave it out",
            facts(stage=stage),
            {"packing": True},
            {"packing": False},
        )
        for stage in ("dpo", "kto", "reward", "grpo", "rloo", "ppo")
    ),
    *(
        Refused(
            f"packing needs rows that are computed without padding, and {why}", given, {"packing": True, **edits}, way
        )
        for why, given, edits, way in (
            (
                "this model does not go on with a text: leave packing out",
                facts(model=MASKED, stage="pretraining"),
                {},
                {"packing": False},
            ),
            (
                "layers of this model look back on a window only: leave packing out",
                facts(model=like(windowed=True)),
                {},
                {"packing": False},
            ),
            (
                "prefix tuning puts tokens of its own before each row: leave packing out, or take method lora",
                facts(),
                {"method": "prefix"},
                {"method": "lora"},
            ),
            (
                "attention eager knows no rows: leave packing out, or take attention sdpa",
                facts(),
                {"attention": "eager"},
                {"attention": "sdpa"},
            ),
            (
                "neftune's noise goes by the padded length: leave one of the two out",
                facts(),
                {"neftune": 5.0},
                {"neftune": None},
            ),
            (
                "unpadded is off: turn it on, or leave packing out",
                facts(stage="pretraining"),
                {"unpadded": False},
                {"unpadded": True},
            ),
        )
    ),
    # the machine
    Refused(
        "flash_attention_2 needs a GPU: take attention sdpa",
        facts(hardware=OLD_CPU),
        {"attention": "flash_attention_2"},
        {"attention": "sdpa"},
    ),
    Refused(
        "flash_attention_2 needs a card from Ampere on, Tesla T4 is older: take attention sdpa",
        facts(hardware=card(16, "Tesla T4", False)),
        {"attention": "flash_attention_2"},
        {"attention": "sdpa"},
    ),
    Refused(
        "flash_attention_2 needs the package flash-attn, which is not installed: take attention sdpa",
        facts(),
        {"attention": "flash_attention_2"},
        {"attention": "eager"},
    ),
    Refused(
        "fp16 training needs a GPU: take fp32", facts(hardware=OLD_CPU), {"precision": "fp16"}, {"precision": "fp32"}
    ),
    Refused(
        "Tesla T4 does not compute in bf16: take fp16 or fp32",
        facts(hardware=card(16, "Tesla T4", False)),
        {"precision": "bf16"},
        {"precision": "fp16"},
    ),
    Refused(
        "checkpoints need * GB of disk and 1.0 GB are free",
        facts(hardware=DISK),
        {"method": "full"},
        {"method": "lora"},
    ),
    Refused(
        "flash_attention_2 computes in 16 bit only: take precision bf16, or attention sdpa",
        facts(),
        {"attention": "flash_attention_2", "precision": "fp32"},
        {"precision": "bf16"},
        flash=True,
    ),
    # a length that no memory holds, however short the rows are
    Refused(
        "to read 99,999,999 tokens takes * TB, and * GB are free: shorten the length, the longest row has 256",
        facts(max=256),
        {"max_length": 99_999_999},
        {"max_length": 8192},
    ),
    # memory, with the mildest change that makes it fit
    Refused(
        "it needs * GB and * GB are free: a micro-batch of * fits",
        facts(5000, model=LLAMA, p99=200, max=256, hardware=card(40)),
        {"micro_batch": 64, "gradient_checkpointing": False},
        {"micro_batch": 1},
    ),
    Refused(
        "it needs * GB and * GB are free: gradient checkpointing fits",
        BIG,
        {"method": "lora", "micro_batch": 1, "gradient_checkpointing": False},
        {"gradient_checkpointing": True},
    ),
    Refused(
        "it needs * GB and * GB are free: gradient checkpointing with a micro-batch of 1 fits",
        BIG,
        {"method": "lora", "micro_batch": 2, "gradient_checkpointing": False},
        {"micro_batch": 1, "gradient_checkpointing": True},
    ),
    Refused(
        "it needs * GB and * GB are free: LoRA fits",
        BIG,
        {"method": "full", "micro_batch": 1, "gradient_checkpointing": True},
        {"method": "lora"},
    ),
    Refused(
        "it needs * GB and * GB are free: LoRA with gradient checkpointing fits",
        BIG,
        {"method": "full", "micro_batch": 1, "gradient_checkpointing": False},
        {"method": "lora", "gradient_checkpointing": True},
    ),
    Refused(
        "it needs * GB and * GB are free: QLoRA in 4 bit fits, row by row with gradient checkpointing",
        facts(5000, model=LLAMA, p99=200, max=256, hardware=card(12)),
        {"method": "lora"},
        {"method": "qlora", "micro_batch": 1, "gradient_checkpointing": True},
    ),
    Refused(
        "this model of 8.0 billion parameters needs * GB even in 4 bit and row by row, 4.0 GB are free: take a smaller model",
        facts(model=LLAMA, hardware=card(4)),
    ),
]


def said(given: Facts, edits: dict[str, Any], flash: bool = False) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: object() if flash else None)
        return advise(given, edits=edits).refusals


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.message[:60])
def test_refused_with_the_reason_until_the_way_out_is_taken(row: Refused) -> None:
    found = said(row.given, row.edits, row.flash)
    assert any(fnmatchcase(reason, row.message) for reason in found), found
    if row.way is not None:
        assert said(row.given, row.edits | row.way, row.flash) == []


def templates(module: ModuleType) -> Iterator[str]:
    """What `module` can say, as regular expressions: every text that it yields or returns, anything for what it fills in."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Yield | ast.Return):
            yield from _texts(node.value)


def _texts(value: ast.expr | None) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.JoinedStr(values=parts):
            yield "".join(next(_texts(part), ".*") for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)


@pytest.mark.parametrize("module", [refusals, support])
def test_every_refusal_of_the_source_has_its_row(module: ModuleType) -> None:
    found = [reason for row in TABLE for reason in said(row.given, row.edits, row.flash)]
    patterns = list(templates(module))
    assert len(patterns) > 8
    assert [one for one in patterns if not any(re.fullmatch(f"(.*: )?{one}", reason) for reason in found)] == []


@pytest.mark.parametrize(
    ("given", "edits"),
    [
        (facts(1), {}),
        (facts(), {"packing": True, "method": "qlora"}),
        (facts(stage="pretraining"), {"unpadded": False}),
        (facts(trained_rows=1), {}),
        (facts(), {"max_length": 16_384}),  # beyond the context, and there is memory to read it
        (facts(hardware=DISK), {}),
        (facts(), {"method": "lora", "trained_layers": 31}),
        (facts(model=STRANGE), {"method": "galore"}),
        *((facts(stage="dpo"), {"loss": loss, "micro_batch": 2}) for loss in LOSSES["dpo"]),
        *((facts(stage="ppo"), {"method": method}) for method in ("lora", "qlora", "ia3", "bottleneck")),
        *((facts(model=MASKED, stage="pretraining"), {"method": method}) for method in ("lora", "full", "freeze")),
        *((facts(model=SEQ2SEQ, stage="pretraining"), {"method": method}) for method in ("lora", "full")),
    ],
)
def test_what_is_next_to_a_refusal_and_works(given: Facts, edits: dict[str, Any]) -> None:
    assert said(given, edits) == []


def test_masked_labels_do_not_matter_where_answers_are_drawn() -> None:
    assert said(facts(trained_rows=0, stage="grpo"), {}) == []


def test_the_advice_itself_is_not_refused_for_ppo() -> None:
    """Elsewhere all weights would learn of a complex task; PPO needs the base under an adapter."""
    given = facts(9000, stage="ppo", complex_task=True)
    assert advise(given).settings.method == "lora" and not said(given, {})
