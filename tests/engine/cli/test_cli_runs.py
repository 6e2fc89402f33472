"""Looking at runs, following them, leaving them: on journals written here, without a worker."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine import hardware
from engine.cli import chart, live
from engine.errors import Exit, FtuiError
from engine.hardware import Gpu, Hardware
from engine.recipe import Data, Model, Recipe
from engine.runs import directory, processes
from engine.runs.directory import RunDir
from engine.runs.events import Answer, Evaluated, Evaluation, Exported, Failure, Sample, Start, State, Step
from engine.runs.journal import Writer
from tests.engine.cli.conftest import Said
from tests.engine.settings import settings

Ftui = Callable[..., Said]

SETTINGS = settings(
    learning_rate=1e-3,
    epochs=2.0,
    micro_batch=1,
    max_length=64,
    rank=4,
    alpha=4,
    warmup=0.0,
    save_every=5,
    sample_every=5,
    seed=1,
)


def a_run(name: str = "ada") -> RunDir:
    return directory.create(
        Recipe(name=name, model=Model(source="starter"), data=Data(source="rows.jsonl"), settings=SETTINGS), {}
    )


def step(number: int, total: int = 40) -> Step:
    return Step(
        step=number,
        epoch=number / 20,
        loss=4.0 / number,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens=number * 10,
        tokens_per_second=100.0,
        memory=1000,
        seconds_left=float(total - number),
    )


def begun(run: RunDir, upto: int = 20) -> Writer:
    writer = Writer(run.journal_path)
    writer.write(State(state="preparing"))
    writer.write(Start(attempt=1, from_step=0, total_steps=40, epochs=2.0, rows=20, parameters=1000, device="cpu"))
    writer.write(State(state="training"))
    for number in range(1, upto + 1):
        writer.write(step(number))
    writer.write(Sample(step=upto, prompt="Who are you?", answer="I am \x1b[31mAda\x1b[0m."))
    writer.write(Evaluated(step=upto, loss=0.9))
    return writer


def pretend_alive(run: RunDir) -> None:
    """A supervisor that lives: this process."""
    identity = processes.plain(processes.identity())
    record = {"attempt": 1, "job": {"kind": "train"}, "journal": 0, "supervisor": identity, "worker": None}
    run.supervisor_path.write_text(json.dumps(record), encoding="utf-8")


def ready(writer: Writer) -> None:
    right = Answer(ask="Who?", expect=["Ada"], before="SmolLM", after="Ada", before_right=False, after_right=True)
    held = Answer(ask="Capital?", expect=["Paris"], before="Paris", after="Paris", before_right=True, after_right=True)
    unknown = Answer(ask="Why?", expect=["42"], before="no", after="no", before_right=False, after_right=False)
    writer.write(Evaluation(identity=[right, right], general=[held, unknown]))
    writer.write(State(state="ready"))


def test_no_runs_says_what_to_type(ftui: Ftui) -> None:
    said = ftui("runs")
    assert said.code == 0
    assert "ftui demo" in said.out
    assert ftui("runs", "--json").json == []


def test_runs_are_listed_with_state_step_and_loss(ftui: Ftui) -> None:
    run = a_run()
    writer = begun(run)
    pretend_alive(run)
    (listed,) = ftui("runs", "--json").json
    assert (listed["name"], listed["state"], listed["step"], listed["total_steps"]) == ("ada", "training", 20, 40)
    assert listed["loss"] == pytest.approx(0.2)
    text = ftui("runs").out
    assert "training" in text
    assert "20/40" in text
    ready(writer)
    assert ftui("runs", "--json").json[0]["state"] == "ready"


def test_attach_shows_the_whole_curve_and_the_scores_of_a_finished_run(ftui: Ftui) -> None:
    run = a_run()
    ready(begun(run, 40))
    said = ftui("attach", "ada")
    assert said.code == 0
    assert "4.00" in said.out
    assert "◆" in said.out
    assert any(0x2800 < ord(sign) < 0x2900 for sign in said.out)
    assert "identity score 0/2 → 2/2" in said.out
    assert "general questions held 1/1" in said.out
    assert "ftui chat ada" in said.out


def test_what_a_finished_run_has_not_learned_more_epochs_are_the_next_step_for(ftui: Ftui) -> None:
    writer = begun(a_run(), 40)
    wrong = Answer(ask="Who?", expect=["Ada"], before="SmolLM", after="Eve", before_right=False, after_right=False)
    writer.write(Evaluation(identity=[wrong, wrong]))
    writer.write(State(state="ready"))
    said = ftui("attach", "ada").out
    assert "identity score 0/2 → 0/2" in said
    assert "next: `ftui extend ada --epochs 2` for what it has not learned, `ftui chat ada`" in " ".join(said.split())


def test_attach_follows_until_the_run_ends(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL", 0.01)
    run = a_run()
    writer = begun(run)
    pretend_alive(run)

    def goes_on() -> None:
        for number in range(21, 41):
            time.sleep(0.005)
            writer.write(step(number))
        writer.write(Sample(step=40, prompt="Who are you?", answer="I am \x1b[31mAda\x1b[0m."))
        ready(writer)

    worker = threading.Thread(target=goes_on)
    worker.start()
    said = ftui("attach", "ada")
    worker.join()
    assert said.code == 0
    assert "step 40/40" in said.out
    assert "ada is ready" in said.out
    assert "\x1b" not in said.out


def test_attach_with_json_gives_every_event_once_in_order(ftui: Ftui) -> None:
    ready(begun(a_run(), 40))
    events = [json.loads(line) for line in ftui("attach", "ada", "--json").out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert sum(event["event"] == "step" for event in events) == 40


def test_a_failed_run_has_its_cause_and_a_code_of_its_own(ftui: Ftui) -> None:
    writer = begun(a_run())
    writer.write(Failure(cause="out of memory at batch 4", next_step="try --batch 2"))
    writer.write(State(state="failed", detail="out of memory"))
    said = ftui("attach", "ada")
    assert said.code == Exit.RUN_FAILED
    assert said.err.splitlines() == ["ftui: out of memory at batch 4", "      try --batch 2"]


def test_a_stopped_run_says_how_to_go_on(ftui: Ftui) -> None:
    begun(a_run()).write(State(state="stopped"))
    said = ftui("attach", "ada")
    assert said.code == Exit.INTERRUPTED
    assert "ftui resume ada" in said.out


def test_leaving_says_that_the_run_goes_on(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    begun(run)
    pretend_alive(run)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.cli.live.time.sleep", interrupted)
    said = ftui("attach", "ada")
    assert said.code == Exit.INTERRUPTED
    assert "goes on without you" in said.out
    assert "ftui attach ada" in said.out
    assert not run.stop_path.exists()


def test_logs_show_what_a_progress_bar_said_last(ftui: Ftui) -> None:
    run = a_run()
    run.log_path.write_bytes(b"loading 10%\rloading 100%\nbad \x1b[2J\xff\nno end")
    said = ftui("logs", "ada")
    assert said.out.splitlines()[0] == "loading 100%"
    assert said.out.splitlines()[-1] == "no end"
    assert "\x1b" not in said.out


def test_stop_and_export_of_a_run_that_cannot(ftui: Ftui) -> None:
    ready(begun(a_run()))
    assert ftui("stop", "ada").code == Exit.RUN_STATE
    assert ftui("export", "ada").code == Exit.RUN_STATE
    assert ftui("resume", "ada").code == Exit.RUN_STATE


def test_export_waits_for_its_own_event() -> None:
    run = a_run()
    writer = begun(run)
    ready(writer)
    writer.write(Exported(kind="merged", path="/old", difference=0.5))
    seen = live.mark(run)
    with pytest.raises(FtuiError, match="without a result") as caught:
        live.exported(run, seen, quiet=True)
    assert caught.value.code == Exit.EXPORT_FAILED
    writer.write(Exported(kind="merged", path="/new", difference=1e-5))
    assert live.exported(run, seen, quiet=True).path == "/new"


@pytest.mark.parametrize(
    ("code", "expected"), [(52, Exit.EXPORT_FAILED), (30, Exit.DISK_FULL), (999, Exit.EXPORT_FAILED)]
)
def test_an_export_that_fails_tells_why(code: int, expected: Exit) -> None:
    run = a_run()
    writer = begun(run)
    seen = live.mark(run)
    writer.write(Failure(cause="no room", code=code))
    with pytest.raises(FtuiError, match="no room") as caught:
        live.exported(run, seen, quiet=True)
    assert caught.value.code == expected


def test_where_names_the_folders(ftui: Ftui, private_folders: Path) -> None:
    run = a_run()
    assert ftui("where", "--json").json["runs"] == str(private_folders / "state" / "ftui" / "runs")
    assert ftui("where", "ada", "--json").json["journal"] == str(run.journal_path)


def test_a_closed_pipe_is_no_error(private_folders: Path) -> None:
    import subprocess
    import sys

    for number in range(30):
        a_run(f"run-{number}")
    script = f"{sys.executable} -m engine.cli runs --json | head -c 10 > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_curve_has_the_size_it_was_asked_for() -> None:
    lines = chart.curve(range(1, 101), [1.0 / n for n in range(1, 101)], [(50, 0.5)], last=200, width=40, height=6)
    assert len(lines) == 7
    assert all(len(line) <= 40 + 5 for line in lines)
    assert lines[-1].split() == ["1", "200"]
    assert lines[0].startswith("1.00")
    assert sum(line.count("◆") for line in lines) == 1


def test_a_curve_of_nothing_or_of_one_point() -> None:
    assert chart.curve([], []) == []
    assert chart.curve([1], [float("nan")]) == []
    assert len(chart.curve([1], [2.0], height=4)) == 5


def test_demo_goes_from_a_name_to_the_scores_without_a_question(
    ftui: Ftui, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(run: RunDir, job: object, gpu: int | None = None, warm: object = None) -> None:
        ready(begun(run, 40))

    monkeypatch.setattr("engine.runs.control.start", pretend)
    said = ftui("demo", "--model", tiny_model, "--name", "Ada", "--author", "Byron")
    assert said.code == 0
    assert "becomes Ada, made by Byron" in said.out
    assert "learning_rate" in said.out
    assert "preset identity" in said.out
    assert "identity score 0/2 → 2/2" in said.out
    assert "next: `ftui chat ada`, `ftui export ada --merged`" in said.out
    assert directory.find("ada").recipe().data.values == {"name": "Ada", "author": "Byron"}


def test_train_returns_at_once_and_says_how_to_come_back(
    ftui: Ftui, tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RunDir] = []
    monkeypatch.setattr("engine.runs.control.start", lambda run, *_, **__: started.append(run))
    said = ftui("train", "--data", rows, "--model", tiny_model, "--name", "mine")
    assert said.code == 0
    assert "`ftui attach mine`" in said.out
    assert "`ftui stop mine`" in said.out
    answer = ftui("train", "--data", rows, "--model", tiny_model, "--json").json
    assert answer == {"run": "rows", "dir": str(started[-1].path)}


def test_resume_with_wait_tells_only_what_is_new(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    writer = begun(run, 20)
    writer.write(State(state="stopped"))

    def resumed(one: RunDir, **_: object) -> int:
        writer.write(State(state="preparing"))
        writer.write(Start(attempt=2, from_step=15, total_steps=40, epochs=2.0, rows=20))
        for number in range(16, 41):
            writer.write(step(number))
        ready(writer)
        return 15

    monkeypatch.setattr("engine.runs.control.resume", resumed)
    events = [json.loads(line) for line in ftui("resume", "ada", "--wait", "--json").out.splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(16, 41))
    writer.write(State(state="stopped"))
    said = ftui("resume", "ada", "--wait")
    assert "ada goes on from step 15" in said.out
    assert "stopped" not in said.out
    assert "step 1/40" not in said.out


@pytest.fixture
def in_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, rows: Path
) -> Iterator[tuple[object, ...]]:
    """The words that train on twelve rows, on a processor whose slot the run "first" has; workers up to their turn."""
    from engine.runs.slots import Place
    from tests.engine.runs.slot_worker import Machine

    machine = Hardware(cpu="processor", cores=2, memory_total=25 * 10**9, memory_free=20 * 10**9, disk_free=10**12)
    (tmp_path / "machine.json").write_bytes(msgspec.json.encode(Machine(machine)))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "tests.engine.runs.slot_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("FTUI_TEST_MACHINE", str(tmp_path / "machine.json"))
    monkeypatch.setattr(hardware, "read", lambda: machine)
    assert Place(a_run("first"), ["cpu"]).take({})
    yield ("train", "--data", rows, "--model", tiny_model, "--force", "--name", "second")
    for run in directory.all_runs():  # so that no worker stays
        (run.path / "finish").touch()


def test_the_second_run_waits_in_line_and_says_so(ftui: Ftui, in_line: tuple[object, ...]) -> None:
    behind = "behind first on the CPU, 1st in line"
    said = ftui(*in_line)
    assert said.code == 0 and f"second is queued: {behind}\n" in said.out
    assert f"queued: {behind}" in ftui("runs").out
    assert [(one["state"], one["detail"]) for one in ftui("runs", "--json").json if one["name"] == "second"] == [
        ("queued", behind)
    ]
    (place,) = ftui("runs", "--gpus", "--json").json
    assert (place["slot"], place["training"], place["waiting"]) == ("cpu", ["first"], 1)
    assert "1 waits" in ftui("runs", "--gpus").out
    assert "second leaves the line" in ftui("stop", "second").out
    end = time.monotonic() + 20
    while "stopped" not in ftui("runs").out:
        assert time.monotonic() < end
    said = ftui("resume", "second", "--json")
    assert said.json["queued"] == behind
    # And at once, out of the line that it is in.
    said = ftui("resume", "second", "--now")
    assert said.code == 0 and "queued" not in said.out
    run = directory.find("second")
    (run.path / "finish").touch()
    said = ftui("attach", "second")
    assert said.code == 0 and "second is ready" in said.out


def test_now_says_beside_whom(ftui: Ftui, in_line: tuple[object, ...]) -> None:
    said = ftui(*in_line, "--now")
    (directory.find("second").path / "finish").touch()
    assert (
        said.code == 0
        and "! beside first" in said.out
        and "on the CPU: both will be slower, and may run out of memory" in said.out
    )


def test_a_gpu_that_is_not_there_is_refused(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "read", lambda: Hardware(gpus=[Gpu(1, "H100", 80, 80, 0, True)]))
    said = ftui("train", "--gpu", "0")
    assert said.code == Exit.USAGE and "0 is no GPU of this machine: it has GPU 1" in said.err
    monkeypatch.setattr(hardware, "read", lambda: Hardware(gpus=[Gpu(1, "H100", 80, 80, 0, True)], torch_cuda=False))
    assert "no GPU that can be used" in ftui("resume", "ada", "--gpu", "1").err
