"""Chat: the base model and the tuned one, asked the same, side by side. The worker of the run answers over its socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from engine.errors import FtuiError
from engine.models.sources import short_name
from engine.runs import directory
from engine.text import duration, safe, shorten
from tui.frame import BASE, FAINT, TUNED, Frame
from tui.widgets.chatlog import GLYPHS, SIDES, ChatLog, Reply, Showing, Turn, told
from tui.widgets.connection import Connection, step_of_weights
from tui.widgets.conversation import Conversation, Exchange, Sampling, Side, how_it_went, parse
from tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from engine.runs.directory import RunDir

Entry = Literal["ask", "edit", "system", "settings"]
LABELS: dict[Entry, str] = {"ask": "> ", "edit": "edit > ", "system": "system > ", "settings": "settings > "}
HINTS: dict[Entry, str] = {
    "ask": "Ask something",
    "edit": "",
    "system": "What the models are told before the talk; empty for none",
    "settings": "",
}
SHOWN: tuple[Showing, ...] = ("both", "tuned", "base")
STACK_BELOW = 80  # columns: two answers side by side need at least these
_COLOURS: dict[Side, str] = {"base": BASE, "tuned": TUNED}


class ChatScreen(Frame):
    """A talk with one run's models. Nothing is reloaded to change between them: the adapter is switched."""

    TITLE = "Chat"
    CSS_PATH = "chat.tcss"
    HELP = (
        "Ask, and both models answer: the base model as it was, and the tuned one. Each goes on from its own answers. "
        "A system prompt counts from the question that it stands above. "
        "Tab shows both, only tuned, or only base; those shown are asked. Up takes the last question back to edit it. "
        "Page up and page down scroll. "
        "Temperature 0 always takes the likeliest token; top-p leaves unlikely ones out; length is in tokens."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "turn", "Base/tuned", id="chat.which", tooltip="Both, tuned alone, base alone"),
        Binding("ctrl+r", "again", "Again", id="chat.again", tooltip="Answer the last question once more"),
        Binding("escape", "stop", "Stop", id="chat.stop", tooltip="Stop the answer"),
        Binding("escape", "back", "Back", id="chat.back", tooltip="Leave the line that is edited, else the chat"),
        Binding("ctrl+s", "system", "System", id="chat.system", tooltip="The system prompt"),
        Binding("ctrl+t", "settings", "Settings", id="chat.settings", tooltip="Temperature, top-p, length, seed"),
        Binding(
            "ctrl+o", "compare", "Compare", show=False, id="chat.compare", tooltip="Measure the two against each other"
        ),
        # Ahead of the line that is typed, which has pages of its own by these keys.
        Binding("pageup", "scroll(-1)", "Up", show=False, priority=True, id="chat.page-up"),
        Binding("pagedown", "scroll(1)", "Down", show=False, priority=True, id="chat.page-down"),
    ]

    showing: reactive[Showing] = reactive("both", init=False)
    entry: reactive[Entry] = reactive("ask", init=False)

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.talk = Conversation()
        self.sampling = Sampling()
        self._titles: dict[Side, str] = {}
        self._line = Connection(run, lambda: self.call_later(self._loading))
        self._speaking = threading.Lock()  # one thread at a time reads from the socket
        self._asked = 0  # what is asked now has this number; pieces of earlier answers are dropped
        self._busy = False
        self._since: float | None = None  # since when the worker is being waited for
        self._draft = ""  # what was typed before another line was edited

    def body(self) -> ComposeResult:
        yield Horizontal(*(Static(id=f"title-{side}", markup=False) for side in SIDES), id="titles")
        yield Static(id="empty", markup=False)
        yield ChatLog(id="log")
        yield Static(id="told", markup=False)
        with Horizontal(id="entry"):
            yield Static(LABELS["ask"], id="label", markup=False)
            yield Prompt(id="prompt", placeholder=HINTS["ask"])
            yield Static(self.sampling.words(), id="sampling", markup=False)

    def on_mount(self) -> None:
        self._introduce()
        self.query_one("#prompt", Prompt).focus()
        self._show_parts()
        self.set_interval(1, self._show_wait)
        self._get_ready()

    def _introduce(self) -> None:
        self.command = f"ftui chat {directory.handle(self.run)}"
        name = directory.title(self.run)
        self._titles = {"base": "", "tuned": name}
        with contextlib.suppress(FtuiError):
            self._titles["base"] = short_name(self.run.recipe().model.source)
        self.heading = Content.assemble((shorten(safe(name), 40), "bold"), "   chat")

    def _name_weights(self, step: int) -> None:
        name = directory.title(self.run)
        self._titles["tuned"] = f"{name}, step {step}" if step else name
        self._show_parts()

    # the worker's side: threads; what they hand back goes through this screen's own queue ------------------------

    def _in_thread(self, work: Callable[[int], object]) -> None:
        """Run `work` in a thread that dies with the app: a worker that loads for a minute must not hold up leaving."""
        self._asked += 1
        self._busy = True
        task = self._asked

        def guarded() -> None:
            error = None
            try:
                with self._speaking:
                    work(task)
            except Exception as problem:  # whatever it is, the screen must say it: nobody sees a thread's traceback
                error = problem
            self.call_later(self._turned, task, error)

        threading.Thread(target=guarded, daemon=True, name="ftui-chat").start()
        self.refresh_bindings()

    def _answer(self, task: int, asked: list[tuple[Side, Reply, list[dict[str, str]]]], how: Sampling) -> None:
        """Ask one side after the other; there is one model, and it answers one question at a time."""
        for side, reply, messages in asked:
            if task != self._asked:
                return
            answer = self._line.answer(messages, side, how)
            with contextlib.closing(answer):  # type: ignore[type-var]
                for piece in answer:
                    if piece.done and side == "tuned":
                        self._look_at_weights()
                    end = how_it_went(piece.reason, piece.tokens, piece.seconds, how) if piece.done else None
                    self.call_later(self._said, task, reply, piece.text, end)
                    if task != self._asked:
                        return

    def _look_at_weights(self) -> None:
        """In a thread: while a run trains, its weights are of a later step at each answer."""
        self.call_later(self._name_weights, step_of_weights(self.run))

    async def _said(self, task: int, reply: Reply, text: str, end: str | None) -> None:
        """A piece of an answer has come, or its end."""
        if task != self._asked:
            return
        if text:
            await reply.write(text)
        if end is not None:
            await reply.finish(end)
        self.talk.exchanges[-1].answers[reply.side] = reply.text

    def _loading(self) -> None:
        """A worker is waited for, which may have to load the model first."""
        self._since = monotonic()
        for reply in self.query_one(ChatLog).asked:
            if reply.waiting and not reply.begun:
                reply.note("loading the model…")

    async def _turned(self, task: int, error: Exception | None) -> None:
        """The connection stands, or every answer is there, or something went wrong."""
        if task != self._asked:
            return
        self._busy, self._since = False, None
        self._show_wait()
        if error is None:
            self.notice("")
        else:
            self._line.hang_up()
            self.error(error)
            await self._settle("no answer")
        self.refresh_bindings()

    async def _settle(self, note: str) -> None:
        """Answers that were being waited for will not come, or come no further."""
        for reply in self.query_one(ChatLog).asked:
            if reply.waiting:
                await reply.give_up(note)

    def _get_ready(self) -> None:
        """Have the model loaded while the person reads or types."""
        self._since = monotonic()
        self._show_wait()

        def ready(task: int) -> None:
            self._look_at_weights()
            self._line.open()

        self._in_thread(ready)

    def on_screen_resume(self) -> None:
        if not self._busy:
            self._get_ready()  # its worker may have gone meanwhile, or have trained on

    def on_screen_suspend(self) -> None:
        """Elsewhere the memory may be wanted: a worker ends some time after nobody is connected."""
        if not self._busy:
            self._line.hang_up()

    def on_unmount(self) -> None:
        self._asked += 1
        self._line.hang_up()

    # what is shown ----------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._show_parts()

    def watch_showing(self) -> None:
        self.query_one(ChatLog).showing = self.showing
        self._show_parts()

    def _show_parts(self) -> None:
        """Titles, the system prompt to come, empty state and entry line, for the size there is."""
        stacked = self.size.width < STACK_BELOW
        log = self.query_one(ChatLog)
        log.stacked = stacked
        self.set_class(self.showing == "both", "-both")
        for side in SIDES:
            title = self.query_one(f"#title-{side}", Static)
            title.display = self.showing in ("both", side)
            title.update(
                Content.assemble(
                    (f"{GLYPHS[side]} {side}", f"bold {_COLOURS[side]}"), "  ", (safe(self._titles[side]), FAINT)
                )
            )
        coming = self.query_one("#told", Static)
        coming.display = self.talk.coming is not None
        coming.update(told(self.talk.coming or "", " from the next question on" * bool(self.talk.exchanges)))
        self._show_wait()
        sampling = self.query_one("#sampling", Static)
        words = self.sampling.words()
        sampling.update(Content.styled(words, FAINT))
        sampling.styles.width = cell_len(words) + 2
        sampling.display = self.entry != "settings"

    def _show_wait(self) -> None:
        """Before the first question: what goes on, then what to do."""
        empty = self.query_one("#empty", Static)
        empty.display = not self.talk.exchanges
        self.query_one(ChatLog).display = bool(self.talk.exchanges)
        if self._since is not None:
            waited = monotonic() - self._since
            words = "● loading the model…" + (f"  {duration(waited)}" if waited >= 2 else "")
            empty.update(Content.assemble((words, FAINT), ("\n  You can type already.", FAINT)))
        elif self._line.stands:
            empty.update(Content.styled("Type a question and press enter: both models answer it.", FAINT))
        else:
            empty.update(Content.styled("No model answers. ctrl+r tries again, l in Train shows the log.", FAINT))

    def watch_entry(self, before: Entry, entry: Entry) -> None:
        if before != "ask":  # what was wrong with the line that was edited ends with it
            self.notice("")
        self.query_one("#label", Static).update(LABELS[self.entry])
        self.query_one("#prompt", Prompt).placeholder = HINTS[self.entry]
        self._show_parts()
        self.refresh_bindings()

    # acting -----------------------------------------------------------------------------------------------------

    async def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        match self.entry:
            case "system":
                self.talk.system = event.text.strip()
                self._end_entry()
            case "settings":
                try:
                    self.sampling = parse(event.text, self.sampling)
                except ValueError as problem:
                    self.notice(str(problem), "warning", seconds=8)
                    return
                self._end_entry()
            case _:
                await self._ask(event.text.strip())

    async def _ask(self, question: str) -> None:
        if not question:
            return
        if self._answering:
            self.notice("the answer is still coming; escape stops it", seconds=4)
            return
        log = self.query_one(ChatLog)
        if self.entry == "edit" and self.talk.exchanges:
            self.talk.exchanges.pop()
            await log.drop_last()
        self._end_entry(keep="")
        self.talk.exchanges.append(Exchange(question))
        self._show_wait()
        await self._request(await log.ask(question))

    async def _request(self, turn: Turn) -> None:
        """Ask those who are shown, the tuned one first: it is the one that the person came for."""
        sides: list[Side] = ["tuned", "base"] if self.showing == "both" else [self.showing]
        self.talk.exchanges[-1].system = self.talk.system
        turn.tell(self.talk.begun)
        self._show_parts()
        asked = []
        for side in sides:
            reply = await turn.reply(side)
            reply.ask_again()
            asked.append((side, reply, self.talk.messages(side)))
        self.query_one(ChatLog).follow(anew=True)
        how = msgspec.structs.replace(self.sampling)
        self._in_thread(lambda task: self._answer(task, asked, how))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "again":
            return not self._busy and (bool(self.talk.exchanges) or not self._line.stands)
        if action in ("stop", "back"):
            return (action == "stop") == (self.entry == "ask" and self._answering)
        return True

    def action_turn(self) -> None:
        self.showing = SHOWN[(SHOWN.index(self.showing) + 1) % len(SHOWN)]

    async def action_again(self) -> None:
        if self._busy:
            return
        turns = self.query_one(ChatLog).turns
        if turns:
            await self._request(turns[-1])
        else:
            self._get_ready()

    @property
    def _answering(self) -> bool:
        """Else it may be busy with having the model loaded, which holds up nothing."""
        return self._busy and any(reply.waiting for reply in self.query_one(ChatLog).asked)

    async def action_stop(self) -> None:
        self._asked += 1
        self._busy = False
        self._line.stop()
        await self._settle("stopped")
        self.refresh_bindings()

    def action_back(self) -> None:
        """Out of a line that is edited, else out of the chat."""
        if self.entry != "ask":
            self._end_entry()
        else:
            super().action_back()

    def action_system(self) -> None:
        self._begin_entry("system", self.talk.system)

    def action_settings(self) -> None:
        self._begin_entry("settings", self.sampling.line())

    def on_prompt_recall(self) -> None:
        if self.talk.exchanges and self.entry == "ask" and not self._busy:
            self._begin_entry("edit", self.talk.exchanges[-1].question)

    def action_compare(self) -> None:
        self.ftui.show_compare(self.run)

    def action_scroll(self, pages: int) -> None:
        log = self.query_one(ChatLog)
        log.scroll_relative(y=pages * max(1, log.size.height - 2), animate=False)

    def _begin_entry(self, entry: Entry, text: str) -> None:
        prompt = self.query_one("#prompt", Prompt)
        if self.entry == "ask":
            self._draft = prompt.text
        self.entry = entry
        prompt.put(text)
        prompt.focus()

    def _end_entry(self, keep: str | None = None) -> None:
        """Back to asking, with what was typed before."""
        self.query_one("#prompt", Prompt).put(self._draft if keep is None and self.entry != "ask" else keep or "")
        self._draft = ""
        self.entry = "ask"
        self._show_parts()
