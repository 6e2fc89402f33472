"""Rows of any shape made into one kind of example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from engine.data import turns
from engine.data.shapes import COLUMN, Shape
from engine.data.turns import Message, Role, Turns, Unusable, as_text

__all__ = ["Example", "Message", "Role", "Unusable", "converter"]

_RATINGS: dict[Any, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


class Example(Struct, omit_defaults=True, gc=False):
    """One row made ready. `row` counts from 1 through all sources of the data set, unusable rows included.

    messages  a conversation; for preferences what both answers reply to; without an answer that is trained, a prompt;
              None for plain text
    text      plain text, else None
    chosen    with `rejected`: the turns of the two answers of a preference pair
    label     True for a good answer, False for a bad one (KTO)
    tools     what the tools are that a conversation may call: [{"type": "function", "function": {…}}]
    """

    row: int
    messages: list[Message] | None
    text: str | None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    label: bool | None = None
    tools: list[dict[str, Any]] | None = None


def converter(shape: Shape, system: str | None) -> Callable[[int, dict[str, Any]], Example]:
    """A function from row number and row to Example; it raises Unusable.

    system  put before each conversation that has no system message of its own
    """
    reader = _Reader(shape, system)
    if "text" in shape.columns:
        return reader.text
    if "chosen" in shape.columns:
        return reader.preference
    if "label" in shape.columns:
        return reader.rated
    if shape.stage == "grpo":
        return reader.prompt
    return reader.conversation if "conversation" in shape.columns or "history" in shape.columns else reader.exchange


class _Reader:
    """Reads the rows of one shape. All that is the same for each row is worked out once."""

    def __init__(self, shape: Shape, system: str | None) -> None:
        columns = dict(shape.columns)
        template = shape.name == "template"
        self._prompt_template = (
            _Template(columns.pop("prompt"), "question") if template and "prompt" in columns else None
        )
        self._answer_template = (
            _Template(columns.pop("completion"), "answer") if template and "completion" in columns else None
        )
        self._columns = columns
        self._prompt, self._input = columns.get("prompt"), columns.get("input")
        self._completion, self._talk = columns.get("completion"), columns.get("conversation")
        self._system_column, self._history = columns.get("system"), columns.get("history")
        self._tools = columns.get("tools")
        self._system = system
        self._turns = Turns(shape.tags)

    def text(self, number: int, value: dict[str, Any]) -> Example:
        column = self._columns["text"]
        text = as_text(value.get(column), column)
        if not text or text.isspace():
            raise Unusable(f"has no text ({column})")
        return Example(number, None, text)

    def exchange(self, number: int, value: dict[str, Any]) -> Example:
        """One question and one answer, each in a column of its own."""
        messages = self._question(value) + self._answer(value)
        if len(messages) > 2:
            _check(messages)
        return self._example(number, messages, value)

    def conversation(self, number: int, value: dict[str, Any]) -> Example:
        messages = self._question(value)
        if self._completion or self._answer_template:
            messages += self._answer(value)
        _check(messages)
        return self._example(number, messages, value)

    def prompt(self, number: int, value: dict[str, Any]) -> Example:
        messages = self._question(value)
        if not messages or messages[-1].role not in ("user", "tool"):
            raise Unusable("has no question at its end, as prompts have")
        return self._example(number, _untrained(messages), value)

    def rated(self, number: int, value: dict[str, Any]) -> Example:
        """A label rates what answers the last question; answers before it are context."""
        label = value.get(self._columns["label"])
        rating = _RATINGS.get(label.strip().lower() if isinstance(label, str) else _number(label))
        if rating is None:
            raise Unusable(f"has no rating that is true or false ({self._columns['label']})")
        example = self.conversation(number, value)
        messages = example.messages or []
        last = max(at for at, message in enumerate(messages) if message.role == "assistant")
        asked = max((at for at, message in enumerate(messages[:last]) if message.role == "user"), default=0)
        _untrained(messages[:asked])
        example.label = rating
        return example

    def preference(self, number: int, value: dict[str, Any]) -> Example:
        """Two answers to one beginning: given apart, or the turns that both conversations share."""
        context = self._question(value) if self._prompt or self._talk or self._prompt_template else self._start(value)
        chosen, rejected = self._side(value, "chosen"), self._side(value, "rejected")
        said = [message for message in context if message.role != "system"]
        if said and chosen[: len(said)] == said and rejected[: len(said)] == said:
            chosen, rejected = chosen[len(said) :], rejected[len(said) :]
        elif said and (chosen[0].role != "assistant" or rejected[0].role != "assistant"):
            raise Unusable("has answers that begin with another question than the prompt")
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        while shared and not (chosen[shared].role == rejected[shared].role == "assistant"):
            shared -= 1
        context += chosen[:shared]
        chosen, rejected = chosen[shared:], rejected[shared:]
        if not any(message.role in ("user", "tool") for message in context):
            raise Unusable("has chosen and rejected answers to different questions, or to none")
        for side, answers in (("chosen", chosen), ("rejected", rejected)):
            if not answers or not any(_says(message) for message in answers if message.role == "assistant"):
                raise Unusable(f"has no answer ({self._columns[side]})")
        example = self._example(number, _untrained(context), value)
        example.chosen, example.rejected = chosen, rejected
        return example

    def _example(self, number: int, messages: list[Message], value: dict[str, Any]) -> Example:
        if self._system and not any(message.role == "system" for message in messages):
            messages.insert(0, Message("system", self._system))
        if self._tools is None:
            return Example(number, messages, None)
        return Example(number, messages, None, tools=turns.tools(value.get(self._tools)))

    def _start(self, value: dict[str, Any]) -> list[Message]:
        """The system prompt and the earlier turns that stand in columns of their own."""
        messages: list[Message] = []
        if self._system_column is not None:
            text = as_text(value.get(self._system_column), self._system_column)
            if text and not text.isspace():
                messages.append(Message("system", text))
        if self._history is not None:
            messages += self._earlier(turns.loaded(value.get(self._history)))
        return messages

    def _earlier(self, history: Any) -> list[Message]:
        if not history or history != history:
            return []
        if self._turns.are(history):
            return self._turns.read(history)
        messages = []
        for turn in history if isinstance(history, list) else [history]:
            if not isinstance(turn, list | tuple) or len(turn) != 2:
                raise Unusable("has a history that is not a list of [question, answer]")
            messages.append(Message("user", as_text(turn[0], "history")))
            messages.append(Message("assistant", as_text(turn[1], "history")))
        return messages

    def _question(self, value: dict[str, Any]) -> list[Message]:
        """Everything up to the answer that has a column of its own; a conversation whole."""
        messages = self._start(value)
        if self._talk is not None:
            talk = turns.loaded(value.get(self._talk))
            if not isinstance(talk, list) or not talk:
                raise Unusable(f"has no conversation ({self._talk})")
            return messages + self._turns.read(talk)
        if self._prompt_template is not None:
            messages.append(Message("user", self._prompt_template.fill(value)))
            return messages
        column = self._prompt or ""
        prompt = value.get(column)
        if type(prompt) is list and self._turns.are(prompt):
            return messages + self._turns.read(prompt)
        text = as_text(prompt, column)
        if self._input is not None and (more := as_text(value.get(self._input), self._input)):
            text = f"{text}\n{more}" if text else more  # as LLaMA-Factory joins them
        if not text or text.isspace():
            raise Unusable(f"has no question ({column})")
        messages.append(Message("user", text))
        return messages

    def _answer(self, value: dict[str, Any]) -> list[Message]:
        if self._answer_template is not None:
            return [Message("assistant", self._answer_template.fill(value))]
        column = self._completion or ""
        answer = value.get(column)
        if type(answer) is list and self._turns.are(answer):
            return self._turns.read(answer)
        text = as_text(answer, column)
        if not text or text.isspace():
            raise Unusable(f"has no answer ({column})")
        return [Message("assistant", text)]

    def _side(self, value: dict[str, Any], role: str) -> list[Message]:
        """One answer of a pair: a text, a turn, turns, or a whole conversation."""
        column = self._columns[role]
        answer = value.get(column)
        if isinstance(answer, str):
            talk = turns.loaded(answer)
            if not self._turns.are(talk):
                whole = None if self._prompt or self._talk or self._prompt_template else turns.transcript(answer)
                return whole or [Message("assistant", as_text(answer, column))]
            answer = talk
        if self._turns.one(answer):
            answer = [answer]
        if isinstance(answer, list) and answer:
            return self._turns.read(answer)
        text = as_text(answer or None, column)
        return [Message("assistant", text)]


class _Template:
    """A text over columns. `what` is what it stands for, as in "has no answer"."""

    def __init__(self, template: str, what: str) -> None:
        parts = COLUMN.split(template)
        self._first = parts[0]
        self._parts = [(column.strip(), text) for column, text in zip(parts[1::2], parts[2::2], strict=True)]
        self._what = what

    def fill(self, value: dict[str, Any]) -> str:
        """Raises Unusable when every column in it is empty."""
        pieces, said = [self._first], False
        for column, text in self._parts:
            cell = as_text(value.get(column), column)
            said = said or bool(cell.strip())
            pieces += (cell, text)
        if not said:
            raise Unusable(f"has no {self._what} ({', '.join(dict.fromkeys(column for column, _ in self._parts))})")
        return "".join(pieces)


def _check(messages: list[Message]) -> None:
    last = messages[-1]
    if last.role == "assistant" and last.trained and len(messages) > 1 and messages[-2].role == "user" and _says(last):
        return  # as nearly all conversations
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not any(message.role in ("user", "tool") for message in messages):
        raise Unusable("has no question")
    if not answers:
        raise Unusable("has no answer")
    trained = [at for at in answers if messages[at].trained]
    if not trained:
        raise Unusable("has no answer that may be trained on (weight 0)")
    if not _says(messages[trained[-1]]):
        raise Unusable("has an empty answer")
    if not any(message.role in ("user", "tool") for message in messages[: trained[-1]]):
        raise Unusable("has no question before its answer")


def _says(message: Message) -> bool:
    return bool(message.content and not message.content.isspace()) or bool(message.tool_calls)


def _untrained(messages: list[Message]) -> list[Message]:
    for message in messages:
        if message.role == "assistant":
            message.trained = False
    return messages


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else None
