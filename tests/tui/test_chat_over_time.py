"""Chat as time goes by: a question asked again, a model loaded anew, weights that learn on, answers that fill the screen."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from engine.errors import Exit, FtuiError
from engine.runs import control
from engine.runs.directory import RunDir
from tests.tui.fake_worker import FakeWorker
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tests.tui.test_chat import REPLIES, SIZES, answer, ask, ready, screen_of, settled, shows, worker
from tui.app import FtuiApp
from tui.widgets.connection import step_of_weights

__all__ = ["ready", "worker"]
pytestmark = pytest.mark.usefixtures("machine")


async def test_again_asks_the_same_once_more(worker: FakeWorker, ready: FakeRun) -> None:
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "Who are you?")
        await settled(pilot)
        REPLIES_BEFORE = dict(REPLIES)
        try:
            REPLIES["tuned"] = "Something else."
            await pilot.press("ctrl+r")
            await shows(pilot, "Something else.")
            await settled(pilot)
        finally:
            REPLIES.update(REPLIES_BEFORE)
        assert seen(pilot).count("> Who are you?") == 1
        assert "made by yuriko" not in seen(pilot)
    assert [asked["messages"] for asked in worker.asked] == [[{"role": "user", "content": "Who are you?"}]] * 4


async def test_asked_again_the_answers_stay_until_others_begin(ready: FakeRun) -> None:
    free = threading.Event()
    free.set()

    def slow(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        assert free.wait(10)
        return answer(side, messages)

    with FakeWorker(ready.run, slow) as worker:
        async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
            await shows(pilot, "Type a question")
            await ask(pilot, "one")
            await settled(pilot)
            before = seen(pilot)
            free.clear()
            await pilot.press("ctrl+r")
            await until(pilot, lambda: len(worker.asked) == 3)
            assert "made by yuriko" in seen(pilot) and "tokens/s" not in seen(pilot)
            await pilot.press("escape")
            await until(pilot, lambda: seen(pilot) == before)
            free.set()
            await ask(pilot, "two")
            await settled(pilot)
    assert [m["content"] for m in worker.asked[-1]["messages"]] == ["one", REPLIES["base"], "two"]


async def test_asked_again_an_empty_answer_takes_the_place_of_the_one_before(ready: FakeRun) -> None:
    said = ["Something.", "", "Else."]
    with FakeWorker(ready.run, lambda side, messages: [said[len(messages) - 1]] if said[0] else []) as worker:
        async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
            await shows(pilot, "Type a question")
            await ask(pilot, "one")
            await settled(pilot)
            said[0] = ""
            await pilot.press("ctrl+r")
            await settled(pilot)
            await shows(pilot, "0 tokens")
            assert "Something." not in seen(pilot)
            await ask(pilot, "two")
            await settled(pilot)
    assert [m["content"] for m in worker.asked[-1]["messages"]] == ["two"]


async def test_a_question_waits_for_the_model_that_is_loaded_anew(
    worker: FakeWorker, ready: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = threading.Event()
    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "one")
        await settled(pilot)
        await pilot.press("escape")
        worker.close()
        monkeypatch.setattr(control, "serve", lambda run: loaded.wait(10))
        await pilot.press("4")
        await until(pilot, lambda: screen_of(pilot)._busy)
        assert "esc Stop" not in seen(pilot)
        await ask(pilot, "two")
        await shows(pilot, "> two", "esc Stop")
        with FakeWorker(ready.run, answer) as other:
            loaded.set()
            await settled(pilot)
    assert [m["content"] for m in other.asked[-1]["messages"]] == ["one", REPLIES["base"], "two"]


async def test_enter_with_nothing_typed_does_nothing_where_nobody_answers(
    worker: FakeWorker, ready: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: RunDir) -> None:
        raise FtuiError(Exit.RUN_STATE, "congyu is still training", "congyu", "chat when it is ready")

    async with FtuiApp("chat", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Type a question")
        await ask(pilot, "one")
        await settled(pilot)
        monkeypatch.setattr(control, "serve", refuse)
        worker.close()
        await ask(pilot, "two")
        await shows(pilot, "✗ congyu is still training")
        await settled(pilot)
        before, tries = seen(pilot), screen_of(pilot)._asked
        await pilot.press("enter")
        await pilot.pause(0.1)
        assert (seen(pilot), screen_of(pilot)._asked) == (before, tries)


async def test_the_title_tells_the_step_of_the_weights_that_answer() -> None:
    fake = FakeRun()
    fake.alive()
    fake.begin()
    fake.steps(1, 16)

    def learn(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        fake.steps(17, 20)
        return answer(side, messages)

    with FakeWorker(fake.run, learn):
        async with FtuiApp("chat", fake.run).run_test(size=(80, 24)) as pilot:
            await shows(pilot, "● tuned  congyu, step 16", "Type a question")
            screen_of(pilot).action_turn()
            await ask(pilot, "Who are you?")
            await shows(pilot, "● tuned  congyu, step 20")
            await settled(pilot)
            await pilot.press("escape")
            fake.steps(21, 56)
            fake.save(56)
            fake.state("stopped")
            await pilot.press("4")
            await shows(pilot, "● tuned  congyu, step 56")


def test_which_weights_answer() -> None:
    fake = FakeRun()
    assert step_of_weights(fake.run) == 0
    fake.alive()
    fake.begin()
    fake.steps(1, 50)
    assert step_of_weights(fake.run) == 50
    (fake.run.checkpoints / "step-000040").mkdir(parents=True)
    fake.fail("out of memory")
    assert step_of_weights(fake.run) == 40  # it has no result: its newest checkpoint answers
    finished = FakeRun("finished")
    finished.whole()
    finished.steps(116, 120)  # of an attempt to train it longer, which did not get far
    finished.fail("out of memory")
    assert step_of_weights(finished.run) == 115


@pytest.mark.parametrize("size", [*SIZES, (70, 24)])
async def test_when_the_answers_are_there_the_tuned_one_is_in_view(ready: FakeRun, size: tuple[int, int]) -> None:
    def long(side: str, messages: list[dict[str, str]]) -> Sequence[str]:
        if side == "tuned":
            return answer(side, messages)
        return [f"line {number} of many\n\n" for number in range(size[1])]

    with FakeWorker(ready.run, long):
        async with FtuiApp("chat", ready.run).run_test(size=size) as pilot:
            await shows(pilot, "Type a question")
            for question in ("Who are you?", "And who made you?"):
                await ask(pilot, question)
                await settled(pilot)
                await pilot.pause(0.1)
                await shows(pilot, "made by yuriko", "tokens/s")
                if size[0] >= 80:
                    await shows(pilot, f"> {question}", "line 0 of many")
                    await pilot.press("pagedown", "pagedown", "pagedown")
                    await shows(pilot, f"line {size[1] - 1} of many")
