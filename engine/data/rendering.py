"""An example as the text that the model sees, with the stretches that carry a loss."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

from engine.data.chat_template import ChatTemplate
from engine.data.convert import Example
from engine.data.turns import Message, spoken
from engine.errors import Exit, FtuiError

# Wrapped around control tokens in a row's own text while a template is rendered, then taken out again.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_MARK = re.compile(f"[{_OPEN}{_CLOSE}]")

Span = tuple[int, int]


class Rendered(Struct):
    """`trained` and `literal` are spans of characters in `text`, in order, the end not included.

    trained    what has a loss: each answer with its end token and what the template writes after it
    literal    control tokens that stand in the row's own text: encoded as the characters they are
    special    True if the tokenizer's own leading token (as in "<s>") is put before the text
    rewritten  True if the template writes earlier turns differently once more follow: only the last answer is trained
    diverges   True if the template writes the prompt differently once it is answered: at inference the model sees
               another beginning than in training
    tools_unseen  True if the row describes tools and the template does not show them to the model
    """

    text: str
    trained: list[Span]
    literal: list[Span] = []
    special: bool = False
    rewritten: bool = False
    diverges: bool = False
    tools_unseen: bool = False


def render(example: Example, template: ChatTemplate | None, control: re.Pattern[str], end: str) -> Rendered:
    """Render one example; of a preference pair the chosen side; a prompt up to where its answer begins.

    control  matches the tokenizer's control tokens
    end      the end token, written after answers where there is no template, and after plain text
    Raises FtuiError(MODEL_UNSUPPORTED) with the row when the template refuses it.
    """
    if example.messages is None:
        text = example.text or ""
        whole = text + end
        return Rendered(whole, [(0, len(whole))], [m.span() for m in control.finditer(text)], special=True)
    return _side(example, example.chosen, template, control, end)


def render_pair(
    example: Example, template: ChatTemplate | None, control: re.Pattern[str], end: str
) -> tuple[Rendered, Rendered]:
    """The chosen and the rejected answer of a preference pair, each after what they reply to, as `render` has it."""
    chosen, rejected = (_side(example, side, template, control, end) for side in (example.chosen, example.rejected))
    return chosen, rejected


def prompt(
    messages: Sequence[Message],
    template: ChatTemplate | None,
    control: re.Pattern[str],
    end: str,
    tools: list[dict[str, Any]] | None = None,
) -> Rendered:
    """A conversation up to where its next answer begins, written as `render` writes it in training.

    Raises FtuiError(MODEL_UNSUPPORTED) when the template refuses the conversation.
    """
    return _conversation(messages, tools, template, control, end, asks=True)


def _side(
    example: Example,
    answer: list[Message] | None,
    template: ChatTemplate | None,
    control: re.Pattern[str],
    end: str,
) -> Rendered:
    messages = [*(example.messages or ()), *(answer or ())]
    trained = [at for at, message in enumerate(messages) if message.role == "assistant" and message.trained]
    if trained:
        messages = messages[: trained[-1] + 1]  # a question after the last answer teaches nothing
    try:
        return _conversation(messages, example.tools, template, control, end, asks=not trained)
    except FtuiError as error:
        where = f"row {example.row}" + (f", {error.where}" if error.where else "")
        raise FtuiError(error.code, error.cause, where, error.next_step) from None


def _conversation(
    messages: Sequence[Message],
    tools: list[dict[str, Any]] | None,
    template: ChatTemplate | None,
    control: re.Pattern[str],
    end: str,
    *,
    asks: bool,
) -> Rendered:
    """Turns as text, with control tokens in them noted as such; `asks` for a prompt that the model is to answer."""
    if any(message.tool_calls for message in messages) and not (template and template.writes_calls):
        messages = [spoken(message) for message in messages]
    foreign = any(_holds(control, (m.content, m.tool_calls, m.name)) for m in messages) or _holds(control, tools)
    if foreign:
        messages = [
            msgspec.structs.replace(
                m,
                content=_marked(m.content, control),
                tool_calls=_marked(m.tool_calls, control),
                name=_marked(m.name, control),
            )
            for m in messages
        ]
        tools = _marked(tools, control)
    if template is None:
        made = _without_template(messages, end)
        made.text += "\n" if asks else ""
    elif asks:
        made = Rendered(template.render(messages, tools=tools, generate=True), [])
    else:
        made = _with_template(messages, tools, template, control)
    made.tools_unseen = bool(tools) and not (template and template.shows_tools)
    return _unmarked(made) if foreign else made


def _without_template(messages: Sequence[Message], end: str) -> Rendered:
    """Turns on lines of their own; each answer followed by the end token and trained."""
    text, spans = "", list[Span]()
    for message in messages:
        if message.role == "assistant":
            if message.trained:
                spans.append((len(text), len(text) + len(message.content) + len(end)))
            text += message.content + end
        else:
            text += message.content
        text += "\n"
    return Rendered(text[:-1], spans, special=True)


def _with_template(
    messages: Sequence[Message],
    tools: list[dict[str, Any]] | None,
    template: ChatTemplate,
    control: re.Pattern[str],
) -> Rendered:
    """Find the answers by rendering growing prefixes: what an answer adds to its prompt is what is trained.

    This is how TRL masks prompt and completion, for each answer in turn.
    """
    full = template.render(messages, tools=tools)
    spans: list[Span] = []
    answers = [at for at, message in enumerate(messages) if message.role == "assistant" and message.trained]
    # A greeting before any question answers nothing, so it is context.
    asked = [at for at in answers if any(message.role != "system" for message in messages[:at])]
    for at in asked:
        try:
            before = template.render(messages[:at], tools=tools, generate=True)
            after = full if at == answers[-1] else template.render(messages[: at + 1], tools=tools)
        except FtuiError:
            break
        # Some templates end a conversation with a mark of its own: an answer ends where both go on differently.
        start, stop = len(before), _common(after, full)
        if not full.startswith(before) or _ending(messages[at]) not in full[start:stop] or start >= stop:
            break
        spans.append((start, _whole_token(full, stop, control)))
    if len(spans) == len(asked):
        return Rendered(full, spans)
    if _ending(messages[-1]) not in full:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the model's chat template leaves the answer out (it may be made for images)",
            next_step="choose a model for text",
        )
    start = _whole_token(full, _last_answer(messages, tools, template, full), control)
    earlier = len(asked) > 1
    return Rendered(full, [(start, len(full))], rewritten=earlier, diverges=not earlier)


def _whole_token(text: str, at: int, control: re.Pattern[str]) -> int:
    """`at`, or where the control token begins that it falls into: two tokens may begin alike, as <|user|> and <|end|>."""
    longest = 64  # characters; control tokens are shorter
    return next((m.start() for m in control.finditer(text, max(0, at - longest)) if m.start() < at < m.end()), at)


def _ending(message: Message) -> str:
    """The end of what a turn says: templates may cut white space and a train of thought off, but not this."""
    if message.tool_calls:
        return str(message.tool_calls[-1]["name"])
    return message.content.rpartition("</think>")[2].strip()[-16:].strip()


def _last_answer(
    messages: Sequence[Message], tools: list[dict[str, Any]] | None, template: ChatTemplate, full: str
) -> int:
    """Where the last answer begins in a rendering whose prompt is not a prefix of it."""
    said = messages[-1].content.strip()
    at = full.rfind(said) if said else -1  # a call alone has no text that the template would write as it is
    try:
        common = _common(template.render(messages[:-1], tools=tools, generate=True), full)
    except FtuiError:
        common = -1
    question = messages[-2].content.strip() if len(messages) > 1 else ""
    # As TRL: where prompt and whole part ways. But never so early that the question would be trained on.
    between = full[common : at if at >= 0 else None]
    if common >= 0 and (at < 0 or common <= at) and not (question and question in between):
        return common
    if at < 0:
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the model's chat template changes the answer, so what to train cannot be found",
            next_step="choose another model",
        )
    return at


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _holds(control: re.Pattern[str], value: Any) -> bool:
    """True if there is a control token in a text, or in any text of a list or object."""
    if isinstance(value, str):
        return control.search(value) is not None
    if isinstance(value, dict):
        return any(_holds(control, one) for pair in value.items() for one in pair)
    return isinstance(value, list | tuple) and any(_holds(control, one) for one in value)


def _marked(value: Any, control: re.Pattern[str]) -> Any:
    """`value` with marks around the control tokens in its texts."""
    if isinstance(value, str):
        # Marks that a row brings along could forge a boundary.
        return control.sub(lambda match: f"{_OPEN}{match[0]}{_CLOSE}", _MARK.sub("", value))
    if isinstance(value, dict):
        return {_marked(key, control): _marked(one, control) for key, one in value.items()}
    return [_marked(one, control) for one in value] if isinstance(value, list) else value


def _unmarked(made: Rendered) -> Rendered:
    """Take the marks out, move the spans along, and note what they stood around."""
    marks = [match.start() for match in _MARK.finditer(made.text)]

    def moved(at: int) -> int:
        return at - bisect_left(marks, at)

    literal: list[Span] = []
    for first, second in pairwise(marks):
        if made.text[first] == _OPEN and made.text[second] == _CLOSE:
            literal.append((moved(first), moved(second)))
    return Rendered(
        _MARK.sub("", made.text),
        [(moved(start), moved(stop)) for start, stop in made.trained],
        literal,
        made.special,
        made.rewritten,
        made.diverges,
        made.tools_unseen,
    )
