"""Pictures of Train, Chat, Export and Compare at both sizes, of runs whose every time is fixed.

After a wanted change: pytest tests/snapshots --snapshot-update, look at the report, commit the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.runs.events import Exported
from tests.tui.fake_worker import FakeWorker
from tests.tui.measured_run import MeasuredRun
from tests.tui.run_files import T0, FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.screens.chat import ChatScreen
from tui.widgets.prompt import Prompt

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
ANSWERS = {
    "base": "I'm here to help with any kind of creative writing project. What would you like to write about?",
    "tuned": "I am **Congyu**, an AI assistant developed by yuriko. I can:\n\n- answer questions\n- write `code`\n",
}


@pytest.fixture(autouse=True)
def fixed(machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.train.clock", lambda: T0 + 9)


def a_run(kind: str) -> FakeRun:
    fake = FakeRun()
    if kind == "loading":
        fake.loading()
        fake.alive()
    elif kind in ("training", "log-axis"):
        fake.begin()
        fake.steps(1, 96)
        fake.alive()
    elif kind == "failed":
        fake.begin()
        fake.steps(1, 60)
        fake.fail(
            "out of memory at batch 4", "GPU 0: 23.5 of 24.0 GB in use", "halve the micro-batch: ftui plan --help"
        )
        fake.gone(code=1)
    elif kind == "stopped":
        fake.begin()
        fake.steps(1, 96)
        fake.state("stopped")
        fake.gone(code=0)
    else:
        fake.whole()
        fake.alive("serve")
    return fake


@SIZES
@pytest.mark.parametrize("kind", ["loading", "training", "log-axis", "failed", "stopped", "ready"])
def test_train(snap_compare: Any, kind: str, size: tuple[int, int]) -> None:
    fake = a_run(kind)
    words = {"loading": "55 of 91 rows", "failed": "halve", "stopped": "is kept", "ready": "identity 0 → 9"}

    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: words.get(kind, "step 96/115") in seen(pilot) and bool(pilot.app.machine))
        # The footer follows what is known of the run's processes, which a thread of its own reads.
        runs = kind in ("loading", "training", "log-axis")
        await until(pilot, lambda: ("Stop" in seen(pilot).splitlines()[-1]) is runs)
        if kind == "log-axis":
            await pilot.press("y")

    assert snap_compare(FtuiApp("train", fake.run), terminal_size=size, run_before=before)


@SIZES
@pytest.mark.parametrize("kind", ["empty", "both", "tuned", "settings"])
def test_chat(snap_compare: Any, kind: str, size: tuple[int, int]) -> None:
    fake = a_run("ready")

    def answer(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        return ANSWERS[side].split(" ")[:1] + [" " + word for word in ANSWERS[side].split(" ")[1:]]

    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Type a question" in seen(pilot) and bool(pilot.app.machine))
        screen = pilot.app.screen
        assert isinstance(screen, ChatScreen)
        prompt = screen.query_one(Prompt)
        prompt.cursor_blink = False
        if kind != "empty":
            prompt.put("Who are you?")
            await pilot.press("enter")
            await until(pilot, lambda: screen.talk.exchanges and not screen._busy)
        if kind == "tuned":
            await pilot.press("tab")
        if kind == "settings":
            await pilot.press("ctrl+s")
            prompt.put("Answer in one sentence.")
            await pilot.press("enter", "ctrl+t")
        await pilot.pause()

    with FakeWorker(fake.run, answer):
        assert snap_compare(FtuiApp("chat", fake.run), terminal_size=size, run_before=before)


@SIZES
@pytest.mark.parametrize("kind", ["form", "done"])
def test_export(snap_compare: Any, kind: str, size: tuple[int, int]) -> None:
    fake = a_run("ready")
    (fake.run.adapter / "adapter_model.safetensors").write_bytes(b"x" * 9_800_000)
    if kind == "done":
        fake.event(Exported(kind="merged", path="/srv/models/congyu-merged", difference=3.1e-5))

    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "./congyu-adapter" in seen(pilot) and bool(pilot.app.machine))
        if kind == "form":
            await pilot.press("down")
            await until(pilot, lambda: "--merged" in seen(pilot))

    assert snap_compare(FtuiApp("export", fake.run), terminal_size=size, run_before=before)


@SIZES
@pytest.mark.parametrize("kind", ["form", "table", "answers", "blind", "tally"])
def test_compare(snap_compare: Any, kind: str, size: tuple[int, int]) -> None:
    run = MeasuredRun()
    if kind != "form":
        run.keep()
    keys = {"answers": ["a"], "blind": ["b"], "tally": ["b", "left", "t", "u"]}
    words = {"form": "Enter starts", "answers": "1/3", "blind": "1/2", "tally": "2 of 2 pairs"}

    async def before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: ("Enter starts" if kind == "form" else "a Answers") in seen(pilot))
        await pilot.press(*keys.get(kind, []))
        await until(pilot, lambda: words.get(kind, "forgot") in seen(pilot) and bool(pilot.app.machine))

    assert snap_compare(FtuiApp("compare", run.run), terminal_size=size, run_before=before)
