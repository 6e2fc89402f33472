"""Compare: what is asked for, the table, the answers beside each other, and the blind rating."""

from __future__ import annotations

import json
import stat

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.cli import main
from engine.errors import Exit
from engine.runs import control, measured
from engine.runs.directory import RunDir
from engine.runs.events import Evaluated, Failure
from engine.runs.measured import Asked
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.measured_run import MeasuredRun, Worker, rows, written
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp

pytestmark = pytest.mark.usefixtures("machine")
SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


@pytest.fixture
def ready() -> MeasuredRun:
    return MeasuredRun()


async def shows(pilot: Pilot[None], *words: str) -> None:
    await until(pilot, lambda: all(word in seen(pilot) for word in words), 8)


@SIZES
async def test_from_the_form_to_the_table(
    ready: MeasuredRun, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    worker = Worker([ready], monkeypatch)
    async with FtuiApp("compare", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "rows", "50", "Enter starts", "$ ftui evaluate congyu", "enter Measure")
        await pilot.press("backspace", *"x0", "enter")
        await shows(pilot, "! rows is a whole number from 1 on")
        assert worker.jobs == []
        await pilot.press("backspace", "backspace", *"30", "enter")
        await shows(pilot, "● congyu: starting", "goes on if you leave", "ftui evaluate congyu --rows 30", "s Stop")
        worker.far("base answers", 12, 30)
        await shows(pilot, "● congyu: base answers   12 of 30")
        worker.done()
        await shows(
            pilot,
            "3 of 122 held-out rows of congyu, greedy answers of 128 tokens at most",
            "ROUGE-L",
            "0.280  0.450      +0.170  +0.050 to +0.300",
            "95 % within",
            "general: right of 24       8      3          -5",
            "identity: right of 10",
            "tuned is better than base by ROUGE-L; forgot: 3 of 24 plain questions right",
            "! 3 rows are few",
            "a Answers  b Rate blind  n Measure others",
        )
        # Other questions begin with what was asked; escape goes back to what there is.
        await pilot.press("n")
        await shows(pilot, "enter Measure")
        assert pilot.app.screen.query_one("#rows", Input).value == "30"
        await pilot.press("escape")
        await shows(pilot, "tuned is better than base")
    (job,) = worker.jobs
    assert (job.kind, job.options["rows"], job.options["max_tokens"], job.options["data"]) == (
        "evaluate",
        30,
        128,
        None,
    )


async def test_what_was_kept_is_there_at_once_and_of_other_weights_is_not(ready: MeasuredRun) -> None:
    found = ready.keep()
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "held-out rows of congyu", "+0.170")
    (ready.run.adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert measured.read(ready.run, found.key) is not None and measured.newest(ready.run) is None
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Enter starts")


async def test_one_that_is_measured_already_is_joined(ready: MeasuredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, asked = Worker([ready], monkeypatch), Asked(rows=7)
    key = measured.ready(ready.run, asked)
    ready.alive("evaluate")
    record = json.loads(ready.run.supervisor_path.read_text())
    record["job"] |= {"run": str(ready.run.path), "options": {"rows": 7, "key": key}}
    ready.run.supervisor_path.write_text(json.dumps(record))
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● congyu: starting", "$ ftui evaluate congyu --rows 7")
        worker.jobs.append(control.Job("evaluate", str(ready.run.path), {"rows": 7, "key": key}))
        worker.far("tuned loss", 3, 7)
        await shows(pilot, "● congyu: tuned loss   3 of 7")
        worker.done()
        await shows(pilot, "3 of 122 held-out rows")


async def test_what_goes_wrong_is_said_over_the_form(ready: MeasuredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, stopped = Worker([ready], monkeypatch), list[RunDir]()
    monkeypatch.setattr(control, "stop", stopped.append)
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "Enter starts")
        await pilot.press("enter")
        await shows(pilot, "● congyu: starting")
        await pilot.press("s")
        await shows(pilot, "it stops after the part it is at")
        assert stopped == [ready.run]
        ready.event(Failure(cause="the evaluation was stopped", next_step="start it again any time", code=130))
        await shows(pilot, "✗ the evaluation was stopped", "Enter starts")
        await pilot.press("enter")
        await shows(pilot, "● congyu: starting")
        ready.died("evaluate")
        await shows(pilot, "✗ the evaluation ended without a result", "ftui logs congyu")
        pilot.app.screen.query_one("#data", Input).value = "none.jsonl"
        await pilot.press("enter")
        await shows(pilot, "✗", "none.jsonl", "Enter starts")
        assert pilot.app.screen.focused is pilot.app.screen.query_one("#data")
        pilot.app.screen.query_one("#data", Input).value = ""
        pilot.app.screen.query_one("#against", Input).value = "congyu"
        await pilot.press("enter")
        await shows(pilot, "✗ a run against itself differs in nothing")
    assert len(worker.jobs) == 2


@SIZES
async def test_the_answers_beside_each_other(ready: MeasuredRun, size: tuple[int, int]) -> None:
    ready.keep()
    async with FtuiApp("compare", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "a Answers")
        await pilot.press("a")
        await shows(pilot, "1/3   in order of the rows", "row 4", "What is the capital of France?", "--answers")
        await shows(pilot, "○ base  0.30", "● tuned  1.00  +0.70", "Lyon", "Paris.")
        base = next(line for line in seen(pilot).splitlines() if "○ base" in line)
        assert "● tuned" in base  # there is room for both
        await pilot.press("right")
        await shows(pilot, "2/3", "Summarise: the two", "● tuned  0.10  -0.20")
        if size == (80, 24):
            await shows(pilot, "more lines (w shows all)")
            await pilot.press("w")
            await until(pilot, lambda: "more lines" not in seen(pilot))
            await pilot.press("w")
        await pilot.press("right", "right", "right")
        await shows(pilot, "3/3", "你好")
        await pilot.press("o")
        await shows(pilot, "1/3   largest loss first", "row 5")
        await pilot.press("o", "end")
        await shows(pilot, "3/3   largest gain first", "row 5")
        await pilot.press("home", "left")
        await shows(pilot, "1/3", "row 4")
        await pilot.press("escape")
        await shows(pilot, "held-out rows of congyu")


async def test_answers_are_stacked_where_there_is_no_room(ready: MeasuredRun) -> None:
    ready.keep()
    async with FtuiApp("compare", ready.run).run_test(size=(60, 30)) as pilot:
        await shows(pilot, "a Answers")
        await pilot.press("a")
        await shows(pilot, "○ base", "● tuned")
        lines = seen(pilot).splitlines()
        assert not any("○ base" in line and "● tuned" in line for line in lines)


async def test_a_blind_rating_is_kept_and_told_at_the_end(
    ready: MeasuredRun, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ready.keep()
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "b Rate blind")
        await pilot.press("b")
        await shows(pilot, "Rate blind   congyu   1/2", "← Left better  → Right better  t Tie", "u Unblind")
        assert "base" not in seen(pilot) and "tuned" not in seen(pilot)
        head = next(line for line in seen(pilot).splitlines() if line.strip().startswith("left"))
        said = seen(pilot).splitlines()[seen(pilot).splitlines().index(head) + 1]
        tuned_left = said.index("Paris.") < head.index("right")
        await pilot.press("left" if tuned_left else "right")
        await shows(pilot, "2/2", "← Left better  → Right better  t Tie  backspace Back one")
        (file,) = written(ready.run.path)
        path = ready.run.path / "measured" / file
        assert file == f"{found.key}.ratings.jsonl" and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text())["better"] == "second"
        await pilot.press("backspace")
        await shows(pilot, "1/2", f"rated before: {'left' if tuned_left else 'right'} was better")
        await pilot.press("t", "escape")
        await shows(pilot, "rated blind: 1 of 2 pairs; who is ahead shows when the rating is ended")
        await pilot.press("b")
        await shows(pilot, "2/2")  # goes on where it was
        await pilot.press("backspace", "left" if tuned_left else "right")
        await shows(pilot, "2/2")
        await pilot.press("t")
        await shows(pilot, "All 2 pairs are rated", "u Unblind", "backspace Back one")
        assert "better" not in seen(pilot)
        await pilot.press("u")
        await shows(pilot, "tuned better", "2 of 2 pairs rated. 1 more prompts were answered alike.", "p 1.000")
        assert len(path.read_text().splitlines()) == 5
        await pilot.press("escape")
        await shows(pilot, "rated blind: tuned better in 1, base in 0, 1 ties, 2 of 2 pairs")
    capsys.readouterr()
    assert main(["evaluate", "congyu"]) == Exit.OK
    assert "rated blind: tuned better in 1, base in 0, 1 ties, 2 of 2 pairs" in capsys.readouterr().out
    assert main(["evaluate", "congyu", "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["ratings"]["second"], told["ratings"]["ties"], told["history"]["identity"]) == (1, 1, [0, 9, 10])


async def test_unblinding_needs_a_second_word_and_ends_the_rating(ready: MeasuredRun) -> None:
    ready.keep()
    async with FtuiApp("compare", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "b Rate blind")
        await pilot.press("b")
        await shows(pilot, "1/2")
        await pilot.press("u")
        await shows(pilot, "! u again shows who is ahead, and ends this rating")
        await pilot.press("u")
        await shows(pilot, "tuned better", "0 of 2 pairs rated")
        await pilot.press("left", "backspace")  # nothing is rated any more
        await pilot.press("escape", "b")
        await shows(pilot, "0 of 2 pairs rated")


async def test_two_runs_on_the_same_rows(ready: MeasuredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    other = MeasuredRun("second")
    worker = Worker([ready, other], monkeypatch)
    async with FtuiApp("compare", ready.run).run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Enter starts")
        pilot.app.screen.query_one("#against", Input).value = "second"
        await pilot.press("enter")
        await shows(pilot, "● congyu: starting")
        worker.done()
        await shows(pilot, "● second: starting", "--against second")
        worker.changes = {"run": "second", "rows": rows(answer="Paris, of course.")}
        worker.done()
        await shows(pilot, "base  congyu  second", "0.450   0.450", "these rows do not tell second from congyu")
        await pilot.press("a")
        await shows(pilot, "○ congyu  1.00", "● second  1.00  +0.00", "Paris, of course.!", "base")
        await pilot.press("escape", "b")
        await shows(pilot, "Rate blind   congyu   1/3")
        await pilot.press("t")
        await shows(pilot, "2/3")
    assert [job.options.get("only") for job in worker.jobs] == [None, [4, 5, 6]]
    (file,) = written(ready.run.path)
    assert file.count("-") == 1


async def test_a_run_that_held_nothing_out_is_asked_plain_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.tui.run_files.SETTINGS.eval_fraction", 0.0)
    run = MeasuredRun("bare")
    run.keep(Asked(rows=0), rows=[], intervals={}, run="bare")
    async with FtuiApp("compare", run.run).run_test(size=(80, 24)) as pilot:
        await shows(
            pilot, "bare has no rows of its own to be measured on: 24 plain questions alone", "n Measure others"
        )
        assert "Answers" not in seen(pilot) and "blind" not in seen(pilot)
        await pilot.press("a", "b", "n")
        await shows(pilot, "empty: questions alone")


async def test_a_reward_model_shows_how_it_ranks() -> None:
    fake = FakeRun("judge", stage="reward")
    fake.begin()
    fake.event(Evaluated(step=0, loss=0.7, accuracy=0.5, margin=0.0))
    fake.event(Evaluated(step=115, loss=0.3, accuracy=0.875, margin=1.5))
    fake.finish()
    fake.gone(code=0)
    async with FtuiApp("compare", fake.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "pairs ranked right", "50.0%  87.5%      +37.5%", "step 0 and 115")
        assert "Answers" not in seen(pilot) and "Measure" not in seen(pilot)


async def test_a_run_without_a_result_says_so() -> None:
    fake = FakeRun("young")
    fake.begin()
    fake.alive()
    async with FtuiApp("compare", fake.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "young has nothing to compare yet: it is training", "$ ftui attach young")


async def test_it_is_reached_from_runs_train_chat_and_the_palette(ready: MeasuredRun) -> None:
    ready.keep()
    async with FtuiApp().run_test(size=(80, 24)) as pilot:
        await shows(pilot, "congyu")
        await until(pilot, lambda: pilot.app.screen.query_one("#runs").has_focus)
        await pilot.press("m")
        await shows(pilot, "congyu   compare", "a Answers")
        await pilot.press("3")
        await shows(pilot, "$ ftui attach congyu", "m Compare")
        await pilot.press("m")
        await shows(pilot, "congyu   compare")
        await pilot.press("4")
        await shows(pilot, "$ ftui chat congyu")
        await pilot.press("ctrl+o")
        await shows(pilot, "congyu   compare")
        await pilot.press("1", "ctrl+p")
        await shows(pilot, "Search for commands")
        await pilot.press(*"Compare", "enter")
        await shows(pilot, "congyu   compare")


@SIZES
async def test_hostile_texts_do_nothing(size: tuple[int, int]) -> None:
    run = MeasuredRun(HOSTILE)
    run.keep(run=HOSTILE, rows=rows((HOSTILE, HOSTILE * 40, HOSTILE), HOSTILE), bleu=HOSTILE, model=HOSTILE)
    async with FtuiApp("compare", run.run).run_test(size=size) as pilot:
        await shows(pilot, "a Answers", "held-out rows of ␛[31mred")
        check_screen(pilot)
        await pilot.press("a")
        await shows(pilot, "○ base")
        check_screen(pilot)
        await pilot.press("right", "w", "pagedown")
        check_screen(pilot)
        await pilot.press("escape", "b")
        await shows(pilot, "1/3")
        check_screen(pilot)
        await pilot.press("t", "t", "t")
        await pilot.press("u")
        await shows(pilot, "3 of 3 pairs rated")
        check_screen(pilot)
