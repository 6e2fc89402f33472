"""The jinja environment of chat templates: transformers' own, with an end to whatever a stranger's template does.

Jinja's sandbox keeps a template from reaching out. It does not keep it from looping for ever or from building text
until the memory is gone; the limits here do. They count, in one rendering, turns of loops and calls, characters made,
and processor time. What multiplies (a width, a power, a repetition) is weighed before it is done.
"""

from __future__ import annotations

import functools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, utils
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS = 2_000_000  # turns of loops and calls of one rendering; a thousand turns compared with each other are a million
VALUE = 2**26  # characters in one value; the longest row is half of that (encoding.MAX_LINE)
TOTAL = 2**29  # characters made in one rendering
SECONDS = 5.0  # of processor time; a usual row takes a thousandth of one

_BITS = 100_000  # of a whole number
_FEW = 64  # steps between two looks at the clock
_ITEM = 64  # characters that an item of a list is as heavy as
_WIDENING = {
    "batch",
    "center",
    "expandtabs",
    "indent",
    "ljust",
    "rjust",
    "round",
    "slice",
    "to_bytes",
    "tojson",
    "zfill",
}
_WIDTH = re.compile(r"\d{6}|\*|\{[^{}]*:[^{}]*\{")  # in a format: a width that is large, or given from outside
_MUCH_TEXT = "it builds far more text than a row has"
_LONG_NUMBER = "it works with a number that is far too long"


class TooMuch(SecurityError):
    """A template went over a limit."""


class _Budget(threading.local):
    """What is left to the rendering in this thread."""

    steps = STEPS
    characters = TOTAL
    look = STEPS  # at the clock when so many steps are left
    until = float("inf")

    def start(self) -> None:
        self.steps, self.characters, self.look = STEPS, TOTAL, STEPS
        self.until = time.thread_time() + SECONDS

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < self.look:
            self.look = self.steps - _FEW
            if self.steps < 0 or time.thread_time() > self.until:
                raise TooMuch("it runs on and on")

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if characters > VALUE or self.characters < 0:
            raise TooMuch(_MUCH_TEXT)


class _Code(CodeGenerator):
    """Generated code that tells the environment of loops, of sums, of joined texts, of lists and of dictionaries."""

    def visit_For(self, node: nodes.For, frame: Any) -> None:
        node.iter = nodes.Call(nodes.EnvironmentAttribute("each"), [node.iter], [], None, None)
        super().visit_For(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Any, forward_caller: bool = False) -> None:
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self._told(node.node.name, node.args, frame)
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Add(self, node: nodes.BinExpr, frame: Any) -> None:
        parts: list[nodes.Expr] = [node.right]
        left = node.left
        while isinstance(left, nodes.Add):
            parts.append(left.right)
            left = left.left
        self._told("plus", [left, *reversed(parts)], frame)

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self._told("tilde", node.nodes, frame)

    def _told(self, name: str, parts: list[nodes.Expr], frame: Any) -> None:
        self.write(f"environment.{name}(")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _made(self, write: Callable[[Any, Any], None], node: nodes.Node, frame: Any) -> None:
        self.write("environment.made(")
        write(node, frame)
        self.write(")")


