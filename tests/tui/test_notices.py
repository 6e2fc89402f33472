"""A notice ends with what it speaks of: the screen, the draft, the run, or the line that was edited."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.draft import Choice
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.frame import Frame, Notice


def rows(name: str, answer: str = "Answer {n}.") -> str:
    lines = [{"instruction": f"Question {n}?", "output": answer.replace("{n}", str(n))} for n in range(30)]
    Path(name).write_text("\n".join(map(json.dumps, lines)))
    return name


def noticed(pilot: Pilot[None]) -> str:
    line = pilot.app.screen.query_one(Notice)
    return str(line.render()) if line.display else ""


async def review(pilot: Pilot[None], name: str) -> FtuiApp:
    app = pilot.app
    assert isinstance(app, FtuiApp)
    app.wizard.begin(Choice(data=name))
    app.new_run("review")
    await until(pilot, lambda: app.wizard.draft is not None and "name    " in seen(pilot))
    return app


@pytest.fixture
def worker(machine: object) -> Iterator[FakeWorker]:
    fake = FakeRun()
    fake.whole()
    fake.alive("serve")
    with FakeWorker(fake.run, lambda side, messages: ["Yes."]) as worker:
        yield worker


async def test_what_kept_one_draft_from_starting_is_not_said_of_the_next(tiny_starter: Path, started: Any) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await review(pilot, rows("raw.jsonl", "I am {{name}}."))
        await pilot.press("enter")
        assert "cannot start: " in noticed(pilot)
        await pilot.press("1")
        await until(pilot, lambda: "› Identity" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.wizard.draft is not None and "author yuriko" in seen(pilot))
        assert "cannot start" not in noticed(pilot) and not started


async def test_what_kept_a_draft_from_starting_goes_with_its_reason(tiny_starter: Path, started: Any) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await review(pilot, rows("raw.jsonl", "I am {{name}}."))
        await pilot.press("enter")
        assert "cannot start: " in noticed(pilot)
        await pilot.press("question_mark", "escape")  # help only covers the screen
        assert "cannot start: " in noticed(pilot)
        await pilot.press("f", *"Ada", "enter")
        await until(pilot, lambda: app.wizard.draft is not None and not app.wizard.draft.dataset.placeholders)
        assert noticed(pilot) == ""


async def test_a_promise_to_start_is_kept_for_its_own_draft_alone(
    tiny_starter: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import draft as drafts

    make, go = drafts.make, threading.Event()

    def late(*given: Any, **named: Any) -> Any:
        assert go.wait(30)
        return make(*given, **named)

    monkeypatch.setattr(drafts, "make", late)
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin(Choice(data=rows("first.jsonl")))
        app.new_run("review")
        await until(pilot, lambda: "new:review" in app.current_mode and app.screen.is_mounted)
        await pilot.press("enter")
        await until(pilot, lambda: "starts as soon as" in noticed(pilot))
        await pilot.press("1")
        await until(pilot, lambda: app.current_mode == "runs")
        await pilot.press("2")
        await until(pilot, lambda: "starts as soon as" in noticed(pilot))  # it still holds, and is said again
        app.wizard.begin(Choice(data=rows("second.jsonl")))
        await until(pilot, lambda: noticed(pilot) == "")
        go.set()
        await until(pilot, lambda: app.wizard.draft is not None and "second" in seen(pilot))
        assert not started


async def test_what_an_edit_moved_is_not_said_on_other_screens_or_of_other_edits(tiny_starter: Path) -> None:
    app = FtuiApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.wizard.begin(Choice(data=rows("rows.jsonl")))
        app.new_run("plan")
        await until(pilot, lambda: app.wizard.draft is not None and "› method" in seen(pilot))
        for other, back in (("w", "escape"), ("1", "2")):
            app.screen.set("learning_rate", "0.0003" if other == "w" else "0.0004")  # type: ignore[attr-defined]
            await until(pilot, lambda: "learning rate: " in noticed(pilot))
            await pilot.press(other)
            await until(pilot, lambda: "› method" not in seen(pilot))
            await pilot.press(back)
            await until(pilot, lambda: "› method" in seen(pilot))
            assert noticed(pilot) == ""
        app.screen.set("learning_rate", "0.0005")  # type: ignore[attr-defined]
        await pilot.press("u")
        await until(pilot, lambda: "as advised again" in noticed(pilot))


async def test_what_was_wrong_with_a_line_ends_with_the_line(worker: FakeWorker) -> None:
    app = FtuiApp("chat", worker.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Type a question" in seen(pilot))
        await pilot.press("ctrl+t", "ctrl+u", *"temperature 9", "enter")
        await until(pilot, lambda: "temperature goes from 0" in noticed(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: noticed(pilot) == "")
        assert app.mode_name == "chat"


async def test_a_second_press_that_was_asked_for_is_asked_for_anew_on_the_way_back(machine: object) -> None:
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, Frame)
        screen.notice("the same key again does it", "warning")
        screen._sure = True
        await pilot.press("question_mark", "escape")
        assert noticed(pilot) and screen._sure
        await pilot.press("2")
        await until(pilot, lambda: app.mode_name == "new")
        await pilot.press("1")
        await until(pilot, lambda: app.mode_name == "runs")
        assert not noticed(pilot) and not screen._sure
