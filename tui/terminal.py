"""The terminal: taken over at the start, given back as it was found, left at once when it is gone.

Textual's driver does not survive three things: a terminal that hangs up (its reader spins on end-of-file), a signal that
ends the process (the terminal stays as it is), and a terminal that takes nothing (the app waits for it). They are mended
here, in the one class that talks to the terminal; what of its input is a paste is told in tui/typed.py.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import termios
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from rich.color import ColorSystem
from textual import events
from textual._compositor import CompositorUpdate
from textual.app import App
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import Monochrome
from textual.geometry import Size

from tui.paint import Painter
from tui.typed import Typed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.screen import Screen

# Undone in one breath where there is no time to do it the long way: an unfinished update, paste marks, line wrap, size,
# mouse and focus reports, the keyboard protocol; then the alternate screen is left, and the cursor shown.
LEAVE = (
    b"\x18\x1b[?2026l\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l"
    b"\x1b[?1004l\x1b[<u\x1b[m\x1b[?1049l\x1b[?25h"
)
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
PATIENCE = 1.0  # seconds that a terminal which takes nothing may hold up leaving it
MUTE_PATIENCE = 0.2  # seconds that a write in progress may take to end
LOOK = 1.0  # seconds between two looks at the terminal's size
BEHIND = 0.1  # seconds until a terminal that took nothing is offered the newest picture again
_NO_COLOURS = ("vt", "dumb", "unknown")  # what TERM begins with


def colours() -> ColorSystem | None:
    """The colours of this terminal, by NO_COLOR, COLORTERM and TERM; None for none."""
    term = os.environ.get("TERM", "").lower()
    if os.environ.get("NO_COLOR") or not term or term.startswith(_NO_COLOURS):
        return None
    if os.environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return ColorSystem.TRUECOLOR
    if term.endswith(("-direct", "kitty")):
        return ColorSystem.TRUECOLOR
    return ColorSystem.EIGHT_BIT if term.endswith("256color") else ColorSystem.STANDARD


class _Writer(threading.Thread):
    """Writes to the terminal, so that nobody has to wait for it."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True, name="terminal-output")
        self._number = number
        self._waiting: deque[bytes] = deque()
        self._news = threading.Condition()
        self._busy = self._end = False
        self.muted = False  # what is still to be written is dropped

    @property
    def behind(self) -> bool:
        """Whether something waits because the terminal has not taken what came before it."""
        return self._busy and bool(self._waiting)

    def write(self, text: str) -> None:
        with self._news:
            self._waiting.append(text.encode("utf-8", "replace"))
            self._news.notify()

    def stop(self) -> None:
        """Come back when all is written."""
        with self._news:
            self._end = True
            self._news.notify()
        self.join()

    def run(self) -> None:
        while True:
            with self._news:
                self._busy = False
                self._news.wait_for(lambda: self._waiting or self._end)
                if not self._waiting:
                    return
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._busy = True
            while data and not self.muted:
                try:
                    data = data[os.write(self._number, data) :]
                except BlockingIOError:  # somebody left the terminal in that state
                    time.sleep(0.01)
                except OSError:
                    gone()
            self._busy = False

    def mute(self) -> None:
        """Write no more, and come back when the last write is over, or would not end."""
        self.muted = True
        end = time.monotonic() + MUTE_PATIENCE
        while self._busy and time.monotonic() < end:
            time.sleep(0.001)


class _Decoder(codecs.getincrementaldecoder("utf-8")):  # type: ignore[misc]
    """Of what is typed. Bytes of legacy mouse reports are no UTF-8 and would end the reader (Textual issue 6668)."""

    def __init__(self) -> None:
        super().__init__("replace")

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        if not data and not final:  # a terminal that is gone reads as an end of file without end
            gone()
        return str(super().decode(data, final))


