"""An example as the text that the model sees, with the stretches that carry a loss."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from engine.data.chat_template import ChatTemplate
from engine.data.convert import Example, Message
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
    """Render one example.

    control  matches the tokenizer's control tokens
    end      the end token, written after answers where there is no template, and after plain text
    Raises FtuiError(MODEL_UNSUPPORTED) with the row when the template refuses it.
    """
    if example.messages is None:
        text = example.text or ""
        whole = text + end
        return Rendered(whole, [(0, len(whole))], [m.span() for m in control.finditer(text)], special=True)
    last = max(at for at, message in enumerate(example.messages) if message.role == "assistant")
    messages = example.messages[: last + 1]  # a question after the last answer teaches nothing
    foreign = any(control.search(message.content) for message in messages)
    if foreign:
        messages = [Message(message.role, _marked(message.content, control)) for message in messages]
    if template is None:
        made = _without_template(messages, end)
    else:
        try:
            made = _with_template(messages, template, control)
        except FtuiError as error:
            where = f"row {example.row}" + (f", {error.where}" if error.where else "")
            raise FtuiError(error.code, error.cause, where, error.next_step) from None
    return _unmarked(made) if foreign else made


def prompt(messages: Sequence[Message], template: ChatTemplate | None, control: re.Pattern[str], end: str) -> Rendered:
    """A conversation up to where its next answer begins, written as `render` writes it in training.

    Raises FtuiError(MODEL_UNSUPPORTED) when the template refuses the conversation.
    """
    foreign = any(control.search(message.content) for message in messages)
    marked = [Message(m.role, _marked(m.content, control)) for m in messages] if foreign else list(messages)
    if template is None:
        made = _without_template(marked, end)
        made.text, made.trained = made.text + "\n", []
    else:
        made = Rendered(template.render(marked, generate=True), [])
    return _unmarked(made) if foreign else made


def _without_template(messages: Sequence[Message], end: str) -> Rendered:
    """Turns on lines of their own; each answer followed by the end token and trained."""
    text, spans = "", list[Span]()
    for message in messages:
        if message.role == "assistant":
            spans.append((len(text), len(text) + len(message.content) + len(end)))
            text += message.content + end
        else:
            text += message.content
        text += "\n"
    return Rendered(text[:-1], spans, special=True)


def _with_template(messages: list[Message], template: ChatTemplate, control: re.Pattern[str]) -> Rendered:
    """Find the answers by rendering growing prefixes: what an answer adds to its prompt is what is trained.

    This is how TRL masks prompt and completion, for each answer in turn.
    """
    full = template.render(messages)
    spans: list[Span] = []
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    # A greeting before any question answers nothing, so it is context.
    asked = [at for at in answers if any(message.role != "system" for message in messages[:at])]
    for at in asked:
        try:
            before = template.render(messages[:at], generate=True)
            after = full if at == answers[-1] else template.render(messages[: at + 1])
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
    start = _whole_token(full, _last_answer(messages, template, full), control)
    earlier = len(asked) > 1
    return Rendered(full, [(start, len(full))], rewritten=earlier, diverges=not earlier)


def _whole_token(text: str, at: int, control: re.Pattern[str]) -> int:
    """`at`, or where the control token begins that it falls into: two tokens may begin alike, as <|user|> and <|end|>."""
    longest = 64  # characters; control tokens are shorter
    return next((m.start() for m in control.finditer(text, max(0, at - longest)) if m.start() < at < m.end()), at)


def _ending(message: Message) -> str:
    """The end of a turn's text: templates may cut white space and a train of thought off, but not this."""
    return message.content.rpartition("</think>")[2].strip()[-16:].strip()


def _last_answer(messages: list[Message], template: ChatTemplate, full: str) -> int:
    """Where the last answer begins in a rendering whose prompt is not a prefix of it."""
    at = full.rfind(messages[-1].content.strip())
    try:
        common = _common(template.render(messages[:-1], generate=True), full)
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


def _marked(text: str, control: re.Pattern[str]) -> str:
    # Marks that a row brings along could forge a boundary.
    return control.sub(lambda match: f"{_OPEN}{match[0]}{_CLOSE}", _MARK.sub("", text))


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
    )
