"""The app: modes, help, keys of one's own, leaving, the command that opens it, and what it must not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.events import Key

import tui
from engine import cli, paths
from engine.hardware import Gpu, Hardware
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui import __main__ as entry
from tui.app import FtuiApp
from tui.machine import words

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")


def modules() -> list[str]:
    root = Path(tui.__file__).parent
    return sorted(
        "tui." + str(path.relative_to(root).with_suffix("")).replace("/", ".")
        for path in root.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    )


def test_no_module_of_the_face_imports_what_trains() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {modules()!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_itself_imports_next_to_nothing() -> None:
    code = (
        "import sys, tui.__main__\nprint([n for n in ('textual', 'rich', 'engine.cli', 'msgspec') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_app_does_not_import_what_first_paint_does_not_need() -> None:
    code = "import sys, tui.app\nprint([n for n in ('engine.draft', 'tokenizers', 'jinja2', 'psutil', 'yaml') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_number_keys_reach_the_modes(
    machine: Hardware, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    from engine import doctor

    monkeypatch.setattr(doctor, "report", list)
    FakeRun("mine").whole()
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        for key, mode in (("2", "new"), ("3", "train"), ("6", "doctor"), ("1", "runs")):
            await pilot.press(key)
            await until(pilot, lambda mode=mode: app.mode_name == mode)


async def test_escape_leads_back_to_where_one_came_from(machine: Hardware) -> None:
    mine = FakeRun("mine")
    mine.whole()
    mine.alive("serve")
    app = FtuiApp()
    with FakeWorker(mine.run, lambda side, messages: ["yes"]):
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "› ✓ mine" in seen(pilot))
            for key, mode, ready in (
                ("enter", "train", "ready"),
                ("c", "chat", "Type a question"),
                ("ctrl+o", "compare", "Enter starts"),
                ("escape", "chat", "Type a question"),
                ("escape", "train", "ready"),
                ("m", "compare", "Enter starts"),
                ("escape", "train", "ready"),
                ("e", "export", "adapter"),
                ("escape", "train", "ready"),
                ("2", "new", "Model"),
                ("escape", "train", "ready"),
                ("escape", "runs", "› ✓ mine"),
                ("escape", "runs", "› ✓ mine"),
            ):
                await pilot.press(key)
                await until(pilot, lambda mode=mode, ready=ready: app.mode_name == mode and ready in seen(pilot), 8)


async def test_nobody_is_led_back_in_circles(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import doctor

    monkeypatch.setattr(doctor, "report", list)
    FakeRun("mine").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        for key in "3536":
            await pilot.press(key)
        for mode in ("train", "runs", "runs"):
            await pilot.press("escape")
            await until(pilot, lambda mode=mode: app.mode_name == mode, 8)


async def test_without_a_run_train_says_what_to_do(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "no run yet" in seen(pilot))
        assert app.mode_name == "runs"


async def test_footer_holds_at_most_six_keys_and_help(machine: Hardware) -> None:
    FakeRun("mine").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ mine" in seen(pilot))
        keys = app.screen.query("FooterKey")
        assert 0 < len(keys) <= 6
        assert seen(pilot).splitlines()[-1].rstrip().endswith("? Help")


async def test_help_explains_the_focused_thing_and_closes(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys" in seen(pilot))
        assert "runs that work as they come" in seen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "› Identity" in seen(pilot))


async def test_a_key_of_ones_own(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import doctor

    monkeypatch.setattr(doctor, "report", list)
    (paths.config_dir() / "keys.yaml").write_text("app.doctor: f9\n")
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("6")
        assert app.mode_name == "runs"
        await pilot.press("f9")
        assert app.mode_name == "doctor"


@pytest.mark.parametrize("text", ["[1, 2", "just words", "\xff\xfe"])
async def test_a_broken_keys_file_is_said_and_not_fatal(machine: Hardware, text: str) -> None:
    (paths.config_dir() / "keys.yaml").write_bytes(text.encode("latin-1"))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "keys.yaml is not used" in seen(pilot))


async def test_quitting_says_that_training_goes_on(machine: Hardware) -> None:
    run = FakeRun("congyu")
    run.alive()
    run.begin()
    run.steps(1, 5)
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "● congyu" in seen(pilot))
        await pilot.press("q")
        await until(pilot, lambda: "ftui attach congyu" in seen(pilot))
        assert app.is_running
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.farewell == ["congyu goes on training. Return with: ftui attach congyu"]


async def test_quitting_with_nothing_at_work_just_leaves(machine: Hardware) -> None:
    FakeRun("done").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.farewell == []


def test_every_binding_can_be_remapped() -> None:
    import importlib

    from textual.binding import Binding
    from textual.dom import DOMNode

    missing = []
    for name in modules():
        for thing in vars(importlib.import_module(name)).values():
            if isinstance(thing, type) and issubclass(thing, DOMNode) and thing.__module__ == name:
                for binding in thing.__dict__.get("BINDINGS", []):
                    if not isinstance(binding, Binding) or not binding.id:
                        missing.append((thing.__name__, binding))
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "opens"),
    [
        ([], ("runs", None)),
        (["attach"], ("train", None)),
        (["attach", "mine"], ("train", "mine")),
        (["chat", "mine"], ("chat", "mine")),
        (["chat"], None),
        (["chat", "mine", "-p", "hello"], None),
        (["attach", "--json"], None),
        (["attach", "--help"], None),
        (["runs"], None),
    ],
)
def test_what_opens_the_app_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], opens: tuple[str, str | None] | None
) -> None:
    asked: list[tuple[str, str | None]] = []
    given: list[list[str]] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(entry, "_app", lambda screen, name: asked.append((screen, name)) or 0)
    monkeypatch.setattr(cli, "main", lambda argv: given.append(argv) or 0)
    assert entry.main(arguments) == 0
    assert (asked, given) == (([opens], []) if opens else ([], [arguments]))


def test_without_a_terminal_it_is_said_what_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert entry.main([]) == 2
    assert "the screens need a terminal" in (said := capsys.readouterr().err) and "ftui --help" in said


def test_an_unknown_run_is_said_before_anything_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry._app("train", "nowhere") == 50
    assert capsys.readouterr().err


def test_the_machine_in_words() -> None:
    card = Gpu(
        index=0,
        name="NVIDIA H100 80GB HBM3",
        memory_total=80 * 10**9,
        memory_free=57 * 10**9,
        utilisation=61,
        bf16=True,
    )
    assert words(Hardware(gpus=[card])) == "GPU0 H100 61% 23/80 GB"
    assert words(Hardware(gpus=[card, card])).endswith("+1")
    assert words(Hardware(cores=1, memory_free=3 * 10**9)) == "1 core 3 GB free"


async def test_the_palette_offers_modes_and_the_screens_own_keys(machine: Hardware) -> None:
    FakeRun("mine").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ mine" in seen(pilot))
        names = [command.title for command in app.get_system_commands(app.screen)]
        assert {"Runs", "Doctor", "New", "Chat", "Help", "Quit"} <= set(names)
        assert "Move" not in names and "Up" not in names
        await pilot.press("ctrl+p")
        await pilot.press(*"light", "enter")
        await until(pilot, lambda: app.theme == "ftui-light")


async def test_the_palette_names_each_command_once_and_its_key(machine: Hardware) -> None:
    FakeRun("mine").whole()
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ✓ mine" in seen(pilot))
        commands = list(app.get_system_commands(app.screen))
        told = {command.title: command.help for command in commands}
        assert len(told) == len(commands)
        assert told["Export"] == "Export the result (x)" and told["Chat"] == "Talk to the tuned model (c)"
        assert told["Doctor"] == "Go to Doctor (6)" and told["Filter"].endswith("(/)") and told["Quit"].endswith("(q)")


async def test_a_key_pressed_before_the_runs_are_read_is_not_lost(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.simulate_key("2")
        await until(pilot, lambda: app.mode_name == "new")


async def test_the_palette_does_not_outlive_the_screen_it_was_opened_on(machine: Hardware) -> None:
    """Another mode in the same moment: Textual's palette would look for its screen on the other mode's stack, and fail."""
    app = FtuiApp()
    async with app.run_test() as pilot:
        await pilot.pause()
        app.action_command_palette()
        app.show("new")
        await pilot.press("down")
        await pilot.pause()
        assert [type(screen).__name__ for screen in app.screen_stack] == ["ModelScreen"]
        app.show("runs")
        await pilot.pause()
        assert [type(screen).__name__ for screen in app.screen_stack] == ["RunsScreen"]
        await pilot.press("ctrl+p")
        assert isinstance(app.screen, CommandPalette)
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


async def test_a_key_meant_for_one_screen_does_not_act_on_one_that_is_still_being_made(machine: Hardware) -> None:
    app = FtuiApp()
    async with app.run_test() as pilot:
        await pilot.pause()
        app.new_run("review")
        assert not app.screen.is_mounted
        key = Key("enter", "\r")
        key._set_forwarded()  # as one that the screen before had no use for
        await app.on_event(key)
        await until(pilot, lambda: app.screen.is_mounted)
