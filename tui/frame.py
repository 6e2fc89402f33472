"""The frame that every screen shares: one line of header, the body, a notice, the command line, the keys.

A screen subclasses `Frame`, gives `body()`, and sets `heading` and `command` as things change:

    class DoctorScreen(Frame):
        TITLE = "Doctor"
        HELP = "What this machine has, and what is missing."

        def body(self) -> ComposeResult: ...

`HELP` on a screen or on any widget is what `?` shows while it has the focus.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Static
from textual.widgets._footer import FooterKey
from textual.worker import get_current_worker

from engine.errors import FtuiError
from engine.text import safe, shorten
from tui.spoken import spoken

if TYPE_CHECKING:
    from tui.app import FtuiApp

# The colour roles, as styles for Content. Each is always accompanied by a glyph or a word.
FOCUS, GOOD, WARN, BAD, BASE, TUNED, FAINT = (
    "$primary",
    "$success",
    "$warning",
    "$error",
    "$base-model",
    "$tuned-model",
    "$faint",
)

T = TypeVar("T")
Level = Literal["note", "good", "warning", "bad"]
MARKS: dict[str, tuple[str, str]] = {"note": ("·", ""), "good": ("✓", GOOD), "warning": ("!", WARN), "bad": ("✗", BAD)}
MODE_KEYS: tuple[tuple[str, str, str], ...] = (  # key, mode, word
    ("1", "runs", "Runs"),
    ("2", "new", "New"),
    ("3", "train", "Train"),
    ("4", "chat", "Chat"),
    ("5", "export", "Export"),
    ("6", "doctor", "Doctor"),
)
FOOTER_KEYS = 6
KEY_GAP = 2  # cells between two of them


def told(error: FtuiError) -> str:
    """The lines of an error, safe to show; what follows the cause is indented below it."""
    return "\n  ".join(safe(spoken(line)) for line in error.lines())


class Header(Static):
    """Title left, machine right."""

    def on_mount(self) -> None:
        self.watch(self.screen, "heading", self._show)
        self.watch(self.app, "machine", self._show, init=False)

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        frame = cast(Frame, self.screen)
        machine = frame.ftui.machine
        width = self.content_size.width
        heading = frame.heading if isinstance(frame.heading, Content) else Content.styled(safe(frame.heading), "bold")
        room = width - cell_len(machine) - 2
        if heading.cell_length > room:  # what the person does outranks what the machine does
            machine = ""
        space = " " * max(1, width - heading.cell_length - cell_len(machine))
        self.update(heading + Content(space) + Content.styled(machine, FAINT))


class Notice(Static):
    """One line that says what just happened; no line at all while there is nothing to say."""


class CommandLine(Static):
    """The command that does the same, and the modes where there is room for them."""

    def on_mount(self) -> None:
        self.watch(self.screen, "command", self._show)

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        frame = cast(Frame, self.screen)
        width = self.content_size.width
        left = Content.styled("$ ", FAINT) + Content(shorten(safe(frame.command), max(0, width - 2)))
        parts: list[Content] = []
        for key, mode, word in MODE_KEYS:
            here = mode == frame.ftui.mode_name
            parts.append(Content.assemble((key, "bold" if here else FAINT), " ", (word, "bold" if here else FAINT)))
        for gap in ("  ", " "):
            modes = Content(gap).join(parts)
            space = width - left.cell_length - modes.cell_length
            if space >= 2:
                self.update(left + Content(" " * space) + modes)
                return
        self.update(left)


class Keys(Footer):
    """At most six keys, as many as fit, help always the last of them."""

    _drawn: tuple[tuple[str, str, bool], ...] = ()
    _drawn_for = 0  # cells

    def bindings_changed(self, screen: Screen) -> None:
        """Draw anew only when a key did change: screens refresh their bindings each time they look at a run."""
        now = tuple(
            (binding.key, binding.description, enabled)
            for _, binding, enabled, _ in screen.active_bindings.values()
            if binding.show
        )
        if now != self._drawn and screen.app.app_focus:
            self._drawn = now
            super().bindings_changed(screen)

    def compose(self) -> ComposeResult:
        if not self._bindings_ready:
            return
        shown: dict[str, FooterKey] = {}
        for _, binding, enabled, tooltip in self.screen.active_bindings.values():
            if binding.show and binding.action not in shown:
                shown[binding.action] = FooterKey(
                    binding.key,
                    self.app.get_key_display(binding),
                    binding.description,
                    binding.action,
                    disabled=not enabled,
                    tooltip=tooltip or binding.description,
                )
        # ? where it is not typed into a field, F1 everywhere: one of them is enough.
        helps = [shown.pop(action, None) for action in ("app.help", "help")]
        help_key = next(filter(None, helps), None)
        yield from self._fitting(list(shown.values())[: FOOTER_KEYS - 1], help_key)

    def on_resize(self) -> None:
        if self._bindings_ready and self._room != self._drawn_for:
            self.call_after_refresh(self.recompose)

    @property
    def _room(self) -> int:
        """Of the footer as it is laid out: the terminal may have changed already, and is told as a resize only if that lasts."""
        return (self.outer_size.width or self.app.size.width) - self.gutter.width

    def _fitting(self, keys: list[FooterKey], last: FooterKey | None) -> list[FooterKey]:
        """The keys that have room, none of them cut. Escape goes first, which leads back everywhere; then those at the end."""
        self._drawn_for = room = self._room
        ends = [last] if last else []
        while keys and sum(map(_wide, [*keys, *ends])) - KEY_GAP > room:
            keys.remove(next((key for key in keys if key.action in ("back", "close")), keys[-1]))
        return [*keys, *ends]


def _wide(key: FooterKey) -> int:
    """Cells that a key takes in the footer, with the gap behind it (see app.tcss)."""
    return cell_len(key.key_display) + 1 + cell_len(key.description) + KEY_GAP


class Frame(Screen[None]):
    """Base of every screen of ftui."""

    TITLE = "ftui"
    HELP: ClassVar[str | None] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", show=False, id="frame.back"),
    ]

    heading: reactive[str | Content] = reactive("", layout=False)  # what the header says; TITLE until set
    command: reactive[str] = reactive("ftui")  # the command line that does the same, without "$ "

    _notice_timer: Timer | None = None
    _sure = False  # a notice said what the same key does when it is pressed again

    @property
    def ftui(self) -> FtuiApp:
        """The app, with its type."""
        from tui.app import FtuiApp

        return cast(FtuiApp, self.app)

    def body(self) -> ComposeResult:
        """The widgets between header and notice."""
        yield from ()

    def compose(self) -> ComposeResult:
        if not self.heading:
            self.set_reactive(Frame.heading, self.TITLE or "ftui")
        yield Header(id="header", markup=False)
        with Vertical(id="body"):
            yield from self.body()
        yield Notice(id="notice", markup=False)
        yield CommandLine(id="command", markup=False)
        yield Keys(id="keys")

    def notice(self, text: str, level: Level = "note", seconds: float | None = None) -> None:
        """Say one thing in the notice line (any text: it is made safe here, each line feed a ⏎); "" clears it.

        It ends with what it speaks of: when the person goes to another screen, and when the draft, or the line that is
        being edited, is another one.

        seconds  how long it stays at most; problems stay until something replaces them, other things for 8 seconds
        """
        self._tell(safe(spoken(text)), level, seconds)

    def _tell(self, text: str, level: Level, seconds: float | None = None) -> None:
        if self._notice_timer is not None:
            self._notice_timer.stop()
            self._notice_timer = None
        line = self.query_one("#notice", Notice)
        glyph, style = MARKS[level]
        line.update(Content.assemble((glyph, style), " ", (text, style)) if text else "")
        line.display = bool(text)
        stays = seconds if seconds is not None else (0 if level in ("warning", "bad") else 8)
        if text and stays:
            self._notice_timer = self.set_timer(stays, lambda: self.notice(""))

    def on_screen_suspend(self) -> None:
        """Another screen takes this one's place; help and the palette only cover it."""
        from tui.screens.help import HelpScreen

        above = self.app.screen_stack[-1:]
        if self.query(Notice) and not any(isinstance(screen, HelpScreen | CommandPalette) for screen in above):
            self.notice("")
            self._sure = False

    def error(self, error: BaseException) -> None:
        """Say what went wrong: an FtuiError in its own lines, anything else by its kind and message."""
        if isinstance(error, FtuiError):
            self._tell(told(error), "bad")
        else:
            self.notice(f"{type(error).__name__}: {error}", "bad")

    def in_thread(
        self, work: Callable[[], T], done: Callable[[T], object], *, group: str = "read", exclusive: bool = False
    ) -> None:
        """Do `work` in a thread and give its result to `done` here. What goes wrong is said in the notice line.

        exclusive  a later call of the same group makes this one's result void
        Nothing arrives on a screen that was left for good in the meantime.
        """

        def run() -> None:
            worker = get_current_worker()
            arrive: Callable[[], object]
            try:
                arrive = partial(done, work())
            except Exception as problem:  # whatever it is, it must not take the screen away from the person
                arrive = partial(self.error, problem)
            if not worker.is_cancelled:
                self.app.call_from_thread(lambda: self.is_attached and not self._pruning and arrive())

        self.run_worker(run, thread=True, group=group, exclusive=exclusive)

    def action_back(self) -> None:
        """Escape: one screen back where there is one, else to where the person came from."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        else:
            self.ftui.back()
