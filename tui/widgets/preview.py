"""The exact text the model will see: trained text bright, context dim, special tokens and token boundaries marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar, Literal, get_args

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.data import packs
from engine.text import safe

Piece = tuple[str, bool]  # text, has a loss?
Token = tuple[str, bool, bool]  # text, has a loss?, special?
Role = Literal["title", "trained", "context", "special", "special-trained", "boundary", "mark", "cut"]
Segment = tuple[str, Role]  # safe text, how it is drawn
Side = tuple[str, list[Segment]]  # title ("" for none), text
BOUNDARY = "▏"
MOST, MOST_TOKENS = 40_000, 10_000  # characters and tokens drawn of one side; what is longer is counted
# How the common templates write special tokens: <|im_start|>, <s>, [INST], <<SYS>>, <start_of_turn>, <｜User｜>.
_SPECIAL = re.compile(
    r"<[|｜][^|｜<>\s]{1,40}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
)


def of_pieces(pieces: Sequence[Piece]) -> list[Segment]:
    """Pieces as safe text with roles; line feeds stay, each with a visible ⏎ before it."""
    found: list[Segment] = []
    for text, trained in pieces:
        begin = 0
        for match in _SPECIAL.finditer(text):
            found.append((_shown(text[begin : match.start()]), _role(trained, False)))
            found.append((_shown(match.group()), _role(trained, True)))
            begin = match.end()
        found.append((_shown(text[begin:]), _role(trained, False)))
    return [(text, role) for text, role in found if text]


def of_tokens(
    tokens: Sequence[Token], cutoff: int | None = None, *, boundaries: bool = True, divided: bool = False
) -> list[Segment]:
    """Tokens as safe text with roles.

    cutoff      what stands at this token and later is drawn as cut off, with a line of words where it begins
    boundaries  a thin mark before each token
    divided     nothing is cut off: where each part begins, a line says so
    """
    if divided and cutoff is not None and len(tokens) > cutoff:
        return _in_parts(tokens[:MOST_TOKENS], cutoff, boundaries, len(tokens[MOST_TOKENS:]))
    kept = tokens if cutoff is None else tokens[:cutoff]
    kept, unseen = kept[:MOST_TOKENS], len(kept[MOST_TOKENS:])
    found: list[Segment] = []
    if boundaries:
        for text, trained, special in kept:
            found += [(BOUNDARY, "boundary"), (_shown(text), _role(trained, special))]
    else:
        for (trained, special), group in groupby(kept, lambda token: token[1:]):
            found.append((_shown("".join(text for text, _, _ in group)), _role(trained, special)))
    if unseen:
        found.append((f"\n⋯ and {unseen:,} tokens more", "mark"))
    if cutoff is not None and (lost := tokens[cutoff:]):
        found.append((f"\n┄┄┄┄ cut here: {len(lost):,} tokens more\n", "mark"))
        found.append((_shown("".join(text for text, _, _ in lost[:MOST_TOKENS])), "cut"))
    return found


def _in_parts(tokens: Sequence[Token], most: int, boundaries: bool, unseen: int) -> list[Segment]:
    found: list[Segment] = []
    for number, (begin, end) in enumerate(packs.parts(len(tokens), most), 1):
        if number > 1:
            found.append((f"\n┄┄┄┄ part {number:,}\n", "mark"))
        found += of_tokens(tokens[begin:end], boundaries=boundaries)
    return [*found, (f"\n⋯ and {unseen:,} tokens more", "mark")] if unseen else found


def from_answer(segments: Sequence[Segment], lines: int = 2) -> list[Segment]:
    """From what is trained on, with the last few lines before it; everything where nothing is trained."""
    first = next((at for at, (_, role) in enumerate(segments) if "trained" in role), 0)
    before: list[Segment] = []
    for at in range(first - 1, -1, -1):
        text, role = segments[at]
        breaks = text.count("\n")
        if breaks > lines:
            rest = "\n".join(text.rsplit("\n", lines + 1)[1:])
            return [("⋯ ", "boundary"), (rest, role), *before, *segments[first:]]
        lines -= breaks
        before.insert(0, (text, role))
    return list(segments)


def as_above(sides: Sequence[Side]) -> list[Side]:
    """Sides of a pair with the prompt written once: where a later side begins as the first does, it says so."""
    if len(sides) < 2:
        return list(sides)
    first = sides[0][1]
    found = [sides[0]]
    for title, segments in sides[1:]:
        same = 0
        while (
            same < min(len(first), len(segments)) and first[same] == segments[same] and "trained" not in first[same][1]
        ):
            same += 1
        found.append((title, [("⋯ the same prompt\n", "boundary"), *segments[same:]] if same else segments))
    return found


def _shown(text: str) -> str:
    return safe(text, newlines=True).replace("\n", "⏎\n")


def _role(trained: bool, special: bool) -> Role:
    if special:
        return "special-trained" if trained else "special"
    return "trained" if trained else "context"


def _at_most(segments: Sequence[Segment], most: int) -> list[Segment]:
    """The first `most` characters, and how many there are beyond them."""
    whole = sum(len(text) for text, _ in segments)
    if whole <= most:
        return list(segments)
    found: list[Segment] = []
    for text, role in segments:
        if most <= 0:
            break
        found.append((text[:most], role))
        most -= len(text)
    shown = sum(len(text) for text, _ in found)
    return [*found, (f"\n⋯ and {whole - shown:,} characters more", "mark")]


class MaskedPreview(VerticalScroll):
    """One example as the model will see it, or the two sides of a pair one below the other.

    `show` takes what `of_pieces` and `of_tokens` give: foreign text is made safe there.
    """

    DEFAULT_CSS = """
    MaskedPreview {
        height: 1fr;

        & > Static { width: 1fr; height: auto; }
        & > .masked--title { color: $foreground; text-style: bold; }
        & > .masked--trained { color: $foreground; text-style: bold; }
        & > .masked--context { color: $foreground 55%; }
        & > .masked--special { color: $accent; text-style: none; }
        & > .masked--special-trained { color: $accent; text-style: bold; }
        & > .masked--boundary { color: $foreground 35%; text-style: none; }
        & > .masked--mark { color: $warning; }
        & > .masked--cut { color: $foreground 45%; text-style: strike; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"masked--{role}" for role in get_args(Role)}
    HELP = (
        "One row exactly as the model will see it. Bold text is trained: the model learns to write it. "
        "The rest is context it only reads. Marks like <|im_end|> are special tokens, ⏎ is a line feed. "
        "↑ and ↓ scroll."
    )

    def __init__(self, sides: Sequence[Side] = (), *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._sides = list(sides)

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    def on_mount(self) -> None:
        self._draw()

    def show(self, sides: Sequence[Side], *, stay: bool = False) -> None:
        """Show another example, from its beginning; `stay` where the same one is drawn otherwise."""
        if list(sides) == self._sides:
            return
        self._sides = list(sides)
        if self.is_mounted:
            self._draw()
            if not stay:
                self.scroll_home(animate=False)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._sides and self.is_mounted:
            self._draw()

    def _draw(self) -> None:
        parts: list[Segment] = []
        for title, segments in as_above(self._sides):
            if parts:  # one line of air, whether or not the text before ends its line
                parts.append(("\n" if parts[-1][0].endswith("\n") else "\n\n", "context"))
            if title:
                parts.append((safe(title) + "\n", "title"))
            parts += _at_most(segments, MOST)
        styled = ((text, self.get_visual_style(f"masked--{role}")) for text, role in parts)
        self.query_one(Static).update(Content.assemble(*styled))

    def action_scroll_up(self) -> None:
        """At the top, move on to the thing before."""
        if self.scroll_offset.y == 0:
            self.screen.focus_previous()
        else:
            super().action_scroll_up()