class Terminal(LinuxDriver):
    """Textual's driver, on standard output, with a way out for every case."""

    def __init__(self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: Any = None) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        linux_driver.getincrementaldecoder = lambda _: _Decoder  # type: ignore[assignment]
        linux_driver.WriterThread = lambda _: _Writer(self._output)  # type: ignore[assignment,misc,return-value]
        linux_driver.XTermParser = Typed  # type: ignore[misc]
        self._output = sys.__stdout__.fileno() if sys.__stdout__ else 1  # Textual takes standard error
        self._found = termios.tcgetattr(self.fileno)
        self._taken = False
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self.leave(128 + number))

    @property
    def behind(self) -> bool:
        """Whether the terminal takes less than it is sent."""
        return isinstance(self._writer_thread, _Writer) and self._writer_thread.behind

    def _get_terminal_size(self) -> tuple[int, int]:
        """Columns and rows as the kernel has them: COLUMNS and LINES would hold for ever."""
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(self._output)
            if columns and rows:
                return columns, rows
        return 80, 24

    def start_application_mode(self) -> None:
        self._taken = True
        super().start_application_mode()
        self._app.call_later(self._app.repaint)  # type: ignore[attr-defined]

    def stop_application_mode(self) -> None:
        if self._mouse_pixels:
            self.write("\x1b[?1016l")  # Textual leaves it on
        super().stop_application_mode()
        self._taken = False

    def run_input_thread(self) -> None:
        try:
            super().run_input_thread()
        except OSError:
            gone()

    def leave(self, code: int) -> NoReturn:
        """End the process now, with the terminal as it was. May be called at any moment; nothing else is saved."""
        if isinstance(self._writer_thread, _Writer):
            self._writer_thread.mute()  # what it still wrote would come after what puts the terminal right
        if self._taken:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self.fileno, termios.TCSANOW, self._found)
                _say(self._output, LEAVE)
        os._exit(code)


def _say(number: int, data: bytes) -> None:
    """Write to the terminal even while it takes nothing: what it has not taken by now is thrown away."""
    # Not through `number`: to be non-blocking is a property that the shell would share.
    own = os.open(os.ttyname(number), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    end = time.monotonic() + PATIENCE
    while data and time.monotonic() < end:
        try:
            data = data[os.write(own, data) :]
        except BlockingIOError:
            termios.tcflush(own, termios.TCOFLUSH)
            time.sleep(0.01)


def gone() -> NoReturn:
    """The terminal is no more. The face owns nothing that would be lost with it, so it just goes."""
    os._exit(128 + signal.SIGHUP)


class TerminalApp(App[None]):
    """An app that is drawn through `Painter` on a `Terminal`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l", "redraw", "Draw again", show=False, id="app.redraw"),
        Binding("ctrl+z", "suspend_process", "To the shell", show=False, id="app.suspend"),
    ]

    def __init__(self) -> None:
        super().__init__(driver_class=Terminal)
        self._filters = [each for each in self._filters if not isinstance(each, Monochrome)]  # it leaves greys
        self._painter = Painter(colours())
        self._owed = False  # a picture that the terminal could not take yet
        self._drawn_at: Size | None = None

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Textual's way to the terminal: send what changed, and nothing while the terminal is behind."""
        driver = self._driver
        if isinstance(driver, Terminal) and isinstance(renderable, CompositorUpdate):
            if self._batch_count or not self._running or self._closed:
                return
            if driver.behind:
                if not self._owed:
                    self._owed = True
                    self.set_timer(BEHIND, self._pay)
                return
            ground = Color.parse(self.current_theme.background or "black").rich_color
            renderable = self._painter.changes(renderable, ground, self.size)
        super()._display(screen, renderable)

    def _pay(self) -> None:
        """Show the newest picture where older ones were left out."""
        self._owed = False
        self.screen.refresh()

    def on_mount(self) -> None:
        if isinstance(self._driver, Terminal):
            self.set_interval(LOOK, self._look_at_size)

    def _look_at_size(self) -> None:
        """The signal of a new size may be lost: while the face is stopped, and where two sizes follow at once."""
        size = self._driver._get_terminal_size() if isinstance(self._driver, Terminal) else self.size
        if size != self.size:
            self.post_message(events.Resize.from_dimensions(size, None))

    def repaint(self) -> None:
        """Draw everything: nobody knows what is on the terminal."""
        self._painter.forget()
        self.screen.refresh()

    def action_redraw(self) -> None:
        self.repaint()

    def on_resize(self, event: events.Resize) -> None:
        self._painter.forget()
        if self._drawn_at not in (None, event.size):
            # Once more when the new size is laid out: a picture of the old one may have come in between.
            self.call_after_refresh(self.repaint)
        self._drawn_at = event.size