class Environment(ImmutableSandboxedEnvironment):
    """Call `start` before each rendering. Raises TooMuch, beside what jinja raises."""

    code_generator_class = _Code
    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.budget = _Budget()
        del self.globals["lipsum"]  # writes as much as it is asked for
        self.filters["tojson"] = _tojson
        self.filters = {name: self._watched(name, run) for name, run in self.filters.items()}
        self.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, dict=_TemplateDict(), namespace=_TemplateNamespace
        )

    def start(self) -> None:
        """A full budget for what is done next in this thread."""
        self.budget.start()

    def each(self, values: Any) -> Iterable[Any]:
        """The values of a loop, each of them a step."""
        if isinstance(values, list | tuple | dict) and len(values) <= _FEW:
            self.budget.step(len(values))
            return values
        return self._each(values)

    def _each(self, values: Any) -> Iterator[Any]:
        for value in values:
            self.budget.step()
            yield value

    def made(self, value: Any) -> Any:
        """`value`, its size taken off the budget. Generators are counted when they are gone through."""
        if isinstance(value, str):
            self.budget.spend(len(value))
        elif isinstance(value, list | tuple | dict):
            self.budget.spend(_weight(value))
        elif isinstance(value, int) and value.bit_length() > _BITS:
            raise TooMuch(_LONG_NUMBER)
        return value

    def plus(self, value: Any, *more: Any) -> Any:
        for one in more:
            value = value + one
        return self.made(value)

    def tilde(self, *parts: Any) -> str:
        return self.concat(map(str, parts))

    def concat(self, pieces: Iterable[str]) -> str:  # type: ignore[override]
        """The pieces of a rendering, a block or a macro as one text."""
        found = list(pieces)
        self.budget.spend(sum(map(len, found)))
        return "".join(found)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.budget.step()
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            if method.__name__ == "join" and args:
                args = (list(args[0]), *args[1:])
            _foresee(method.__name__, owner, (*args, *kwargs.values()))
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            number, other = (right, left) if isinstance(right, int) else (left, right)
            if isinstance(number, int) and isinstance(other, str | bytes | list | tuple):
                _check(_weight(other) * number)
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _BITS:
                raise TooMuch(_LONG_NUMBER)
        elif operator == "%" and isinstance(left, str):
            _foresee("format", left, (right,))
        return self.made(super().call_binop(context, operator, left, right))

    def _watched(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is weighed before and after."""
        at = 1 if hasattr(run, "jinja_pass_arg") else 0
        grows = name in _WIDENING or name in ("format", "replace")

        @functools.wraps(run)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.budget.step()
            if name == "join":
                args = (*args[:at], list(args[at]), *args[at + 1 :])
                between = kwargs.get("d", args[at + 1] if len(args) > at + 1 else "")
                _foresee("join", between, (args[at],))
            elif grows:
                _foresee(name, args[at], (*args[at + 1 :], *kwargs.values()))
            elif name == "sum" and any(isinstance(one, list | tuple) for one in (*args[at + 1 :], *kwargs.values())):
                raise TooMuch("it adds lists up")
            return self.made(run(*args, **kwargs))

        return watched


def _foresee(name: str, value: Any, more: tuple[Any, ...]) -> None:
    """Raises TooMuch before a method or filter makes of `value` what it must not."""
    if name in _WIDENING:
        numbers = [abs(number) for number in more if isinstance(number, int) and number]
        _check(math.prod(numbers) * (1 + _weight(value)))
    elif name == "replace" and len(more) > 1 and isinstance(more[0], str) and isinstance(more[1], str):
        _check(str(value).count(more[0]) * len(more[1]))
    elif name == "join" and more and isinstance(more[0], list | tuple | str):
        _check(len(more[0]) * len(str(value)))
    elif name == "translate":
        _check(_weight(value) * _weight(more))
    elif name in ("format", "format_map") and isinstance(value, str):
        _check((value.count("%") + value.count("{")) * _weight(more))
        if _WIDTH.search(value):
            raise TooMuch("it formats text to a width that no line has")


def _check(size: int) -> None:
    if size > VALUE:
        raise TooMuch(_MUCH_TEXT)


def _weight(value: Any) -> int:
    """About how many characters a value has when it is written out; no more than a little over VALUE is counted."""
    found, left = 0, [value]
    while left and found <= VALUE:
        one = left.pop()
        if isinstance(one, str | bytes):
            found += len(one)
        elif isinstance(one, dict):
            found += _ITEM * len(one) + 1
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            found += _ITEM * len(one) + 1
            if found <= VALUE:
                left += one
        else:
            found += 1
    return found


class _Generation(Extension):
    """{% generation %} marks what the model writes; here the text inside is passed through."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


class _TemplateDict:
    """dict() and dict.fromkeys() without the type itself, whose attributes lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _TemplateNamespace(utils.Namespace):
    """A namespace that takes no names with a leading underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")
