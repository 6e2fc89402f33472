"""The exact text the model will see: trained tokens bright, context dim, special tokens marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.text import safe

Piece = tuple[str, bool]  # text, has a loss?
# How the common templates write special tokens: <|im_start|>, <s>, [INST], <<SYS>>, <start_of_turn>, <｜User｜>.
_SPECIAL = re.compile(
    r"<[|｜][^|｜<>\s]{1,40}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
)


def runs(pieces: Sequence[Piece]) -> list[tuple[str, bool, bool]]:
    """Pieces as (safe text, trained, special); line feeds stay, each with a visible ⏎ before it."""
    found = []
    for text, trained in pieces:
        begin = 0
        for match in _SPECIAL.finditer(text):
            found.append((text[begin : match.start()], trained, False))
            found.append((match.group(), trained, True))
            begin = match.end()
        found.append((text[begin:], trained, False))
    return [
        (safe(text, newlines=True).replace("\n", "⏎\n"), trained, special) for text, trained, special in found if text
    ]


class MaskedPreview(VerticalScroll):
    """One example as the model will see it. `show` takes pieces straight from the data: they are made safe here."""

    DEFAULT_CSS = """
    MaskedPreview {
        height: 1fr;

        & > Static { width: 1fr; height: auto; }
        & > .masked--trained { color: $foreground; text-style: bold; }
        & > .masked--context { color: $foreground 55%; }
        & > .masked--special { color: $accent; text-style: none; }
        & > .masked--special-trained { color: $accent; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "masked--trained",
        "masked--context",
        "masked--special",
        "masked--special-trained",
    }
    HELP = (
        "One row exactly as the model will see it. Bold text is trained: the model learns to write it. "
        "The rest is context it only reads. Marks like <|im_end|> are special tokens, ⏎ is a line feed."
    )

    def __init__(self, pieces: Sequence[Piece] = (), *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._pieces = list(pieces)

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    def on_mount(self) -> None:
        self._draw()

    def show(self, pieces: Sequence[Piece]) -> None:
        """Show another example, from its beginning."""
        if list(pieces) == self._pieces:
            return
        self._pieces = list(pieces)
        if self.is_mounted:
            self._draw()
            self.scroll_home(animate=False)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._pieces and self.is_mounted:
            self._draw()

    def _draw(self) -> None:
        parts = []
        for text, trained, special in runs(self._pieces):
            name = ("special-trained" if trained else "special") if special else ("trained" if trained else "context")
            parts.append((text, self.get_visual_style(f"masked--{name}")))
        self.query_one(Static).update(Content.assemble(*parts))
