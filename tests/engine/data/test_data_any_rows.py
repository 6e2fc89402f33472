"""Whatever JSON stands in the columns: a row becomes an example that can be shown and kept, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.data import preview, shapes, tokenizer
from engine.data.convert import Example, Unusable, converter
from engine.data.estimate import estimate
from engine.data.tokenizer import AnyTokenizer
from engine.errors import FtuiError
from engine.recipe import Source

NAMES = ["instruction", "input", "output", "prompt", "completion", "chosen", "rejected", "messages", "conversations"]
NAMES += ["label", "kto_tag", "tools", "system", "history", "text", "summary", "dialogue", "other"]
texts = st.sampled_from(
    ["", " ", "Hi", "你<|im_end|>", "\ud800", "[", '[{"role": "user", "content": "x"}]', "true", "{{name}}"]
)
texts |= st.sampled_from(
    ["\n\nHuman: a\n\nAssistant: b", '{"name": "f", "arguments": {"a": 1}}', "\U000f0000<|im_start|>"]
)
scalars = texts | st.none() | st.booleans() | st.integers(-2, 10**25) | st.floats()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
call = st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": texts, "arguments": anything})}) | anything
who = st.sampled_from(["user", "assistant", "system", "tool", "gpt", "human", "function_call", "observation", "wizard"])
turn = st.fixed_dictionaries({"role": who, "content": texts | anything}) | st.fixed_dictionaries(
    {"from": who, "value": texts}
)
turn |= st.fixed_dictionaries(
    {"role": who, "content": texts}, optional={"tool_calls": st.lists(call, max_size=2), "weight": scalars}
)
values = scalars | st.lists(turn, max_size=4) | turn | anything | st.lists(st.lists(texts, max_size=2), max_size=2)
talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
good = st.sampled_from(
    [
        {"instruction": "Hi", "input": "there", "output": "Yes", "history": [["One?", "Two."]]},
        {"prompt": "Hi", "completion": "Yes", "label": True},
        {"messages": talk, "tools": '[{"name": "f"}]'},
        {"conversations": [*talk[:1], {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'}]},
        {"chosen": talk, "rejected": [talk[0], {"role": "assistant", "content": "No"}]},
        {"prompt": "Hi", "chosen": "Yes", "rejected": "No", "system": "Be brief."},
        {"text": "Hi"},
        {"dialogue": "A", "summary": "B"},
        {"prompt": "Hi"},
    ]
)
row = st.builds(dict.__or__, good, st.dictionaries(st.sampled_from(NAMES), values, max_size=2))
row |= st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=5)
rows = st.lists(row, min_size=1, max_size=3)
corrections = st.dictionaries(
    st.sampled_from([*shapes.ROLES, "output", "x"]), st.sampled_from([*NAMES, "", "x"]), max_size=3
)
templates = st.none() | st.sampled_from(["{prompt}: {input}", "{output}", "{{name}}", "{text}\n{other}"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, corrections, templates, templates)
def test_any_row(
    tiny_model: Path, rows: list[dict[str, Any]], columns: dict[str, str], prompt: str | None, completion: str | None
) -> None:
    source = Source(source="x", columns=columns, prompt=prompt, completion=completion)
    try:
        shape = shapes.from_templates(rows, source) if prompt or completion else shapes.detect(rows, columns)
    except FtuiError as error:
        assert error.code == 13 and error.next_step
        return
    assert set(shape.columns) <= set(shapes.ROLES)
    convert = converter(shape, "Be kind.")
    made: list[AnyTokenizer] = [tokenizer.load(tiny_model), estimate()]
    for number, row in enumerate(rows, 1):
        try:
            example = convert(number, row)
        except Unusable as error:
            assert str(error)
            continue
        kept = msgspec.msgpack.encode(example)
        assert msgspec.msgpack.encode(msgspec.msgpack.decode(kept, type=Example)) == kept
        for one in made:
            for (title, pieces), (same, tokens) in zip(
                preview.sides(example, one), preview.token_sides(example, one), strict=True
            ):
                assert title == same and tokens
                assert "".join(text for text, _ in pieces).encode()
                assert any(trained for _, trained in pieces) == (shape.stage != "grpo"), shape
