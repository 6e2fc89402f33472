"""Marks that were left in the text: placeholders that nobody filled, fields of a form, control tokens of a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Marked

_PLACEHOLDER = re.compile(r"\{\{[ \t]*(\w[\w .-]{0,38}?)[ \t]*\}\}")
# Double braces that are meant: LaTeX and f-strings put them next to these, and rows of code have such marks.
_BESIDE = re.compile(r"[\w\\^_}{$]")
_CODE = re.compile(r"```|\{%|</|\\[a-zA-Z]+\{|=>")
# A field of a form: [Your Name], [Company], <insert date>. The words are those of letters and e-mails.
_FIELD = re.compile(r"\[([A-Za-z][A-Za-z' /-]{2,30})\](?![\[(:])|<((?:insert|your) [A-Za-z' /-]{2,30})>", re.IGNORECASE)
_FIELDS = frozenset(
    [
        "your",
        "name",
        "date",
        "address",
        "company",
        "recipient",
        "recipient's",
        "insert",
        "email",
        "phone",
        "position",
        "signature",
        "placeholder",
        "title",
        "city",
        "number",
        "organization",
        "department",
        "contact",
        "product",
        "sender",
    ]
)
# Control tokens of the chat templates in use, as they stand in rows that were made from a rendered prompt.
CONTROL = re.compile(r"<\|[a-zA-Z_]{2,30}\|>|<｜[^｜<>]{2,30}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
_OPENED = (b"|", b"?", b"<SYS", b"</SYS", b"start_of_turn", b"end_of_turn")  # after "<"; ｜ is no Latin-1


def strip_control(text: str) -> str:
    """`text` without control tokens; what stood around them stays, except the role name that a token opens with."""
    return _HEADER.sub("", text) if CONTROL.search(text) else text


_HEADER = re.compile(
    r"(?:<\|im_start\|>(?:system|user|assistant|tool)\n?)"
    r"|(?:<\|start_header_id\|>(?:system|user|assistant|ipython)<\|end_header_id\|>\n{0,2})"
    r"|(?:<start_of_turn>(?:user|model)\n?)"
    r"|" + CONTROL.pattern
)


class Placeholders:
    """`names` are those that are known to be meant, as {{name}} and {{author}} of identity data."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._left: set[str] = set()
        self._known, self._other = Marked(), Marked()

    def look(self, chunk: Chunk) -> None:
        for index in chunk.holding(b"{", (b"{",)):
            text = chunk.texts[index]
            code: bool | None = None
            for match in _PLACEHOLDER.finditer(text):
                if match[1] in self._names:
                    self._left.add(match[1])
                    self._known.add(chunk.example(index).row, match[0])
                    continue
                if code is None:
                    code = _CODE.search(text) is not None
                beside = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
                if not code and not _BESIDE.search(beside):
                    self._other.add(chunk.example(index).row, match[0])

    def findings(self) -> list[Finding]:
        names = [name for name in self._names if name in self._left]
        marks = " or ".join(f"{{{{{name}}}}}" for name in names)
        fix = "fill them: " + " ".join(f"--set {name}=…" for name in names)
        found = self._known.finding("placeholders", "problem", ("holds", "hold"), marks, fix, "fill-placeholders")
        fix = "fill them with --set NAME=…, if they are no part of the lesson"
        return found + self._other.finding(
            "other-placeholders", "note", ("holds", "hold"), "other marks in double braces", fix, "fill-placeholders"
        )


class Fields:
    """Fields that an answer leaves open: a model would learn to write "[Your Name]"."""

    def __init__(self) -> None:
        self._marked = Marked()

    def look(self, chunk: Chunk) -> None:
        for index in sorted({*chunk.holding(b"["), *chunk.holding(b"<", (b"i", b"I", b"y", b"Y"))}):
            if chunk.roles[index] == "assistant" and (field := _open_field(chunk.texts[index])):
                example = chunk.example(index)
                if example.label is not False:
                    self._marked.add(example.row, field)

    def findings(self) -> list[Finding]:
        fix = "nothing to do, if the answers are meant as forms"
        return self._marked.finding(
            "open-fields", "note", ("leaves", "leave"), "fields open in the answer, as in a form", fix
        )


def _open_field(text: str) -> str:
    """The first field of a form in the text, or ""."""
    for match in _FIELD.finditer(text):
        if match[2] or not _FIELDS.isdisjoint((match[1] or "").lower().replace("/", " ").split()):
            return match[0]
    return ""


class Control:
    """Control tokens of any known chat template, and those of the model's own that were found when tokens were counted.

    literal  rows with control tokens of the model
    """

    def __init__(self, literal: Iterable[int] = ()) -> None:
        self._marked = Marked()
        self._literal = literal

    def look(self, chunk: Chunk) -> None:
        candidates = {*chunk.holding(b"<", _OPENED), *chunk.holding(b"[", (b"INST]", b"/INST]"))}
        for index in sorted(candidates):
            if match := CONTROL.search(chunk.texts[index]):
                self._marked.add(chunk.example(index).row, match[0])

    def findings(self) -> list[Finding]:
        verbs = "holds", "hold"
        what = "control tokens of a chat template as text"
        fix = "take them out, unless the rows teach about them; they are trained as plain characters"
        found = self._marked.finding("control-tokens", "warning", verbs, what, fix, "strip-control-tokens")
        others = Marked(sorted(set(self._literal).difference(self._marked.rows)))
        what = "what is a control token of this model, as text"
        fix = "nothing to do: it is trained as plain characters"
        return found + others.finding("model-tokens", "note", verbs, what, fix)
