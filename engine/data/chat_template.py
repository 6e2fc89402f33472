"""A model's own chat template, rendered as transformers renders it but without transformers.

Templates come with models from strangers: they run in jinja's immutable sandbox, see plain data only, and every way
in which they fail is one FtuiError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.data.convert import Message
from engine.errors import Exit, FtuiError


class ChatTemplate:
    """A compiled template.

    tokens  special tokens by name ("bos_token": "<s>"), which templates write out
    Raises FtuiError(MODEL_UNSUPPORTED) if the template does not compile.
    """

    def __init__(self, source: str, tokens: dict[str, str], where: str = "") -> None:
        self._where = where
        self._tokens = tokens
        try:
            self._template = _environment().from_string(source)
        except Exception as error:  # a stranger's code: whatever it raises is one kind of failure here
            raise self._error("the model's chat template does not compile", error) from None

    def render(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        """The conversation as text; with `generate`, up to where the model's answer begins.

        Raises FtuiError(MODEL_UNSUPPORTED) when the template refuses the conversation or fails.
        """
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=plain, tools=None, documents=None, add_generation_prompt=generate, **self._tokens
            )
        except Exception as error:  # as above
            raise self._error("the model's chat template refuses a conversation", error) from None

    def _error(self, cause: str, error: BaseException) -> FtuiError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return FtuiError(
            Exit.MODEL_UNSUPPORTED, f"{cause}: {reason}", self._where, "mend the rows it names, or choose another model"
        )


def find(folder: Path, config: dict[str, Any]) -> str | None:
    """The text of the template that transformers would use: chat_template.jinja, else the tokenizer's configuration.

    A list of named templates gives the one named "default". None if the model has no template.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FtuiError(Exit.MODEL_UNSUPPORTED, "the chat template cannot be read", f"{file}: {error}") from None
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template if isinstance(t, dict) and {"name", "template"} <= t.keys()}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _environment() -> Any:
    """The environment of transformers 5.23 (utils/chat_template_utils.py): same options, filters and globals."""
    import jinja2.ext
    from jinja2 import nodes, utils
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks what the model writes; here the text inside is passed through."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format: str) -> str:
        return datetime.now().strftime(format)

    class TemplateDict:
        """dict() and dict.fromkeys() without the type itself, whose attributes lead out of the sandbox."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    class TemplateNamespace(utils.Namespace):
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
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=strftime_now,
        dict=TemplateDict(),
        namespace=TemplateNamespace,
    )
    return environment
