"""Which columns hold what: the shape of a data set, seen from its rows and from what a person says about them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.data import likely
from engine.data.turns import Turns, loaded, transcript
from engine.errors import Exit, FtuiError
from engine.recipe import Source, Stage

SAMPLE = 200  # rows looked at

# What a column can be, for `columns` corrections.
ROLES: dict[str, str] = {
    "prompt": "the question or instruction, as text or as turns",
    "input": "what the prompt is about, written on the line after it",
    "completion": "the answer, as text or as turns",
    "system": "the system prompt of the row",
    "history": "earlier turns, as a list of [question, answer]",
    "conversation": "a list of turns, each with who says it and what",
    "chosen": "the better one of two answers",
    "rejected": "the worse one of two answers",
    "label": "true for a good answer, false for a bad one",
    "tools": "what the tools are that the model may call, as JSON",
    "text": "plain text, for continued pre-training",
}
# The same by the names that alpaca rows and LLaMA-Factory's registry give them.
_ALIASES = {
    "instruction": "prompt",
    "query": "input",
    "output": "completion",
    "response": "completion",
    "messages": "conversation",
    "kto_tag": "label",
}

# Names of columns for each role, the common ones first. Dolly says context and response, MetaMathQA query and response.
_INSTRUCTION = ("instruction",)
_INPUT = ("input", "context")
_PROMPT = ("prompt", "question", "query", "user", "human", "input", "source", "problem")
_PROMPT_ALONE = ("prompt", "instruction", "question", "query", "problem")
_ANSWER = ("output", "completion", "response", "answer", "assistant", "target", "reply", "solution")
_SYSTEM = ("system", "system_prompt")
_TEXT = ("text", "content", "line", "paragraph", "document")
_CONVERSATION = ("messages", "conversations", "conversation", "chat", "dialog")
_LABEL = ("kto_tag", "kto_label", "desirable", "label")
_TOOLS = ("tools", "functions")
# Summaries say neither prompt nor completion: DialogSum and SAMSum, CNN/DailyMail, XSum, BillSum.
_SUMMARY, _SUMMARISED = ("summary", "highlights"), ("dialogue", "article", "document", "text")

COLUMN = re.compile(r"(?<!\{)\{([^{}\n]+)\}(?!\})")  # {dialogue}, but not the placeholder {{name}}


class Shape(Struct):
    """What the columns are.

    name     "alpaca", "sharegpt", "messages", "prompt-completion", "preference", "rated", "prompt" (without answers),
             "text" or "template"
    columns  role (one of ROLES) -> column; for "template", prompt and completion are templates over columns
    ignored  columns that play no role
    stage    what such rows can train
    tags     LLaMA-Factory's names for the keys and speakers of turns: role_tag, content_tag, user_tag, …
    notes    what a person should know about the reading, in sentences
    """

    name: str
    columns: dict[str, str]
    ignored: list[str] = []
    stage: Stage = "sft"
    tags: dict[str, str] = {}
    notes: list[str] = []


def detect(
    rows: Sequence[dict[str, Any]], columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
) -> Shape:
    """The shape of some rows.

    columns  role -> column where a person knows better, "" for a role that no column plays
    Raises FtuiError(DATA_SHAPE) for columns that match nothing and for a correction that names no role or no column.
    """
    return _Finder(rows, columns or {}, tags or {}, {}).shape()


def from_templates(
    rows: Sequence[dict[str, Any]],
    data: Source,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Shape:
    """The shape that `data.prompt` and `data.completion` describe; what they leave open is found as `detect` finds it.

    With a template for the prompt alone, the answers are columns: a completion, or chosen and rejected.
    Raises DATA_SHAPE as `detect`, and for a template that names no column or one that is not there.
    """
    templates = {"prompt": data.prompt, "completion": data.completion}
    given = {role: template for role, template in templates.items() if template is not None}
    return _Finder(rows, data.columns if columns is None else columns, tags or {}, given).shape()


class _Finder:
    """What a person says comes first, then what the columns are called and what is in them."""

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        columns: Mapping[str, str],
        tags: Mapping[str, str],
        templates: dict[str, str],
    ) -> None:
        self.rows = rows[:SAMPLE]
        self.values = _columns(self.rows)
        self.tags = dict(tags)
        self.turns = Turns(tags)
        self.templates = templates
        self.given = self._corrections(columns)
        used = self._templated() | set(self.given.values())
        self.names = {name.lower(): name for name in reversed(self.values) if name not in used}
        # The roles that a person fills: they decide what kind of data this is.
        self.asked = {role for role, name in self.given.items() if name} | templates.keys()
        self.notes: list[str] = []

    def shape(self) -> Shape:
        roles = self._roles()
        if roles is None:
            raise self._unknown()
        if left := sorted(self.asked - roles.keys()):
            raise self._error(f"{left[0]} has no place beside {', '.join(roles)}")
        stage = self._stage(roles)
        name = self._name(roles, stage)
        if self.templates:
            plain = {"prompt", "completion"} & roles.keys() - self.templates.keys()
            roles |= {role: f"{{{roles[role]}}}" for role in plain}
        used = {column for value in roles.values() for column in (value, *_named(value))}
        return Shape(
            name, roles, [column for column in self.values if column not in used], stage, self.tags, self.notes
        )

    def _roles(self) -> dict[str, str] | None:
        """Role -> column or template, of the first kind of data that the columns can be."""
        if "text" in self.asked:
            return {"text": self.given["text"]}
        if "completion" not in self.asked and (preference := self._preference()):
            return preference
        if conversation := self._conversation():
            return {"conversation": conversation} | self._optional(rated=True)
        if pair := self._pair():
            return pair | self._optional(rated=True)
        if not self.asked and (text := self._pick("text", _TEXT, _is_text)):
            return {"text": text}
        if (prompt := self._prompt(_PROMPT_ALONE)) and not self._wants_answer():
            return prompt | self._optional()
        if len(self.values) == 1 and not self.given and all(map(_is_text, self.values.values())):
            return {"text": next(iter(self.values))}
        return None

    def _preference(self) -> dict[str, str] | None:
        chosen, rejected = self._pick("chosen", ("chosen",)), self._pick("rejected", ("rejected",))
        if not chosen or not rejected:
            if self.asked & {"chosen", "rejected"}:
                raise self._error("chosen and rejected go together, and only one of them has a column")
            return None
        found = {"chosen": chosen, "rejected": rejected} | self._optional()
        answer = loaded(self.values[chosen])
        whole = self.turns.are(answer) and self.turns.speaker(answer[0]) != "assistant"
        if whole and not self.asked & {"prompt", "conversation"}:
            return found
        if conversation := self._conversation():
            return {"conversation": conversation} | found
        if prompt := self._prompt((*_PROMPT_ALONE, *_PROMPT)):
            return prompt | found
        if whole or (isinstance(answer, str) and transcript(answer)):
            return found
        raise self._error("chosen and rejected are there, but no column holds what they answer")

    def _conversation(self) -> str | None:
        if self.asked & {"prompt", "completion"}:
            return None
        if "conversation" in self.given:
            return self.given["conversation"] or None
        known = [self.names[name] for name in _CONVERSATION if name in self.names]
        others = [name for name in self.names.values() if name.lower() not in ROLES and name not in known]
        return next((name for name in [*known, *others] if self.turns.are(loaded(self.values[name]))), None)

    def _pair(self) -> dict[str, str] | None:
        prompt, answer = self._prompt((*_INSTRUCTION, *_PROMPT)), self._pick("completion", _ANSWER)
        if prompt and answer and prompt["prompt"] != answer:
            return prompt | {"completion": answer}
        answer = self._pick("completion", _SUMMARY, _is_text)
        prompt = self._prompt(_SUMMARISED) or prompt
        if not prompt or not answer or prompt["prompt"] == answer:
            return None
        if not self.asked:
            text, summary = _shown(prompt["prompt"]), _shown(answer)
            self.notes.append(
                f"{text} is given to the model without a word of what to do with it; a template says it: "
                f"--prompt 'Summarise this {text}: {{{text}}}' --completion '{{{summary}}}'"
            )
        return prompt | {"completion": answer}

    def _prompt(self, wanted: Sequence[str]) -> dict[str, str] | None:
        """The prompt with what may stand beside it: an input beside an instruction, and earlier turns."""
        prompt = self._pick("prompt", wanted, _is_asking)
        if not prompt:
            return None
        context = self._pick("input", _INPUT if prompt.lower() in _INSTRUCTION else ())
        history = self._pick("history", ("history",), _is_json)
        beside = {"input": context, "history": history}
        return {"prompt": prompt} | {role: name for role, name in beside.items() if name}

    def _optional(self, rated: bool = False) -> dict[str, str]:
        wanted = {"system": self._pick("system", _SYSTEM), "tools": self._pick("tools", _TOOLS, _is_json)}
        if rated:
            wanted["label"] = self._pick("label", _LABEL, _is_rating) or self._pick("label", _LABEL[:-1], _is_number)
        return {role: name for role, name in wanted.items() if name}

    def _pick(self, role: str, wanted: Sequence[str], fits: Callable[[Any], bool] = lambda value: True) -> str | None:
        """The template or column of a role: what a person said, else the first of the wanted names whose values fit."""
        if role in self.templates or role in self.given:
            return self.templates.get(role) or self.given[role] or None
        return next((self.names[n] for n in wanted if n in self.names and fits(self.values[self.names[n]])), None)

    def _stage(self, roles: dict[str, str]) -> Stage:
        if "chosen" in roles:
            return "dpo"
        if "label" in roles:
            return "kto"
        if "text" in roles:
            return "pretraining"
        if "conversation" not in roles:
            return "sft" if "completion" in roles else "grpo"
        if "conversation" in self.asked or not self._ends_with_question(roles["conversation"]):
            return "sft"
        self.notes.append(
            "every conversation ends with a question, so these are prompts without answers; to train on the answers "
            f"inside them, say that {_shown(roles['conversation'])} is the conversation"
        )
        return "grpo"

    def _name(self, roles: dict[str, str], stage: Stage) -> str:
        if self.templates:
            return "template"
        if stage != "sft":
            return {"dpo": "preference", "kto": "rated", "pretraining": "text", "grpo": "prompt"}[stage]
        if "conversation" not in roles:
            alpaca = roles["prompt"].lower() in _INSTRUCTION or roles.keys() & {"input", "history"}
            return "alpaca" if alpaca else "prompt-completion"
        turns = loaded(self.values[roles["conversation"]])
        return "messages" if self.turns.are(turns) and "role" in turns[0] else "sharegpt"

    def _ends_with_question(self, column: str) -> bool:
        talks = [loaded(row.get(column)) for row in self.rows]
        last = [turns[-1] for turns in talks if self.turns.are(turns)]
        return bool(last) and all(self.turns.speaker(turn) in ("user", "tool") for turn in last)

    def _wants_answer(self) -> bool:
        """True unless a person says that there are no answers, or says nothing about the prompt's wording."""
        return "completion" in self.asked or (bool(self.templates) and "completion" not in self.given)

    def _corrections(self, columns: Mapping[str, str]) -> dict[str, str]:
        """Role -> column, "" for none. Raises DATA_SHAPE for a role or a column that does not exist."""
        found = {}
        for said, column in columns.items():
            role = said if said in ROLES else _ALIASES.get(said)
            if role is None:
                cause = f"{_shown(said)} is no role of a column" + meant(said, [*ROLES, *_ALIASES])
                raise FtuiError(Exit.DATA_SHAPE, cause, "", "roles: " + ", ".join(ROLES))
            found[role] = self._column(column) if column else ""
        return found

    def _column(self, column: str) -> str:
        named = column if column in self.values else {n.lower(): n for n in reversed(self.values)}.get(column.lower())
        if named is None:
            cause = f"there is no column {_shown(column)}" + meant(column, self.values)
            raise FtuiError(Exit.DATA_SHAPE, cause, "", "columns: " + _listed(self.values))
        return named

    def _templated(self) -> set[str]:
        """The columns that the templates name. Raises DATA_SHAPE for none, and for one that is not there."""
        used = set[str]()
        for role, template in self.templates.items():
            names = set(_named(template))
            if not names:
                raise self._error(f"the {role} template names no column, so every row would be the same")
            for name in sorted(names - self.values.keys()):
                cause = f"a template names {{{_shown(name)}}}" + meant(name, self.values)
                raise self._error(f"{cause}, but the columns are: {_listed(self.values)}")
            used |= names
        return used

    def _unknown(self) -> FtuiError:
        missing = [role for role in ("prompt", "completion") if role not in self.asked]
        if self.asked and len(missing) == 1:
            cause = f"no column is known to hold the {missing[0]}; the columns are: {_listed(self.values)}"
            return self._error(cause)
        return self._error("no known shape has these columns: " + _listed(self.values))

    def _error(self, cause: str) -> FtuiError:
        return FtuiError(Exit.DATA_SHAPE, cause, "", _mapping(self.rows))


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each column of the first rows with a value it has (the first that is neither null nor empty)."""
    found: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if found.get(name) in (None, "", []):
                found[name] = value
    return found


def _named(template: str) -> list[str]:
    return [name.strip() for name in COLUMN.findall(template)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_asking(value: Any) -> bool:
    return not isinstance(value, bool | dict)


def _is_json(value: Any) -> bool:
    return isinstance(loaded(value), list | dict) or not value


def _is_rating(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_number(value: Any) -> bool:
    """0 or 1, which in a column named label may as well be a class."""
    return isinstance(value, int | float) and value in (0, 1)


def _mapping(rows: Sequence[dict[str, Any]]) -> str:
    """How to say which column is what, with the columns at hand."""
    found = likely.pair(rows)
    if found is None:
        return "rename the columns to prompt and completion"
    prompt, completion = map(_shown, found)
    return f"say which is which: --prompt '{{{prompt}}}' --completion '{{{completion}}}'"


def meant(name: str, known: Iterable[str]) -> str:
    lower = {one.lower(): one for one in known}
    close = [lower[one] for one in difflib.get_close_matches(name.lower(), list(lower), 3)]
    return f" (did you mean {' or '.join(map(_shown, close))}?)" if close else ""


def _listed(values: dict[str, Any], most: int = 12) -> str:
    names = [_shown(name) for name in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shown(name: object) -> str:
    return str(name)[:60]
