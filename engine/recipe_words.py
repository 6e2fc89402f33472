"""What is wrong with a value or with a YAML file, in words that say what would be right."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import yaml

_STEPS = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `([^`]*)`")
_TOKEN = re.compile(r"'?<([a-z ]+)>'?")  # what YAML's parser calls the parts of a document
_TOKENS = {"stream end": "the end of the file", "block end": "the end of the block", "scalar": "a value"}
_SHOWN = 60  # characters of a wrong value
_PLAIN = {float: "a number", int: "a whole number", bool: "yes or no", str: "text"}


def takes(kind: Any) -> str:
    """What a field of this type takes: "a number above 0 and up to 1", "4 or 8", "a whole number from 1 on"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join(filter(None, (takes(inner[0]), _limits(inner[1]))))
    if origin in (Union, types.UnionType):
        return f"{takes(next(one for one in inner if one is not type(None)))}, or none"
    if origin is Literal:
        return either(list(map(str, inner)))
    return _PLAIN.get(kind) or ("a list" if origin in (list, tuple) else "fields and their values")


def either(words: Sequence[str]) -> str:
    """ "cosine, linear or constant"."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _limits(meta: msgspec.Meta) -> str:
    """ "above 0 and up to 1", "from 0 to 0.5", "from 1 on"."""
    least, most = meta.ge if meta.ge is not None else meta.gt, meta.le if meta.le is not None else meta.lt
    high = "" if most is None else f"{'up to' if meta.le is not None else 'below'} {most:,.15g}"
    if meta.gt is not None:
        return " and ".join(filter(None, (f"above {least:,.15g}", high)))
    return f"from {least:,.15g} {'and ' if meta.le is None and high else ''}{high.removeprefix('up ') or 'on'}"


def misfit(name: str, value: object, kind: Any) -> str:
    """Why `value` cannot stand in the field `name`, and what can."""
    return f"{name} cannot be {str(value)[:_SHOWN] or 'empty'}: this takes {takes(kind)}"


def told(error: msgspec.ValidationError, raw: object, kind: type[msgspec.Struct]) -> str:
    """What keeps `raw` from being a `kind`: the field, what stands there, and what it takes."""
    cause, _, path = str(error).partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    if field := _FIELD.search(cause):
        inside = f" in {name}" if name else ""
        return f"there is no field {field[2]}{inside}" if "unknown" in field[1] else f"{field[2]} is missing{inside}"
    wanted: Any = kind
    for step, index in _STEPS.findall(path):
        wanted = (
            next((one for one in get_args(wanted) if isinstance(one, type)), wanted) if _optional(wanted) else wanted
        )
        if step:
            wanted = next(one.type for one in msgspec.structs.fields(wanted) if one.name == step)
            raw = raw.get(step) if isinstance(raw, dict) else None
        else:
            wanted = [one for one in get_args(wanted) if one is not ...][-1]
            raw = raw[int(index)] if isinstance(raw, list) and index.isdecimal() else "that"
    return misfit(name or "it", "none" if raw is None else raw, wanted)


def _optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def no_yaml(error: Exception) -> str:
    """What is wrong in which line, of what PyYAML raised: "line 3, column 7 is no YAML: expected ',' or ']'"."""
    if isinstance(error, RecursionError):  # YAML can hold itself
        return "this is no YAML that can be read: it holds itself, or is nested too deeply"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"this is no YAML: {getattr(error, 'reason', None) or error}"
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "this"
    problem = (error.problem or error.context or "it cannot be read").replace("the node content", "a value")
    return f"{place} is no YAML: {_TOKEN.sub(lambda found: _TOKENS.get(found[1], found[1]), problem)}"
