"""The app: six modes on six keys, the theme, the palette, and the way out.

Nothing heavy is imported here, and first paint waits for nothing: what a screen shows is read by its own workers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NoReturn

from textual import events
from textual.app import ScreenStackError, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import AwaitMount

from engine import paths
from engine.errors import FtuiError
from engine.text import safe
from tui.frame import MODE_KEYS, Frame
from tui.terminal import TerminalApp
from tui.theme import DARK, LIGHT
from tui.wizard import Wizard, make_step

if TYPE_CHECKING:
    from engine.runs.directory import RunDir


LOOK = 2.0  # seconds between two looks at the machine
THREADS = 32  # what waits outside of the screens' own thread; idle ones are not started


def _runs() -> Screen:
    from tui.screens.runs import RunsScreen

    return RunsScreen()


def _doctor() -> Screen:
    from tui.screens.doctor import DoctorScreen

    return DoctorScreen()


def _train(run: RunDir) -> Screen:
    from tui.screens.train import TrainScreen

    return TrainScreen(run)


def _chat(run: RunDir) -> Screen:
    from tui.screens.chat import ChatScreen

    return ChatScreen(run)


def _export(run: RunDir) -> Screen:
    from tui.screens.export import ExportScreen

    return ExportScreen(run)


def _compare(run: RunDir) -> Screen:
    from tui.screens.compare import CompareScreen

    return CompareScreen(run)


_OF_A_RUN: dict[str, Callable[[RunDir], Screen]] = {
    "train": _train,
    "chat": _chat,
    "export": _export,
    "compare": _compare,
}


class FtuiApp(TerminalApp):
    """The terminal face of ftui."""

    TITLE = "ftui"
    CSS_PATH = "app.tcss"
    DEFAULT_MODE = "runs"
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {"runs": _runs, "doctor": _doctor}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"show({mode!r})", word, show=False, id=f"app.{mode}", tooltip=f"Go to {word}")
            for key, mode, word in MODE_KEYS
        ),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding("f1", "help", "Help", id="app.help-while-typing"),
        Binding("q", "quit", "Quit", show=False, id="app.quit"),
    ]

    machine: reactive[str] = reactive("")

    def __init__(self, opening: str = "runs", run: RunDir | None = None) -> None:
        """opening  the mode to open first; run  the run that Train, Chat and Export show."""
        super().__init__()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name
        self._opening = opening
        self.run_shown = run  # the run that 3, 4 and 5 go to
        self.visited: RunDir | None = None  # the run that was looked at since Runs was left
        self.wizard = Wizard(self)
        self._new_run = ""  # the mode of the step that the new run has come to
        self._trail = [self.DEFAULT_MODE]  # the modes that led here, this one last; "new" for every step of the new run
        self.farewell: list[str] = []  # printed on the terminal after the app has left it
        self.fault: FtuiError | None = None  # why it left by itself

    @property
    def mode_name(self) -> str:
        """Which of the six modes is on screen."""
        return self.current_mode.partition(":")[0]

    def on_mount(self) -> None:
        # asyncio's own would have six threads on two cores, and slow looks (Doctor's, a hub's) would hold up the rest.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        self._read_keymap()
        if self._opening != self.DEFAULT_MODE:
            self.show(self._opening)
        self._look_at_machine()
        self.set_interval(LOOK, self._look_at_machine)

    def get_key_display(self, binding: Binding) -> str:
        """Keys by the names that stand on them: enter, not ⏎."""
        if binding.key_display:
            return binding.key_display
        shown = super().get_key_display(binding).replace("⏎", "enter").replace("␣", "space")
        return f"ctrl+{shown[1:]}" if len(shown) == 2 and shown[0] == "^" else shown

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The roles that Textual's own themes do not know."""
        return DARK.variables

    def _read_keymap(self) -> None:
        """Keys of the person's own: keys.yaml in the configuration folder, a map from binding id to key."""
        path = paths.config_dir() / "keys.yaml"
        if not path.is_file():
            return
        import yaml

        try:
            keys = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            self.set_keymap({str(name): str(key) for name, key in keys.items()})
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
            self.call_after_refresh(self._say, f"keys.yaml is not used: {' '.join(str(error).split())}")

    def _look_at_machine(self) -> None:
        self.run_worker(self._read_machine, thread=True, group="machine", exclusive=True, exit_on_error=False)

    def _read_machine(self) -> None:
        from engine import hardware
        from tui.machine import words

        self.call_from_thread(setattr, self, "machine", words(hardware.read()))

    async def on_event(self, event: events.Event) -> None:
        """What is pasted may hold anything, and Textual's fields write it to the terminal as it is. A key that one screen
        left to the app is for nobody where the next one is still being made: Textual would let it act there."""
        if isinstance(event, events.InputEvent) and not self._can_take(event):
            return
        if isinstance(event, events.Paste):
            event.text = safe(event.text.replace("\r\n", "\n").replace("\r", "\n"), newlines=True)
        await super().on_event(event)

    def _can_take(self, event: events.InputEvent) -> bool:
        try:
            return self.screen.is_mounted or not event.is_forwarded
        except ScreenStackError:  # of a mode that has no screen yet
            return False

    def _fatal_error(self) -> None:
        """A fault of ours ends the app. Textual would print the values of variables, foreign text among them."""
        from engine.cli.app import unexpected

        if self._exception is not None:
            self.fault = unexpected(self._exception, sys.argv[1:])
        self._close_messages_no_wait()

    # modes ------------------------------------------------------------------------------------------------------

    def action_show(self, mode: str) -> None:
        self.show(mode)

    def show(self, mode: str) -> None:
        """Go to one of the six modes. Those of a run show `run_shown`, else the newest run."""
        if mode in _OF_A_RUN:
            run = self.run_shown or self._newest_run()
            if run is None:
                self.show("runs")
                self.call_after_refresh(self._say, "no run yet: choose a preset and press enter, or n for a new run")
                return
            self._show_run(mode, run)
        elif mode == "new":
            self.new_run(self._new_run.partition(":")[2] or "model")
        else:
            self.switch_mode(mode)

    def _say(self, text: str) -> None:
        if isinstance(self.screen, Frame):
            self.screen.notice(text, "warning", seconds=8)

    def _newest_run(self) -> RunDir | None:
        from engine.runs import directory

        runs = directory.all_runs()
        return runs[0] if runs else None

    def _show_run(self, mode: str, run: RunDir) -> None:
        """One screen a run and mode, kept while the app lives: a chat is still there when the person comes back."""
        self.run_shown = self.visited = run
        name = f"{mode}:{run.name}"
        if name not in self._modes:
            make = _OF_A_RUN[mode]
            self.add_mode(name, lambda: make(run))
        self.switch_mode(name)

    def show_train(self, run: RunDir) -> None:
        self._show_run("train", run)

    def show_chat(self, run: RunDir) -> None:
        self._show_run("chat", run)

    def show_export(self, run: RunDir) -> None:
        self._show_run("export", run)

    def show_compare(self, run: RunDir) -> None:
        self._show_run("compare", run)

    def new_run(self, step: str) -> None:
        """Show one step of the new run. Each step is a mode, since the bottom screen of a mode cannot be exchanged."""
        name = f"new:{step}"
        if name == self._new_run:
            self.switch_mode(name)
            return
        before, self._new_run = self._new_run, name
        self.add_mode(name, lambda: make_step(step))
        self.switch_mode(name)
        if before:
            self.remove_mode(before)

    def new_from_preset(self, name: str, brings_rows: bool) -> None:
        """The plan of a preset, one key before it starts; a preset without rows asks for them first.

        What was changed is not lost by the way: the same preset goes on with it, another one says that it is dropped.
        """
        choice, edited, before = self.wizard.choice, self.wizard.edited, self.wizard.name
        if edited and choice is not None and choice.preset == name:
            self.show("new")
            return
        if brings_rows:
            self.wizard.begin_preset(name)
            self.new_run("review")
        else:
            self.wizard.reset()
            self.wizard.picked().preset = name
            self.new_run("source")
        if edited:
            self.call_after_refresh(self._say, f"begun anew; the draft {before or 'that was begun'} was dropped")

    def forget_new_run(self) -> None:
        """The new run has become a run: the next one begins afresh, and back from this one is home."""
        self._trail = [self.DEFAULT_MODE, self._trail[-1]]
        self.wizard.reset()
        if self._new_run:
            self.remove_mode(self._new_run)
            self._new_run = ""

    # help, palette, way out --------------------------------------------------------------------------------------

    def action_help(self) -> None:
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen, self.focused))

    def action_command_palette(self) -> None:
        from tui.palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def switch_mode(self, mode: str) -> AwaitMount:
        """The palette stays on no stack that is left: it would act on the next one."""
        if isinstance(self.screen, CommandPalette):
            self.pop_screen()
        place = "new" if mode == self._new_run else mode
        if place in self._trail:  # going there again is going back: nobody walks in circles
            del self._trail[self._trail.index(place) :]
        self._trail.append(place)
        return super().switch_mode(mode)

    def back(self) -> None:
        """Go where the person came from; nowhere from home."""
        before = self._trail[-2:][0]
        self.switch_mode(self._new_run if before == "new" else before)

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """What ctrl+p offers: the modes, and what the screen's own keys do, which come first where both have the same name."""
        keys: dict[str, str] = {}  # of the app, by what they do
        own: dict[tuple[str, str], SystemCommand] = {}  # by name and by what they do
        for node, binding, enabled, tooltip in screen.active_bindings.values():
            key = self.get_key_display(binding)
            if not binding.id:  # Textual's own
                continue
            if node is self:
                keys.setdefault(binding.action, key)
            elif enabled and not binding.id.startswith("list."):
                action = partial(self.run_action, binding.action, node)
                told = _with_key(tooltip or binding.tooltip, key)
                name = binding.description
                own.setdefault((name, binding.action), SystemCommand(name, told, action))
        names = {name for name, _ in own}
        for _, mode, word in MODE_KEYS:
            if word not in names:
                told = _with_key(f"Go to {word}", keys.get(f"show({mode!r})", ""))
                yield SystemCommand(word, told, partial(self.show, mode))
        if "Compare" not in names:
            yield SystemCommand("Compare", "What a run has learned: scores, answers", partial(self.show, "compare"))
        yield from own.values()
        yield SystemCommand("Help", _with_key("Explain the focused thing", keys.get("help", "")), self.action_help)
        other = LIGHT if self.theme == DARK.name else DARK
        yield SystemCommand("Light or dark", f"Change to {other.name}", partial(setattr, self, "theme", other.name))
        yield SystemCommand("Quit", _with_key("Leave ftui; training goes on", keys.get("quit", "")), self.action_quit)

    async def action_quit(self) -> None:
        """Leave; where something trains, first say that it goes on and how to come back."""
        names = await asyncio.to_thread(_training)
        words = [f"{name} goes on training. Return with: ftui attach {name}" for name in names]
        if words and not self.farewell and isinstance(self.screen, Frame):
            self.farewell = words
            self.screen.notice(f"{safe(words[0])} (q again to leave)", "note", seconds=10)
            return
        self.farewell = words
        self.exit()

    def action_help_quit(self) -> None:
        """ctrl+c: people press it to get out; the key for that is q."""
        self._say("press q to leave")


def _with_key(told: str, key: str) -> str:
    """The help text of a command, with its key at the end."""
    return f"{told} ({key})" if told and key else told or f"key {key}"


def _training() -> list[str]:
    """In a thread: the names of the runs that are alive."""
    from engine.runs import directory, status

    found = []
    for run in directory.all_runs()[:20]:
        now = status.read(run)
        if now.worker_alive and not now.ended:
            found.append(directory.handle(run))
    return found


def run(opening: str = "runs", run_shown: RunDir | None = None) -> NoReturn:
    """Open the app at a mode; when it closes, the process ends."""
    app = FtuiApp(opening, run_shown)
    # Not app.run(): at its end it would wait for every thread, and a model may be minutes from being fetched.
    asyncio.new_event_loop().run_until_complete(app.run_async())
    if app.fault is not None:
        from engine.cli.app import complain

        complain(app.fault)
    for line in app.farewell:
        print(safe(line))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(app.return_code or 0)
