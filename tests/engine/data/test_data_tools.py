"""Tools, their calls and their results as transformers gives them to a template, for templates of each kind in use."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.data import shapes, tokenizer
from engine.data.chat_template import ChatTemplate
from engine.data.convert import Example, Message, converter
from engine.data.estimate import estimate
from engine.data.tokenizer import Tokenizer
from engine.errors import Exit, FtuiError

# As Qwen's: tools in the system turn, calls and results in tags of their own, results in a turn of the user.
QWEN = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- '<tools>' }}
    {%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {%- set call = call.function if call.function is defined else call %}
            {{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}{{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
# As Llama 3.1's: tools in the first question, one call a turn, a key that is looked for, results as JSON, the date.
LLAMA = r"""
{{- bos_token }}
{%- set date = strftime_now('%Y') %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '[system] ' + date + ' ' + system + '<|im_end|>' }}
{%- if tools is not none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception('no question to put the tools into') }}{%- endif %}
    {{- '[user] ' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}
    {{- first + '<|im_end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '[' + message['role'] + '] ' + message['content'] | trim + '<|im_end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception('only single calls') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '[assistant] {"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|im_end|>' }}
    {%- else %}
        {{- '[ipython] ' }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- '<|im_end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[assistant] ' }}{%- endif %}
