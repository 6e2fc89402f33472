"""What a chat template writes around the texts of a conversation: rendered once, filled in for every row of its kind.

Jinja renders some thousand rows a second, each more than once; filling in is a hundred times as fast. It is the same
only where the template does nothing with a text but write it out, so this is established and not assumed:
  - the template is rendered with stand-ins of several kinds; what it writes around them must be the same for all
  - rows whose texts are empty, hold a control token or something that the template looks for are rendered one by one
  - `counting` compares rows of every data set with their real rendering
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import itemgetter

import msgspec
from msgspec import Struct

from engine.data.convert import Example, Message
from engine.data.rendering import Rendered
from engine.errors import FtuiError

Kind = tuple[str, ...]
Render = Callable[[Example], Sequence[Rendered]]  # the two sides of a preference pair, else one

# Stand-ins for texts: of different beginnings, ends, scripts and lengths, with what a template might escape. And white
# space around them, which templates treat in different ways.
_STAND_INS = ("Zq{}k", "甲{}乙" * 9, '({}) "x" {y} {{0}}\n\n  & \\ %s', "7{}.")
_AROUND = ("\n", " ", " \n ", "\n\t")
_KINDS = 512  # of rows, that skeletons are made for; where there are more, hardly two rows are of a kind


class Skeleton(Struct, frozen=True, eq=False):
    """One side of a rendered row with its texts left open, cut where a trained stretch begins or ends.

    texts     how many there are
    literals  what is written around them
    pieces    each a way to take its parts from [*literals, *texts]
    trained   which of them have a loss
    trimmed   texts that the template takes white space off, at both ends
    tight     texts with a cut at one of their ends that are not trimmed: they may not begin or end in white space
    frame     what is written around the texts, where finding the answer compares it with them; else empty
    others    as in Rendered
    """

    texts: int
    literals: tuple[str, ...]
    pieces: tuple[Callable[[Sequence[str]], tuple[str, ...]], ...]
    trained: tuple[bool, ...]
    trimmed: tuple[int, ...]
    tight: tuple[int, ...]
    frame: str
    special: bool
    rewritten: bool
    diverges: bool

    def fill(self, given: Sequence[str]) -> list[str] | None:
        """The pieces of a row that has these texts; None if it may be written in another way."""
        for at in self.tight:
            if given[at].strip() != given[at]:
                return None
        if self.trimmed:
            given = [text.strip() if at in self.trimmed else text for at, text in enumerate(given)]
        # A text that begins with a mark ("<think>") may be what the prompt would have gone on with.
        if self.frame and any(text in self.frame or not text[0].isalnum() for text in given):
            return None
        return self.written(given)

    def written(self, given: Sequence[str]) -> list[str]:
        """The pieces of a row that has these texts, whatever they are."""
        parts = [*self.literals, *given]
        return ["".join(piece(parts)) for piece in self.pieces]


class Refused:
    """Texts that nothing is taken for granted about: those in which some pattern is found.

    narrow  a character, and a pattern that begins with it
    wide    members of classes of characters beyond ASCII, as in "[…]"
    """

    def __init__(self, narrow: Iterable[tuple[str, str]] = (), wide: Sequence[str] = ()) -> None:
        first: dict[str, list[str]] = {}
        for character, pattern in narrow:
            first.setdefault(character, []).append(pattern)
        # By first character, which is looked for before: that is a hundred times as fast as a pattern.
        self._narrow = [(character, re.compile("|".join(alike)).search) for character, alike in first.items()]
        self._wide = re.compile(f"[{''.join(wide)}]").search if wide else None

    def __call__(self, text: str) -> bool:
        for character, search in self._narrow:
            if character in text and search(text):
                return True
        return self._wide is not None and not text.isascii() and self._wide(text) is not None


class Skeletons:
    """Skeletons by kind of row, made when the first row of a kind comes.

    refused  texts that keep a row from being filled in
    accept   has the last word on a skeleton
    """

    def __init__(self, render: Render, refused: Refused, accept: Callable[[Skeleton], bool]) -> None:
        self._render = render
        self._refused = refused
        self._accept = accept
        self._known: dict[Kind, tuple[Skeleton, ...] | None] = {}

    def fill(self, example: Example) -> list[tuple[Skeleton, list[str]]] | None:
        """For each side of the row its skeleton and the pieces of its text; None if it must be rendered by itself."""
        name = kind(example)
        if name is None:
            return None
        given = texts(example)
        for text in given:
            if not text or text.isspace() or self._refused(text):
                return None
        if name not in self._known:
            self._known[name] = self._make(example, len(given)) if len(self._known) < _KINDS else None
        found = []
        for skeleton in self._known[name] or ():
            pieces = skeleton.fill(given)
            if pieces is None:
                return None
            found.append((skeleton, pieces))
        return found or None

    def _make(self, example: Example, count: int) -> tuple[Skeleton, ...] | None:
        def stand_ins(which: int) -> list[str]:
            return [_STAND_INS[which].replace("{}", str(at)) for at in range(count)]

        try:
            bare = stand_ins(0)
            sides = [_open(rendered, bare) for rendered in self._render(_filled(example, bare))]
            made = tuple(side for side in sides if side is not None)
            if len(made) < len(sides):
                return None
            made = self._loosened(made, example, bare)
            for which, space in enumerate(_AROUND):
                for around in ("", space):
                    given = [
                        text if at in made[0].tight else around + text + around
                        for at, text in enumerate(stand_ins(which))
                    ]
                    rendered = self._render(_filled(example, given))
                    filled = [side.fill(given) for side in made]  # None where such a row is rendered by itself
                    for one, pieces, side in zip(rendered, filled, made, strict=True):
                        if pieces is not None and not _same(one, pieces, side):
                            return None
        except FtuiError:
            return None
        return made if all(map(self._accept, made)) else None

    def _loosened(self, sides: tuple[Skeleton, ...], example: Example, bare: list[str]) -> tuple[Skeleton, ...]:
        """The skeletons with `trimmed` and `tight` as the template is seen to treat white space around texts."""
        kept, trimmed = set(range(len(bare))), set(range(len(bare)))
        for around in _AROUND:
            rendered = self._render(_filled(example, [around + text + around for text in bare]))
            for one, side in zip(rendered, sides, strict=True):
                seen = _outer(one.text, side, bare, around)
                kept &= {at for at, text in seen.items() if text == around + bare[at] + around}
                trimmed &= {at for at, text in seen.items() if text == bare[at]}
        tight = set(range(len(bare))) - kept - trimmed | {at for side in sides for at in side.tight if at in kept}
        return tuple(
            msgspec.structs.replace(side, trimmed=tuple(sorted(trimmed)), tight=tuple(sorted(tight))) for side in sides
        )


def kind(example: Example) -> Kind | None:
    """Rows of a kind are rendered alike but for their texts. None for those that are more than texts (tools)."""
    if example.messages is None:
        return ("text",)
    if example.tools:
        return None
    found = []
    for part, turns in (("", example.messages), ("chosen", example.chosen), ("rejected", example.rejected)):
        if turns is None:
            continue
        found.append(part)
        for turn in turns:
            if turn.tool_calls or turn.tool_call_id or turn.name:
                return None
            found.append(turn.role if turn.trained else "-" + turn.role)
    return tuple(found)


def texts(example: Example) -> list[str]:
    """All texts of an example, in the order in which skeletons count them."""
    if example.messages is None:
        return [example.text or ""]
    found = [turn.content for turn in example.messages]
    if example.chosen is not None:
        found += [turn.content for turn in example.chosen]
    if example.rejected is not None:
        found += [turn.content for turn in example.rejected]
    return found


def _filled(example: Example, given: Sequence[str]) -> Example:
    """The example with other texts, in the order of `texts`."""
    if example.messages is None:
        return msgspec.structs.replace(example, text=given[0])
    left = iter(given)

    def turns(old: list[Message] | None) -> list[Message] | None:
        return old and [msgspec.structs.replace(turn, content=next(left)) for turn in old]

    messages, chosen, rejected = turns(example.messages), turns(example.chosen), turns(example.rejected)
    return msgspec.structs.replace(example, messages=messages, chosen=chosen, rejected=rejected)


def _open(rendered: Rendered, stand_ins: Sequence[str]) -> Skeleton | None:
    """A rendering without its stand-ins; None if one stands there twice, or a cut goes through one."""
    text = rendered.text
    found: list[tuple[int, int, int]] = []  # where each stand-in begins and ends, and which it is
    for which, stand_in in enumerate(stand_ins):
        if text.count(stand_in) > 1:
            return None
        if (begin := text.find(stand_in)) >= 0:  # what follows the last answer is left out
            found.append((begin, begin + len(stand_in), which))
    found.sort()
    # Where an answer ends is seen from what follows, which must not be a text that is different in each row.
    if rendered.literal or any(begin == stop for _, stop in rendered.trained for begin, _, _ in found):
        return None
    edges = [edge for span in rendered.trained for edge in span]
    literals: list[str] = []
    pieces: list[list[int]] = []  # parts: a literal, or minus one minus the number of a text
    trained: list[bool] = []
    for number, (start, stop) in enumerate(pairwise([0, *edges, len(text)])):
        if start == stop:
            continue
        piece, at = [], start
        for begin, end, which in found:
            if begin < stop and end > start:
                if begin < at or end > stop:
                    return None
                piece += [len(literals), -1 - which]
                literals.append(text[at:begin])
                at = end
        piece.append(len(literals))
        literals.append(text[at:stop])
        pieces.append(piece)
        trained.append(number % 2 == 1)
    frame = re.sub("|".join(map(re.escape, stand_ins)), "\\0", text)
    inner = {edge for edge in edges if 0 < edge < len(text)}
    return Skeleton(
        len(stand_ins),
        tuple(literals),
        tuple(_getter([part if part >= 0 else len(literals) - 1 - part for part in piece]) for piece in pieces),
        tuple(trained),
        trimmed=(),
        tight=tuple(which for begin, end, which in found if {begin, end} & inner),
        frame=frame if rendered.rewritten or rendered.diverges else "",
        special=rendered.special,
        rewritten=rendered.rewritten,
        diverges=rendered.diverges,
    )


def _getter(places: list[int]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """What takes these places of a list; always a tuple, which `itemgetter` gives for two and more."""
    return itemgetter(*places) if len(places) > 1 else lambda parts: (parts[places[0]],)


def _outer(text: str, skeleton: Skeleton, bare: Sequence[str], around: str) -> dict[int, str]:
    """What stands in a rendering for each text that was given in white space."""
    names = [f"\0{at}\0" for at in range(len(bare))]
    pattern = ""
    for number, part in enumerate(re.split("\0(\\d+)\0", "".join(skeleton.written(names)))):
        if number % 2:
            word = re.escape(bare[int(part)])
            pattern += f"(?P<t{part}>{re.escape(around)}{word}{re.escape(around)}|{word}|\\s*{word}\\s*)"
        else:
            pattern += re.escape(part)
    match = re.fullmatch(pattern, text)
    return {int(name[1:]): found for name, found in match.groupdict().items()} if match else {}


def _same(rendered: Rendered, pieces: list[str], skeleton: Skeleton) -> bool:
    """True if a row that is filled in is the row that is rendered."""
    spans, at = [], 0
    for piece, trained in zip(pieces, skeleton.trained, strict=True):
        spans += [(at, at + len(piece))] if trained else []
        at += len(piece)
    filled = Rendered("".join(pieces), spans, [], skeleton.special, skeleton.rewritten, skeleton.diverges)
    return rendered == filled
