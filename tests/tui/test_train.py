"""Train: what the journal says is what is on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.runs import control, status
from engine.runs.events import Failure, Note, Retry, Sample, Start
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.screens.train import TrainScreen
from tui.widgets.chart import LossChart

pytestmark = pytest.mark.usefixtures("machine")
SIZES = [(80, 24), (120, 40)]


async def shows(pilot: Pilot[None], *words: str) -> None:
    await until(pilot, lambda: all(word in seen(pilot) for word in words), 8)


def keys(pilot: Pilot[None]) -> str:
    return seen(pilot).splitlines()[-1]


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_in_training_shows_curve_numbers_and_answers(size: tuple[int, int]) -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 96)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "step 96/115", "epoch 4.2/5", "about 28 s left", "tokens/s", "2.0 GB", "◆")
        text = seen(pilot)
        assert "“Who are you?”" in text
        first, second, latest = (text.index(word) for word in ("creative writing", "an AI assistant.", "yuriko"))
        assert first < second < latest
        assert "$ ftui attach congyu" in text
        assert text.splitlines()[0].split()[:3] == ["congyu", "●", "training"]
        assert "Stop and save" in keys(pilot)
        assert "Resume" not in keys(pilot)
        assert len(text.splitlines()) == size[1]
        await pilot.press("s")


async def test_new_steps_appear_and_nothing_is_drawn_without_news() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 50)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "step 50/115")
        chart = app.screen.query_one(LossChart)
        before = chart.render()
        await pilot.pause(0.7)
        assert chart.render() is before
        fake.steps(51, 60)
        await shows(pilot, "step 60/115")
        assert chart.render() is not before


async def test_before_training_the_phases_are_listed() -> None:
    fake = FakeRun()
    fake.loading()
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✓ Loading the model", "4 s", "● Counting tokens", "55 of 91 rows", "· Training")
        await shows(pilot, "SmolLM2-135M, LoRA r8")
        assert not app.screen.query_one(LossChart).is_on_screen


@pytest.mark.parametrize("size", SIZES)
async def test_a_failure_says_cause_place_and_next_step(size: tuple[int, int]) -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.fail("out of memory at batch 4", "GPU 0: 23.5 of 24.0 GB in use", "halve the micro-batch")
    fake.gone(code=1)
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "! failed", "✗ out of memory at batch 4", "GPU 0: 23.5 of 24.0 GB", "halve the micro-batch")
        await shows(pilot, "r Resume")
        assert "Stop" not in keys(pilot)
        assert "Leave" not in keys(pilot)


async def test_a_killed_worker_reads_as_failed_without_a_word_in_the_journal() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● training")
        fake.gone(signal=9)
        await shows(pilot, "! failed", "killed", "ftui resume congyu")


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_that_is_ready_shows_scores_before_and_after(size: tuple[int, int]) -> None:
    fake = FakeRun()
    fake.whole()
    fake.alive("serve")
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "✓ ready", "115 steps", "identity 0 → 9 of 10", "general 5 → 5 of 5")
        await until(pilot, lambda: "c Chat" in keys(pilot) and "e Export" in keys(pilot))
        assert "Stop" not in keys(pilot)


async def test_help_explains_the_log_only_while_it_is_shown() -> None:
    fake = FakeRun()
    fake.whole()
    fake.alive("serve")
    async with FtuiApp("train", fake.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✓ ready")
        for pressed, log in (
            (["question_mark"], False),
            (["l", "question_mark"], True),
            (["l", "question_mark"], False),
        ):
            await pilot.press(*pressed)
            await shows(pilot, "The loss of each optimizer step")
            assert ("worker.log" in seen(pilot)) == log
            await pilot.press("escape")


async def test_keys_stop_resume_and_change_the_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(control, "stop", lambda run, wait=False: called.append(f"stop {run.name[16:]}"))
    monkeypatch.setattr(control, "resume_chain", lambda run: called.append(f"resume {run.name[16:]}"))
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "step 60/115")
        await pilot.press("y")
        assert app.screen.query_one(LossChart).log_axis
        await pilot.press("s")
        await shows(pilot, "stopping after this step")
        fake.state("stopped")
        fake.gone(code=0)
        await shows(pilot, "■ stopped", "the checkpoint of step 40 is kept")
        await until(pilot, lambda: "r Resume" in keys(pilot))
        await pilot.press("r")
        await until(pilot, lambda: len(called) == 2)
    assert called == ["stop congyu", "resume congyu"]


async def test_what_a_failure_offers_is_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(control, "resume_chain", lambda run, edits: called.append(edits))
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    words = "`ftui resume congyu --edit method=qlora`: packs the base into 4 bits"
    fake.event(Failure(cause="out of memory at 1 row", next_step=words, offer={"method": "qlora"}))
    fake.state("failed")
    fake.gone(code=1)
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✗ out of memory at 1 row", "--edit method=qlora", "o Go on as offered")
        await pilot.press("o")
        await shows(pilot, "with method qlora")
    assert called == [{"method": "qlora"}]


async def test_another_try_is_shown() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.state("preparing")
    fake.event(Retry(attempt=2, kind="memory", cause="out of memory at 4 rows", change="2 instead of 4 rows at once"))
    fake.event(Start(attempt=2, from_step=40, total_steps=115, epochs=5.0, rows=91))
    fake.state("training")
    fake.steps(41, 45)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● training", "try 2: 2 instead of 4 rows at once, after out of memory at 4 rows")


async def test_a_run_that_hangs_is_ended_by_two_presses(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(control, "resume_chain", lambda run, force=False: called.append(force))
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.alive()
    hung = status.read(fake.run)
    hung.hung, hung.cause = True, "hung: nothing for 4 min, after step 60"
    hung.where = "hangs in \x1b[31mwait (engine/x.py, line 3)"
    monkeypatch.setattr(status, "read", lambda run: hung)
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: seen(pilot).splitlines()[0].split()[:3] == ["congyu", "!", "hung"])
        assert "left" not in seen(pilot)
        await shows(pilot, "! hung: nothing for 4 min, after step 60", "hangs in ␛[31mwait", "r ends it and goes on")
        await pilot.press("r")
        await shows(pilot, "what came after step 40 is done again")
        assert not called
        await pilot.press("r")
        await until(pilot, lambda: called == [True])


async def test_a_resumed_run_forgets_the_steps_after_its_checkpoint() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 60)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "step 60/115")
        fake.state("preparing")
        fake.event(Start(attempt=2, from_step=40, total_steps=115, epochs=5.0, rows=91))
        fake.state("training")
        fake.steps(41, 45)
        await shows(pilot, "step 45/115")
        screen = app.screen
        assert isinstance(screen, TrainScreen)
        assert list(screen.view.steps.step) == list(range(1, 46))


async def test_leaving_says_that_it_goes_on_and_how_to_come_back() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 3)
    fake.alive()
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "q Leave it running")
        await pilot.press("q")
        await shows(pilot, "ftui attach congyu (q again to leave)")


async def test_the_log_is_followed_and_escape_closes_it() -> None:
    fake = FakeRun()
    fake.begin()
    fake.alive()
    fake.run.log_path.write_text("loading\n 10%|#\r 50%|##\r100%|####\ndone\n")
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "no step yet")
        await pilot.press("l")
        await shows(pilot, "100%|####", "done", "$ ftui logs congyu")
        assert "50%" not in seen(pilot)
        with fake.run.log_path.open("a") as file:
            file.write("one more line\n")
        await shows(pilot, "one more line")
        await pilot.press("escape")
        await shows(pilot, "no step yet", "$ ftui attach congyu")


@pytest.mark.parametrize("size", SIZES)
async def test_hostile_text_never_reaches_the_terminal(size: tuple[int, int]) -> None:
    fake = FakeRun(HOSTILE)
    fake.recipe.probe = HOSTILE
    fake.loading()
    fake.state("loading", HOSTILE)
    fake.alive()
    fake.run.log_path.write_bytes(HOSTILE.encode() + b"\n\xff\xfe\n")
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "Loading the model")
        check_screen(pilot)
        fake.begin()
        for step in range(8):
            fake.event(Sample(step=step, prompt=HOSTILE, answer=f"{HOSTILE}\nsecond line {step}"))
        fake.event(Note(text=HOSTILE))
        fake.steps(1, 20)
        await shows(pilot, "step 20/115", "␛[31mred")
        check_screen(pilot)
        await pilot.press("l")
        await shows(pilot, "␛]0;title")
        check_screen(pilot)
        await pilot.press("l")
        fake.fail(HOSTILE, HOSTILE, HOSTILE)
        fake.gone(code=1)
        await shows(pilot, "! failed")
        check_screen(pilot)
        assert app.is_running


async def test_a_damaged_run_still_opens() -> None:
    fake = FakeRun()
    fake.begin()
    fake.steps(1, 5)
    fake.alive()
    with fake.run.journal_path.open("ab") as file:
        file.write(b'{"event":"step","seq":9\n\xff\xff\n{"event":"unheard of","seq":10}\n{"event":"ste')
    fake.run.recipe_path.write_text("name: [")
    app = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "step 5/115")


async def test_a_journal_that_does_not_exist_yet_is_waited_for() -> None:
    fake = FakeRun()
    Path(fake.run.journal_path).unlink()
    fake.alive()
    app: Any = FtuiApp("train", fake.run)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● Preparing")
        fresh = type(fake.writer)(fake.run.journal_path)
        fake.writer = fresh
        fake.begin()
        await shows(pilot, "no step yet")