"""
# As Mistral's: tools before the last question, ids of nine characters, turns that must alternate.
MISTRAL = r"""
{%- set questions = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(index=0) %}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message.role == 'user') != (ns.index % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and message == questions[-1] %}
            {{- '[AVAILABLE_TOOLS][' }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.items() if key != 'return' %}
                    {{- '"' + key + '": ' + (value | tojson if value is not string else '"' + value + '"') }}
                    {%- if not loop.last %}{{- ', ' }}{%- endif %}
                {%- endfor %}
                {{- '}}' + ('' if loop.last else ', ') }}
            {%- endfor %}
            {{- '][/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- '[TOOL_CALLS][' }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function | tojson %}{{- out[:-1] }}
            {%- if not call.id is defined or call.id | length != 9 %}{{- raise_exception('ids of length 9!') }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' + ('' if loop.last else ', ') }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}{{- message.content | trim + eos_token }}
    {%- elif message.role == 'tool' %}
        {%- if not message.tool_call_id is defined or message.tool_call_id | length != 9 %}
            {{- raise_exception('ids of length 9!') }}
        {%- endif %}
        {{- '[TOOL_RESULTS]{"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id + '"}' }}
        {{- '[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""
# As DeepSeek's: arguments are joined as text, and a call is a turn whose content is none.
DEEPSEEK = r"""
{%- for message in messages %}
    {%- if message['role'] == 'assistant' and message['content'] is none %}
        {%- for call in message['tool_calls'] %}
            {{- '<call>' + call['function']['name'] + '\n' + call['function']['arguments'] + '</call>' }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message['role'] == 'assistant' %}{{- '<A>' + message['content'] + eos_token }}
    {%- else %}{{- '<' + message['role'] + '>' + message['content'] }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<A>' if messages[-1]['role'] != 'user' or not tools else '' }}{%- endif %}
"""
TEMPLATES = {"chatml": None, "qwen": QWEN, "llama": LLAMA, "mistral": MISTRAL}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tells the {name} — “now”",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("weather", "time")
]


def call(name: str, number: int, **arguments: Any) -> dict[str, Any]:
    return {"id": f"abc00000{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


PLAIN = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": " Köln? "},
    {"role": "assistant", "content": "A city."},
]
CALLING = [
    {"role": "user", "content": "How is Köln?"},
    {"role": "assistant", "content": "", "tool_calls": [call("weather", 1, city="Köln", days=[1, 2])]},
    {"role": "tool", "name": "weather", "tool_call_id": "abc000001", "content": '{"rain": true}'},
    {"role": "assistant", "content": "Wet."},
    {"role": "user", "content": "And the time?"},
    {"role": "assistant", "content": "", "tool_calls": [call("time", 2, city="Köln")]},
    {"role": "tool", "name": "time", "tool_call_id": "abc000002", "content": "12"},
    {"role": "assistant", "content": "Noon."},
]
BOTH = [
    {"role": "user", "content": "Both?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("weather", 1, city="Köln"), call("time", 2)]},
    {"role": "tool", "name": "weather", "tool_call_id": "abc000001", "content": "wet"},
    {"role": "tool", "name": "time", "tool_call_id": "abc000002", "content": "12"},
    {"role": "assistant", "content": "Wet, noon."},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    folder = folder / "model"
    shutil.copytree(model, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def read(messages: list[dict[str, Any]], tools: Any = None) -> Example:
    """The row as OpenAI writes it, with the arguments of calls as text."""
    plain = json.loads(json.dumps(messages))
    for message in plain:
        for one in message.get("tool_calls", ()):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    row = {"messages": plain} | ({"tools": tools} if tools else {})
    return converter(shapes.detect([row]), None)(1, row)


def trained(made: Tokenizer, one: Example) -> list[str]:
    rendered = made.render(one)
    return [rendered.text[start:stop] for start, stop in rendered.trained]


@pytest.mark.parametrize(
    ("kind", "messages", "tools"),
    [
        *((kind, PLAIN, None) for kind in TEMPLATES),
        ("chatml", [SYSTEM, *PLAIN], None),
        ("qwen", [SYSTEM, *PLAIN], TOOLS),
        ("llama", [SYSTEM, *PLAIN], None),
        ("mistral", PLAIN, TOOLS),
        *((kind, CALLING, TOOLS) for kind in ("qwen", "llama", "mistral")),
        *((kind, CALLING, None) for kind in ("qwen", "llama", "mistral")),
        ("qwen", [SYSTEM, *BOTH], TOOLS),
        ("mistral", BOTH, TOOLS),
    ],
)
def test_text_and_ids_are_those_of_transformers(
    tiny_model: Path, tmp_path: Path, kind: str, messages: list[dict[str, Any]], tools: Any
) -> None:
    from transformers import AutoTokenizer

    folder = with_template(tiny_model, tmp_path, TEMPLATES[kind])
    made, theirs = tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
    example = read(messages, tools)
    assert made.render(example).text == expected
    ids = theirs.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
    assert made.tokenize(example).input_ids == list(ids)
    asked = theirs.apply_chat_template(messages[:-1], tools=tools, add_generation_prompt=True, return_dict=False)
    assert made.prompt((example.messages or [])[:-1], example.tools) == list(asked)
    assert made.render(example).tools_unseen is False


def test_calls_are_trained_and_results_are_not(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, QWEN))
    assert trained(made, read(CALLING, TOOLS)) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}\n</tool_call><|im_end|>\n',
        "Wet.<|im_end|>\n",
        '<tool_call>\n{"name": "time", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n',
        "Noon.<|im_end|>\n",
    ]
    assert trained(made, read(BOTH[:2], TOOLS)) == [
        'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
        '\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call><|im_end|>\n'
    ]


def test_a_template_that_moves_the_tools_trains_the_last_answer(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, MISTRAL))
    assert trained(made, read(CALLING, TOOLS)) == ["Noon.<|im_end|>"] and made.render(read(CALLING, TOOLS)).rewritten
    assert len(trained(made, read(CALLING))) == 4


def test_a_template_that_knows_no_calls_gets_them_as_text(tiny_model: Path) -> None:
    made = tokenizer.load(tiny_model)
    rendered = made.render(read(CALLING, TOOLS))
    assert rendered.tools_unseen and "Tells the" not in rendered.text
    assert trained(made, read(CALLING, TOOLS))[0] == (
        '{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}<|im_end|>\n'
    )
    assert trained(made, read(BOTH, TOOLS))[0] == (
        'I look.\n[{"name": "weather", "arguments": {"city": "Köln"}}, {"name": "time", "arguments": {}}]<|im_end|>\n'
    )
    assert not made.render(read(CALLING)).tools_unseen, "there are none to see"


def test_without_a_template_and_before_a_model_is_picked_calls_are_text_too(tiny_model: Path, tmp_path: Path) -> None:
    folder = with_template(tiny_model, tmp_path, None)
    (folder / "chat_template.jinja").unlink()
    call = '{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}'
    assert trained(tokenizer.load(folder), read(CALLING, TOOLS))[0] == call + "<|im_end|>"
    assert tokenizer.load(folder).render(read(CALLING, TOOLS)).tools_unseen
    rendered = estimate().render(read(CALLING, TOOLS))
    assert next(rendered.text[a:b] for a, b in rendered.trained) == call + "<|im_end|>\n"
    assert "Tells the weather" in rendered.text


def test_arguments_as_text_where_a_template_joins_them(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, DEEPSEEK))
    rendered = made.render(read(CALLING, TOOLS))
    assert '<call>weather\n{"city": "Köln", "days": [1, 2]}</call><|im_end|><tool>{"rain": true}' in rendered.text
    assert rendered.tools_unseen


def test_calls_without_ids_get_those_that_a_template_demands(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, MISTRAL))
    messages = json.loads(json.dumps(BOTH))
    for message in messages:
        message.pop("tool_call_id", None)
        for one in message.get("tool_calls", ()):
            del one["id"]
    text = made.render(read(messages, TOOLS)).text
    assert '"id": "call00001"}, {"name": "time"' in text
    assert '{"content": wet, "call_id": "call00001"}' in text and '{"content": 12, "call_id": "call00002"}' in text
    # So do calls with the long ids that OpenAI gives.
    messages = json.loads(json.dumps(BOTH).replace("abc00000", "call_8Yf0cS7m2QeKpXw4"))
    assert made.render(read(messages, TOOLS)).text == text


def test_a_call_that_a_template_refuses_names_the_row(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, LLAMA))
    with pytest.raises(FtuiError) as caught:
        made.render(read(BOTH, TOOLS))
    assert caught.value.code == Exit.MODEL_UNSUPPORTED
    assert "only single calls" in caught.value.cause and "row 1" in caught.value.where


def test_control_tokens_in_tools_and_calls_are_characters(tiny_model: Path, tmp_path: Path) -> None:
    made = tokenizer.load(with_template(tiny_model, tmp_path, QWEN))
    honest = made.tokenize(read(CALLING[:4], TOOLS)).input_ids
    forged = json.loads(json.dumps(CALLING[:4]).replace("K\\u00f6ln", "<|im_end|>").replace("rain", "<|im_start|>"))
    tools = json.loads(json.dumps(TOOLS).replace("Tells", "<|im_end|>"))
    example = read(forged, tools)
    ids = made.tokenize(example).input_ids
    for token in (1, 2):
        assert ids.count(token) == honest.count(token)
    rendered = made.render(example)
    assert '"description": "<|im_end|> the weather' in rendered.text and '{"city": "<|im_end|>"' in rendered.text
    assert len(rendered.literal) == 5
    assert made.measure([rendered])[0].total == len(ids)


def test_sharegpt_calls_and_observations(tiny_model: Path, tmp_path: Path) -> None:
    said = [
        ("human", "How is Köln?"),
        ("function_call", '{"name": "weather", "arguments": {"city": "Köln"}}'),
        ("observation", "wet"),
        ("gpt", "Wet."),
    ]
    row = {"conversations": [{"from": who, "value": text} for who, text in said], "tools": json.dumps(TOOLS)}
    example = converter(shapes.detect([row]), None)(1, row)
    made = tokenizer.load(with_template(tiny_model, tmp_path, QWEN))
    assert trained(made, example) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n',
        "Wet.<|im_end|>\n",
    ]
    assert "<tool_response>\nwet\n</tool_response>" in made.render(example).text
    assert example.tools == TOOLS


def test_answers_of_weight_0_are_shown_and_not_trained(tiny_model: Path) -> None:
    messages = [Message("user", "a"), Message("assistant", "b", trained=False), Message("user", "c")]
    example = Example(1, [*messages, Message("assistant", "d"), Message("user", "e")], None)
    for made in (tokenizer.load(tiny_model), estimate()):
        rendered = made.render(example)
        assert [rendered.text[a:b] for a, b in rendered.trained] == ["d<|im_end|>\n"]
        assert "b<|im_end|>" in rendered.text and not rendered.text.endswith("e<|im_end|>\n")


def test_templates_in_use_write_calls_as_transformers_has_them(tiny_model: Path) -> None:
    """All that TRL ships: where a template knows calls, or there are none, nothing differs but what is refused."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tiny_model)
    tokens = {name: str(value) for name, value in theirs.special_tokens_map.items()}
    folder = Path((importlib.util.find_spec("trl") or pytest.skip("no TRL")).submodule_search_locations[0])
    with_calls = set()
    for file in sorted((folder / "chat_templates").glob("*.jinja")):
        source = file.read_text()
        made = ChatTemplate(source, tokens)
        for messages, tools in ((PLAIN, None), ([SYSTEM, *PLAIN], TOOLS), (CALLING, TOOLS), (BOTH, None)):
            calls = any("tool_calls" in message for message in messages)
            example = read(messages, tools)
            try:
                expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False, chat_template=source)
            except Exception:  # whatever a template raises
                continue
            # A template that takes a call only without a text or with arguments as text is not what rows are like.
            if calls and made._calls != ("", False, False):
                continue
            assert made.render(example.messages or [], tools=example.tools) == expected, file.name
            with_calls |= {file.stem} if calls else set()
    assert {"llama3_1", "qwen2_5", "qwen3", "gptoss", "glm4moe"} <= with_calls
