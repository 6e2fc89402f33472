"""Export: the form, the job it starts, and what is said of the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.errors import Exit, FtuiError
from engine.runs import control
from engine.runs.directory import RunDir
from engine.runs.events import Exported, Failure, Progress, Pushed
from engine.runs.job import Job
from tests.tui.hostile import HOSTILE, check_screen
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp

pytestmark = pytest.mark.usefixtures("machine")
SIZES = [(80, 24), (120, 40)]


@pytest.fixture
def ready() -> FakeRun:
    fake = FakeRun()
    fake.whole()
    fake.alive("serve")
    (fake.run.adapter / "adapter_model.safetensors").write_bytes(b"x" * 9_800_000)
    return fake


@pytest.fixture
def jobs(ready: FakeRun, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs given to `control.start`; the test then writes what a worker would."""
    given: list[Job] = []

    def start(run: RunDir, job: Job) -> None:
        given.append(job)
        ready.alive("export")

    monkeypatch.setattr(control, "start", start)
    return given


async def shows(pilot: Pilot[None], *words: str) -> None:
    await until(pilot, lambda: all(word in seen(pilot) for word in words), 8)


@pytest.mark.parametrize("size", SIZES)
async def test_a_merged_export_from_form_to_result(ready: FakeRun, jobs: list[Job], size: tuple[int, int]) -> None:
    async with FtuiApp("export", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "● Adapter     9.8 MB, peft loads it onto SmolLM2-135M", "○ Merged", "./congyu-adapter")
        assert "shard size" not in seen(pilot)
        assert "$ ftui export congyu --to ./congyu-adapter" in seen(pilot)
        await pilot.press("down")
        await shows(pilot, "● Merged", "shard size", "$ ftui export congyu --merged --to ./congyu-merged")
        assert "enter Export" in seen(pilot)
        await pilot.press("enter")
        await shows(pilot, "● Load the model", "· Write", "goes on if you leave")
        ready.event(Progress(what="export: load", done=0, total=3))
        ready.event(Progress(what="export: write", done=1, total=3))
        await shows(pilot, "✓ Load the model", "● Write")
        there = Path.cwd() / "congyu-merged"
        ready.event(Exported(kind="merged", path=str(there), difference=1.3e-5))
        await shows(pilot, "✓ merged in ./congyu-merged", "logits 1.3e-5", "AutoModelForCausalLM.from_pretrained")
    assert [(job.kind, job.run) for job in jobs] == [("export", str(ready.run.path))]
    wanted = {"kind": "merged", "to": str(there), "shard_size": "2GB", "dtype": None, "push": None}
    assert wanted.items() <= jobs[0].options.items()


async def test_a_folder_that_was_named_stays_when_the_kind_changes(ready: FakeRun, jobs: list[Job]) -> None:
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        pilot.app.screen.query_one("#to", Input).value = "/srv/my models/x"
        await pilot.press("down")
        await shows(pilot, "--merged --to '/srv/my models/x'")


async def test_mistakes_are_caught_where_they_are_made(ready: FakeRun, jobs: list[Job]) -> None:
    taken = Path("taken")
    taken.mkdir()
    (taken / "file").touch()
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        screen = pilot.app.screen
        screen.query_one("#to", Input).value = ""
        await pilot.press("enter")
        await shows(pilot, "! name a folder")
        screen.query_one("#to", Input).value = "taken"
        await pilot.press("enter")
        await shows(pilot, "taken is there and not empty")
        screen.query_one("#to", Input).value = "/proc/x"
        await pilot.press("enter")
        await shows(pilot, "nothing can be written to /proc")
        assert screen.focused is screen.query_one("#to")
        screen.query_one("#to", Input).value = "fresh"
        screen.query_one("#kind").focus()
        await pilot.press("down")
        screen.query_one("#shard", Input).value = "two"
        await pilot.press("enter")
        await shows(pilot, "two is not a size")
        assert screen.focused is screen.query_one("#shard")
        assert jobs == []
        screen.query_one("#shard", Input).value = "500MB"
        screen.query_one("#dtype", Input).value = "int4"
        await pilot.press("enter")
        await shows(pilot, "weights are fp32, bf16, fp16")
        assert screen.focused is screen.query_one("#dtype")
        screen.query_one("#dtype", Input).value = "bf16"
        screen.query_one("#push", Input).value = "no name"
        await pilot.press("enter")
        await shows(pilot, "no name is no name for a repository: write it OWNER/NAME")
        assert screen.focused is screen.query_one("#push")
        screen.query_one("#push", Input).value = ""
        assert jobs == []
        await pilot.press("enter")
        await until(pilot, lambda: jobs)
    assert (jobs[0].options["shard_size"], jobs[0].options["dtype"]) == ("500MB", "bf16")


