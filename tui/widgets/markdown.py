"""Markdown from a language model, shown without obeying it: no links, no images, no HTML, no character references.

Textual's Markdown widget turns links and images into actions that open a browser, resolves `&#x202e;` to the very
character that `engine.text.safe` had made visible, and chooses a highlighter by a name in the text. None of that is
wanted for foreign text.
"""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownParagraph
from textual.widgets.markdown import MarkdownFence

from engine.text import safe

_OFF = ("link", "image", "autolink", "reference", "entity", "html_inline", "html_block")


@cache  # a stream asks for it at every piece
def parser() -> MarkdownIt:
    """CommonMark with tables and strike-through, less everything that points or hides."""
    options = {"html": False, "linkify": False, "typographer": False, "breaks": True}
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable(list(_OFF))


class GrowingParagraph(MarkdownParagraph):
    """A paragraph that comes in piece by piece: the screen is laid out anew only when it needs another line."""

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        size = self.content_size
        if layout and size.width and isinstance(content, Content):
            layout = content.get_height(self.styles, size.width) != size.height  # type: ignore[arg-type]
        super().update(content, layout=layout)


class PlainFence(MarkdownFence):
    """A code block in one colour: no lexer is run on what a model wrote."""

    DEFAULT_CSS = """
    PlainFence { margin: 0 0 1 0; }
    PlainFence > Label { padding: 0 1; }
    """

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return Content(code)


class ForeignMarkdown(Markdown):
    """Markdown whose text may hold anything. Give raw text to `show` and `stream_text`; it is made safe here."""

    DEFAULT_CSS = """
    ForeignMarkdown { padding: 0; }
    ForeignMarkdown > MarkdownH1, ForeignMarkdown > MarkdownH2, ForeignMarkdown > MarkdownH3 {
        content-align: left middle;
        text-style: bold;
        margin: 0 0 1 0;
        color: $foreground;
    }
    """
    BLOCKS = {**Markdown.BLOCKS, "paragraph_open": GrowingParagraph, "fence": PlainFence, "code_block": PlainFence}

    def __init__(self, text: str = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(made_safe(text), parser_factory=parser, open_links=False, id=id, classes=classes)


def made_safe(text: str) -> str:
    """Foreign text ready for a `ForeignMarkdown`. Works piece by piece: no state is kept between calls."""
    return safe(text, newlines=True)
