"""The Modelfile that turns a GGUF into a model of Ollama.

Ollama writes conversations with a template of its own (Go's), not with the model's. For the formats that are common it is
given here, and only where a test conversation comes out the same, letter for letter; otherwise Ollama uses what it finds
in the GGUF itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.data.convert import Message
from engine.errors import FtuiError


class Form(Struct, frozen=True):
    """How a chat format writes turns: what stands before and after the content of each role's, and before an answer.

    before, after  "{role}" stands for the role's own word
    words          role -> the format's word for it, where it is another; "" for a role the format does not have
    """

    name: str
    before: str
    after: str
    answer: str
    words: dict[str, str] = {}

    def turn(self, role: str, content: str) -> str:
        word = self.words.get(role, role)
        return f"{self.before.replace('{role}', word)}{content}{self.after.replace('{role}', word)}"

    def go(self) -> str:
        """The same as a template of Go's, for Ollama. No trimming marks: every character stands for itself."""
        own = {role: word for role, word in self.words.items() if word}
        word = "{{ .Role }}"
        for role, other in own.items():
            word = f'{{{{ if eq .Role "{role}" }}}}{other}{{{{ else }}}}{word}{{{{ end }}}}'
        turn = self.before.replace("{role}", word) + "{{ .Content }}" + self.after.replace("{role}", word)
        return "{{ range .Messages }}" + turn + "{{ end }}" + self.answer


FORMS = (
    Form("ChatML", "<|im_start|>{role}\n", "<|im_end|>\n", "<|im_start|>assistant\n"),
    Form(
        "Llama 3",
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    Form(
        "Gemma",
        "<start_of_turn>{role}\n",
        "<end_of_turn>\n",
        "<start_of_turn>model\n",
        {"assistant": "model", "system": ""},
    ),
    Form("Phi-3", "<|{role}|>\n", "<|end|>\n", "<|assistant|>\n"),
    Form("Zephyr", "<|{role}|>\n", "</s>\n", "<|assistant|>\n"),
)
_TALK = (
    Message("user", "first question"),
    Message("assistant", "first answer"),
    Message("user", "second question"),
)
_SYSTEM = Message("system", "an instruction")


def write(
    gguf: str, render: Callable[[Sequence[Message]], str], bos: str | None, stops: Sequence[str], system: str | None
) -> tuple[str, str]:
    """(the Modelfile, the name of the chat format or "" where Ollama is left to read the GGUF).

    gguf    name of the file beside it
    render  a conversation by the run's chat template, up to where the answer begins
    bos     text of the token that llama.cpp puts first by itself, None where it puts none
    stops   the tokens that end an answer
    system  the run's own system prompt
    """
    form, default = _form(render, bos or "")
    lines = [f"FROM ./{gguf}"]
    if form is not None:
        lines.append(f'TEMPLATE """{form.go()}"""')
        system = system or default
    if system:
        lines.append(f'SYSTEM """{system.replace(chr(34) * 3, chr(39) * 3)}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n", form.name if form else ""


def _form(render: Callable[[Sequence[Message]], str], bos: str) -> tuple[Form | None, str | None]:
    """The format that writes the test conversation as `render` does, and the system prompt that `render` adds itself."""
    try:
        plain = render(_TALK).removeprefix(bos)
    except FtuiError:
        return None, None
    for form in FORMS:
        turns = [form.turn(one.role, one.content or "") for one in _TALK]
        if not plain.endswith("".join(turns) + form.answer):
            continue
        # What stands before the turns may be a system prompt of the template's own.
        added = plain.removesuffix("".join(turns) + form.answer)
        frame, end = form.turn("system", "\0").split("\0")
        default = added.removeprefix(frame).removesuffix(end) if added else None
        if default is not None and added != form.turn("system", default):
            return None, None
        if form.words.get("system") == "":
            return (form, None) if default is None else (None, None)
        try:
            told = render((_SYSTEM, *_TALK)).removeprefix(bos)
        except FtuiError:
            return None, None
        if told == form.turn("system", "an instruction") + "".join(turns) + form.answer:
            return form, default
    return None, None