@pytest.mark.parametrize("size", SIZES)
async def test_a_gguf_goes_to_the_hub_only_after_a_second_word(
    ready: FakeRun, jobs: list[Job], size: tuple[int, int]
) -> None:
    async with FtuiApp("export", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "○ GGUF q8_0", "./congyu-adapter")
        await pilot.press("up")
        await shows(pilot, "● GGUF q8_0", "$ ftui export congyu --gguf q8_0 --to ./congyu-q8_0")
        screen = pilot.app.screen
        assert not screen.query_one("#seen").display
        screen.query_one("#push", Input).value = "me/congyu"
        await shows(pilot, "● Private", "--push me/congyu")
        await pilot.press("enter")
        await shows(pilot, "! enter again puts it on the hub as me/congyu, for you alone to see")
        screen.query_one("#seen").focus()
        await pilot.press("down")
        await until(pilot, lambda: "enter again" not in seen(pilot))
        await pilot.press("enter")  # what was confirmed was another thing
        await shows(pilot, "for everybody to see")
        assert jobs == []
        await pilot.press("enter")
        await shows(pilot, "● Load the model", "· Put it on the hub", "s Stop")
        ready.event(Progress(what="export: write", done=1, total=4))
        ready.event(Progress(what="MB", done=20, total=145))
        await shows(pilot, "● Write   20 of 145 MB")
        folder = jobs[0].options["to"]
        ready.event(Exported(kind="gguf", path=folder, difference=1.2, form="q8_0", alike=5, asked=6))
        ready.event(Progress(what="export: push", done=3, total=4))
        await shows(pilot, "● Put it on the hub")
        ready.event(Pushed(repository="me/congyu", url="https://hub/me/congyu", public=True, path=folder))
        await shows(
            pilot,
            "✓ gguf q8_0 in ./congyu-q8_0",
            "logits 1.2",
            "5 of 6 greedy answers are the same",
            "ollama create congyu -f Modelfile",
            "on the hub: https://hub/me/congyu",
        )
    assert jobs[0].options["push"] == "me/congyu" and jobs[0].options["public"] is True


async def test_an_export_can_be_stopped(ready: FakeRun, jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[RunDir] = []
    monkeypatch.setattr(control, "stop", stopped.append)
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        await pilot.press("s")
        assert stopped == [] and "s Stop" not in seen(pilot)
        await pilot.press("enter")
        await shows(pilot, "● Load the model", "s Stop")
        await pilot.press("s")
        await shows(pilot, "it stops after the part it is at")
        assert stopped == [ready.run]
        ready.event(Failure(cause="the export was stopped", next_step="nothing half is left", code=130))
        await shows(pilot, "✗ the export was stopped", "Enter starts")


@pytest.mark.parametrize("size", SIZES)
async def test_a_failed_export_says_why_in_three_lines(ready: FakeRun, jobs: list[Job], size: tuple[int, int]) -> None:
    async with FtuiApp("export", ready.run).run_test(size=size) as pilot:
        await shows(pilot, "./congyu-adapter")
        await pilot.press("enter")
        await shows(pilot, "● Load the model")
        ready.event(Failure(cause="the disk is full: nothing was exported", where="/data/x", next_step="make room"))
        await shows(pilot, "✗ the disk is full", "/data/x", "make room", "Enter starts")


async def test_a_worker_that_dies_without_a_word_is_noticed(ready: FakeRun, jobs: list[Job]) -> None:
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        await pilot.press("enter")
        ready.event(Progress(what="export: load", done=0, total=3))
        await shows(pilot, "● Load the model")
        ready.run.log_path.write_text("Killed\n")
        ready.died("export")
        await shows(pilot, "the export ended without a result", "Killed", "ftui logs congyu")


async def test_a_start_that_is_refused_is_said(ready: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: RunDir, job: Job) -> None:
        raise FtuiError(Exit.RUN_STATE, "congyu is already at work: it is exporting", "congyu", "wait for it")

    monkeypatch.setattr(control, "start", refuse)
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        await pilot.press("enter")
        await shows(pilot, "✗ congyu is already at work", "wait for it", "Enter starts")


async def test_an_old_failure_in_the_journal_is_not_this_exports(ready: FakeRun, jobs: list[Job]) -> None:
    ready.event(Failure(cause="long ago"))
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "./congyu-adapter")
        await pilot.press("enter")
        ready.event(Progress(what="export: compare", done=2, total=3))
        await shows(pilot, "● Load it back and compare")
        assert "long ago" not in seen(pilot)


async def test_an_export_that_goes_on_is_shown_on_return(ready: FakeRun) -> None:
    ready.event(Exported(kind="adapter", path="/earlier", difference=0.0))
    ready.event(Progress(what="export: write", done=1, total=3))
    ready.alive("export")
    async with FtuiApp("export", ready.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✓ Load the model", "● Write")
        ready.event(Exported(kind="merged", path="/later", difference=0.01))
        await shows(pilot, "✓ merged in /later", "✓ adapter in /earlier", "answers exactly as the run does")


async def test_a_run_without_a_result_says_so(ready: FakeRun) -> None:
    fake = FakeRun("young")
    fake.begin()
    fake.alive()
    async with FtuiApp("export", fake.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "young has nothing to export yet: it is training", "$ ftui attach young")
        assert "Export" not in seen(pilot).splitlines()[-1]


async def test_full_tuning_leaves_no_adapter_to_choose() -> None:
    fake = FakeRun("whole", method="full")
    fake.whole()
    fake.alive("serve")
    async with FtuiApp("export", fake.run).run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● Merged", "--merged --to ./whole-merged")
        assert "Adapter" not in seen(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_hostile_names_and_paths_do_nothing(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    fake = FakeRun(HOSTILE)
    fake.whole()
    fake.alive("serve")
    monkeypatch.setattr(control, "start", lambda run, job: fake.alive("export"))
    async with FtuiApp("export", fake.run).run_test(size=size) as pilot:
        await shows(pilot, "Enter starts")
        check_screen(pilot)
        fake.event(Exported(kind="merged", path=f"/x/{HOSTILE}", difference=0.01))
        await shows(pilot, "✓ merged in /x/␛[31mred")
        check_screen(pilot)
        await pilot.press("enter")
        await shows(pilot, "● Load the model")
        fake.event(Failure(cause=HOSTILE, where=HOSTILE, next_step=HOSTILE))
        await shows(pilot, "✗ ␛[31mred")
        check_screen(pilot)
