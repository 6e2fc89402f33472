"""Which columns hold what: the shape of a data set, seen from its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from engine.errors import Exit, FtuiError
from engine.recipe import Data

SAMPLE = 200  # rows looked at

# Names in use for each role, the common ones first. Dolly says context and response, MetaMathQA query and response.
_INSTRUCTION = ("instruction",)
_INPUT = ("input", "context")
_PROMPT = ("prompt", "question", "query", "user", "human", "input", "source", "problem")
_ANSWER = ("output", "completion", "response", "answer", "assistant", "target", "reply", "solution")
_SYSTEM = ("system", "system_prompt")
_TEXT = ("text", "content", "line", "paragraph", "document")
_CONVERSATION = ("messages", "conversations", "conversation", "chat", "dialog")
_CHOSEN, _REJECTED = ("chosen",), ("rejected",)

COLUMN = re.compile(r"(?<!\{)\{([^{}\n]+)\}(?!\})")  # {dialogue}, but not the placeholder {{name}}


class Shape(Struct):
    """`name` is "alpaca", "sharegpt", "messages", "prompt-completion", "text" or "template".

    `columns` maps a role ("instruction", "input", "output", "system", "history", "conversation", "prompt",
    "completion", "text") to the column that plays it; for "template", "prompt" and "completion" map to the templates.
    """

    name: str
    columns: dict[str, str]
    ignored: list[str] = []


def detect(rows: Sequence[dict[str, Any]]) -> Shape:
    """The shape of some rows. Raises FtuiError(DATA_SHAPE) with the columns found and how to map them."""
    values = _columns(rows)
    names = {name.lower(): name for name in reversed(values)}
    _refuse_preferences(values, names)
    shape = _conversation(values, names) or _pairs(values, names) or _text(values, names)
    if shape is None:
        raise FtuiError(
            Exit.DATA_SHAPE,
            "no known shape has these columns: " + _listed(values),
            "",
            _mapping(values),
        )
    used = set(shape.columns.values())
    shape.ignored = [name for name in values if name not in used]
    return shape


def from_templates(rows: Sequence[dict[str, Any]], data: Data) -> Shape:
    """The shape that `data.prompt` and `data.completion` describe. Raises DATA_SHAPE for a column that is not there."""
    prompt, completion = data.prompt or "", data.completion or ""
    values = _columns(rows)
    example = _mapping(values)
    if not COLUMN.search(prompt) or not COLUMN.search(completion):
        missing = "completion" if COLUMN.search(prompt) else "prompt"
        raise FtuiError(
            Exit.DATA_SHAPE, f"the {missing} template names no column, so every row would be the same", "", example
        )
    used = {name.strip() for template in (prompt, completion) for name in COLUMN.findall(template)}
    for name in sorted(used - values.keys()):
        raise FtuiError(
            Exit.DATA_SHAPE,
            f"a template names {{{_shown(name)}}}, but the columns are: " + _listed(values),
            "",
            example,
        )
    return Shape("template", {"prompt": prompt, "completion": completion}, [n for n in values if n not in used])


def is_conversation(value: Any) -> bool:
    """True for a list of turns, in either of the two spellings in use."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ({"role", "content"} <= turn.keys() or "from" in turn) for turn in value)
    )


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each column of the first rows with a value it has (the first that is neither null nor empty)."""
    found: dict[str, Any] = {}
    for row in rows[:SAMPLE]:
        for name, value in row.items():
            if found.get(name) in (None, "", []):
                found[name] = value
    return found


def _pick(names: dict[str, str], wanted: Sequence[str]) -> str | None:
    return next((names[name] for name in wanted if name in names), None)


def _refuse_preferences(values: dict[str, Any], names: dict[str, str]) -> None:
    """Preference and KTO rows trained on as plain answers would teach the rejected ones too."""
    if _pick(names, _CHOSEN) and _pick(names, _REJECTED):
        raise FtuiError(
            Exit.DATA_SHAPE,
            "these are preferences (chosen and rejected answers): they want DPO, and that stage is not here yet",
            "",
            "for SFT, write the chosen answers as a file with the columns prompt and completion",
        )
    label = next((name for name, value in values.items() if isinstance(value, bool)), None)
    answers = _pick(names, (*_CONVERSATION, *_ANSWER))
    if label is not None and answers and label.lower() in ("label", "kto_tag", "kto_label", "desirable"):
        raise FtuiError(
            Exit.DATA_SHAPE,
            f"these answers are rated good or bad ({_shown(label)}): they want KTO, and that stage is not here yet",
            "",
            f"for SFT, write the rows whose {_shown(label)} is true as a file without that column",
        )


def _conversation(values: dict[str, Any], names: dict[str, str]) -> Shape | None:
    known = [names[name] for name in _CONVERSATION if name in names]
    for name in [*known, *(name for name in values if name not in known)]:
        value = values[name]
        if not is_conversation(value) or name.lower() in ("prompt", "completion"):
            continue
        columns = {"conversation": name}
        if (system := _pick(names, _SYSTEM)) is not None:
            columns["system"] = system
        return Shape("sharegpt" if "from" in value[0] else "messages", columns)
    return None


def _pairs(values: dict[str, Any], names: dict[str, str]) -> Shape | None:
    instruction, answer = _pick(names, _INSTRUCTION), _pick(names, _ANSWER)
    optional = {"system": _pick(names, _SYSTEM)}
    if answer is None:
        return None
    if instruction is not None:
        optional |= {"input": _pick(names, _INPUT), "history": _pick(names, ("history",))}
        columns = {"instruction": instruction, "output": answer}
        return Shape("alpaca", columns | {role: name for role, name in optional.items() if name is not None})
    prompt = _pick(names, _PROMPT)
    if prompt is None or prompt == answer:
        return None
    columns = {"prompt": prompt, "completion": answer}
    return Shape("prompt-completion", columns | {role: name for role, name in optional.items() if name is not None})


def _text(values: dict[str, Any], names: dict[str, str]) -> Shape | None:
    name = _pick(names, _TEXT)
    if name is None and len(values) == 1:
        name = next(iter(values))
    if name is None or not isinstance(values[name], str):
        return None
    return Shape("text", {"text": name})


def _mapping(values: dict[str, Any]) -> str:
    """How to say which column is what, with the columns at hand: the longest text is likely the prompt."""
    texts = sorted((name for name, v in values.items() if isinstance(v, str)), key=lambda n: -len(values[n]))
    if len(texts) < 2:
        return "rename the columns to prompt and completion"
    prompt, completion = _shown(texts[0]), _shown(texts[1])
    return f"say which is which: --prompt '{{{prompt}}}' --completion '{{{completion}}}'"


def _listed(values: dict[str, Any], most: int = 12) -> str:
    names = [_shown(name) for name in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shown(name: object) -> str:
    return str(name)[:60]
