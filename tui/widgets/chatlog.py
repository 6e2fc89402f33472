"""A conversation with one model or with two side by side: questions, and streamed answers below each."""

from __future__ import annotations

from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from engine.text import safe
from tui.widgets.conversation import Side
from tui.widgets.markdown import ForeignMarkdown, made_safe

Showing = Literal["both", "base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
GLYPHS: dict[Side, str] = {"base": "○", "tuned": "●"}


class Reply(Vertical):
    """One answer of one side: its text as Markdown, and a faint line about how it went."""

    DEFAULT_CSS = """
    Reply {
        height: auto;
        width: 1fr;

        & > .reply--side { height: 1; text-style: bold; display: none; }
        & > .reply--note { height: auto; color: $foreground 55%; }
        & > ForeignMarkdown > MarkdownParagraph { margin: 0; }
        & > ForeignMarkdown > MarkdownParagraph:last-child { margin: 0; }
    }
    """

    def __init__(self, side: Side) -> None:
        super().__init__(classes=f"-{side}")
        self.side = side
        self.text = ""
        self.waiting = True  # for its first piece, or for more
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield Static(f"{GLYPHS[self.side]} {self.side}", classes="reply--side", markup=False)
        yield ForeignMarkdown()
        yield Static("…", classes="reply--note", markup=False)

    def note(self, text: str) -> None:
        """What stands below the answer; "" takes the line away."""
        line = self.query_one(".reply--note", Static)
        line.update(safe(text))
        line.display = bool(text)

    async def reset(self) -> None:
        """Forget the answer: another one is to come."""
        await self.finish("…")
        self.text, self.waiting = "", True
        await self.query_one(ForeignMarkdown).update("")

    async def write(self, delta: str) -> None:
        """Add to the answer."""
        if not self.text:
            self.note("")
        self.text += delta
        if self._stream is None:
            self._stream = Markdown.get_stream(self.query_one(ForeignMarkdown))
        await self._stream.write(made_safe(delta))

    async def finish(self, note: str) -> None:
        """The answer is complete. It is parsed once more as a whole: a stream may have cut a mark in two."""
        stream, self._stream, self.waiting = self._stream, None, False
        if stream is not None:
            await stream.stop()
        await self.query_one(ForeignMarkdown).update(made_safe(self.text))
        self.note(note)


class Turn(Vertical):
    """A question, and below it the answers."""

    DEFAULT_CSS = """
    Turn {
        height: auto;
        margin: 0 0 1 0;

        & > .turn--question { height: auto; text-style: bold; margin: 0 0 1 0; }
        & > Horizontal { height: auto; }
    }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question
        self.replies: dict[Side, Reply] = {}

    def compose(self) -> ComposeResult:
        yield Static(Content(f"> {safe(self._question, newlines=True)}"), classes="turn--question", markup=False)
        yield Horizontal()

    async def reply(self, side: Side) -> Reply:
        """The answer of `side`, made on first use; base always stands at the left."""
        if side not in self.replies:
            row = self.query_one(Horizontal)
            self.replies[side] = reply = Reply(side)
            await row.mount(reply, before=0 if side == "base" and len(row.children) else None)
        return self.replies[side]


class ChatLog(VerticalScroll):
    """Turns, newest last. `showing` says whose answers are seen; `stacked` puts them below each other."""

    DEFAULT_CSS = """
    ChatLog {
        height: 1fr;
        scrollbar-gutter: stable;

        & Reply.-tuned { padding: 0 0 0 2; }
        & Reply.-base { padding: 0 1 0 0; }
        &.-tuned Reply.-base, &.-base Reply.-tuned { display: none; }
        &.-tuned Reply.-tuned, &.-base Reply.-base { padding: 0; }
        &.-stacked Turn > Horizontal { layout: vertical; }
        &.-stacked Reply { padding: 0; }
        &.-stacked.-both Reply { margin: 0 0 1 0; }
        &.-stacked.-both Reply > .reply--side { display: block; }
    }
    """
    HELP = (
        "The conversation. Each side keeps its own history: base answers to base's answers, tuned to tuned's. "
        "Links in an answer are never followed."
    )

    showing: reactive[Showing] = reactive("both")
    stacked: reactive[bool] = reactive(False, toggle_class="-stacked")

    def follow(self) -> None:
        """Keep the end in view while more comes, unless the person scrolled up.

        Only where there is more than fits: Textual 8.2 pushes the content of an anchored container down to its bottom.
        """
        self.call_after_refresh(self._follow)

    def _follow(self) -> None:
        overflows = self.virtual_size.height > self.scrollable_content_region.height
        if overflows != self.is_anchored:
            self.anchor(overflows)
            if not overflows:
                self.scroll_home(animate=False)

    def watch_showing(self, before: Showing, after: Showing) -> None:
        self.remove_class("-both", "-base", "-tuned").add_class(f"-{after}")

    @property
    def turns(self) -> list[Turn]:
        return list(self.query(Turn))

    async def ask(self, question: str) -> Turn:
        """Add a turn and go to the end."""
        turn = Turn(question)
        await self.mount(turn)
        if self.is_anchored:
            self.anchor()  # even if the person had scrolled up
        self.follow()
        return turn

    async def drop_last(self) -> None:
        """Take the last turn away."""
        if self.turns:
            await self.turns[-1].remove()
            self.follow()
