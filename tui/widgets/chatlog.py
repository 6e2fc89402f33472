"""A conversation with one model or with two side by side: questions, and streamed answers below each."""

from __future__ import annotations

from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from engine.text import safe
from tui.widgets.conversation import Side
from tui.widgets.markdown import ForeignMarkdown, made_safe

Showing = Literal["both", "base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
GLYPHS: dict[Side, str] = {"base": "○", "tuned": "●"}
# Seconds between two drawings of an answer that comes in. What drawing takes, a model that is read on a processor lacks
# (docs/performance.md).
PACE = 0.1


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

    class Grown(Message):
        """It takes another room than before."""

    def __init__(self, side: Side) -> None:
        super().__init__(classes=f"-{side}")
        self.side = side
        self.text = ""
        self.waiting = True  # for its first piece, or for more
        self.begun = False  # `text` is of the answer that was asked for last, not of one before
        self._went = ""  # the note of the answer that is complete
        self._stream: MarkdownStream | None = None
        self._held = ""  # of `text`, what is not drawn yet
        self._pause: Timer | None = None  # until more is drawn

    def compose(self) -> ComposeResult:
        yield Static(f"{GLYPHS[self.side]} {self.side}", classes="reply--side", markup=False)
        yield ForeignMarkdown()
        yield Static("…", classes="reply--note", markup=False)

    def on_resize(self) -> None:
        self.post_message(self.Grown())

    def note(self, text: str) -> None:
        """What stands below the answer; "" takes the line away."""
        line = self.query_one(".reply--note", Static)
        line.update(safe(text))
        line.display = bool(text)

    def ask_again(self) -> None:
        """Another answer is to come; the one before stays until it begins."""
        self.waiting, self.begun = True, False
        self.note("…")

    async def write(self, delta: str) -> None:
        """Add to the answer."""
        if not self.begun:
            await self._begin()
        self.text += delta
        self._held += delta
        if self._pause is None:
            await self._draw()

    async def _draw(self) -> None:
        held, self._held = self._held, ""
        self._pause = self.set_timer(PACE, self._draw) if held else None
        if held:
            if self._stream is None:
                self._stream = Markdown.get_stream(self.query_one(ForeignMarkdown))
            await self._stream.write(made_safe(held))

    async def _begin(self) -> None:
        self.note("")
        if self.text:
            await self.query_one(ForeignMarkdown).update("")
        self.text, self.begun = "", True

    async def finish(self, note: str) -> None:
        """The answer is complete. It is parsed once more as a whole: a stream may have cut a mark in two."""
        if not self.begun:
            await self._begin()
        stream, self._stream, self.waiting = self._stream, None, False
        if self._pause is not None:
            self._pause.stop()
        self._pause, self._held = None, ""  # all of it is drawn below
        if stream is not None:
            await stream.stop()
        await self.query_one(ForeignMarkdown).update(made_safe(self.text))
        self._went = note
        self.note(note)

    async def give_up(self, note: str) -> None:
        """No more will come. What has come of it stays; where nothing has, the answer before does, with its own note."""
        if self.begun or not self.text:
            await self.finish(note)
        else:
            self.waiting = False
            self.note(self._went)


def told(system: str, since: str = "") -> Content:
    """A system prompt that begins to count, in one line. Foreign text, made safe here."""
    return Content.assemble((f"system{since}  ", "$faint"), (safe(system), "") if system else ("none", "$faint"))


class Turn(Vertical):
    """A question, above it the system prompt where it is another one from here on, and below it the answers."""

    DEFAULT_CSS = """
    Turn {
        height: auto;
        margin: 0 0 1 0;

        & > .turn--told { height: 1; margin: 0 0 1 0; text-wrap: nowrap; text-overflow: ellipsis; display: none; }
        & > .turn--question { height: auto; text-style: bold; margin: 0 0 1 0; }
        & > Horizontal { height: auto; }
    }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question
        self._row = Horizontal()
        self.replies: dict[Side, Reply] = {}

    def compose(self) -> ComposeResult:
        yield Static(classes="turn--told", markup=False)
        yield Static(Content(f"> {safe(self._question, newlines=True)}"), classes="turn--question", markup=False)
        yield self._row

    def tell(self, system: str | None) -> None:
        """The system prompt that counts from this question on; None where it is the one before."""
        line = self.query_one(".turn--told", Static)
        line.display = system is not None
        line.update(told(system or ""))

    async def reply(self, side: Side) -> Reply:
        """The answer of `side`, made on first use; base always stands at the left."""
        if side not in self.replies:
            self.replies[side] = reply = Reply(side)
            await self._row.mount(reply, before=0 if side == "base" and len(self._row.children) else None)
        return self.replies[side]

    def ends(self) -> list[int]:
        """The lines of the turn after which the answers end that are seen and have begun."""
        seen = [reply for reply in self.replies.values() if reply.display and reply.text]
        return [self._row.virtual_region.y + reply.virtual_region.bottom for reply in seen]


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

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._following = True

    def follow(self, anew: bool = False) -> None:
        """Keep in view what is to be read, now and while more comes, unless the person scrolled elsewhere and not back.

        anew  wherever the person scrolled
        """
        self._following = self._following or anew
        self.call_after_refresh(self._follow)

    def _follow(self) -> None:
        if self._following:
            self.scroll_to(y=self._place, animate=False, immediate=True)
            self._following = True

    @property
    def _place(self) -> float:
        """Where following leads: to the end, but side by side never past the end of the shorter answer, nor past the question
        where that answer fits on the screen with it."""
        turns = self.turns
        if not turns:
            return 0
        question = turns[-1].virtual_region.y
        end = max if self.stacked else min
        below = end(turns[-1].ends(), default=0) - self.scrollable_content_region.height
        return min(self.max_scroll_y, question + max(0, below))

    def release_anchor(self) -> None:
        """The person scrolls, by whatever means."""
        super().release_anchor()
        self._following = False

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._following = self._following or new_value == self._place

    def on_resize(self) -> None:
        self.follow()

    def on_reply_grown(self) -> None:
        self._follow()

    def watch_showing(self, before: Showing, after: Showing) -> None:
        self.remove_class("-both", "-base", "-tuned").add_class(f"-{after}")
        self.follow()

    @property
    def turns(self) -> list[Turn]:
        return list(self.query(Turn))

    @property
    def asked(self) -> list[Reply]:
        """The answers of the last turn."""
        return [reply for turn in self.turns[-1:] for reply in turn.replies.values()]

    async def ask(self, question: str) -> Turn:
        """Add a turn and go to it."""
        turn = Turn(question)
        await self.mount(turn)
        self.follow(anew=True)
        return turn

    async def drop_last(self) -> None:
        """Take the last turn away."""
        if self.turns:
            await self.turns[-1].remove()
            self.follow()
