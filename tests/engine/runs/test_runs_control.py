"""Starting, stopping, resuming, extending and serving, with real processes and a fake worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import Exit, FtuiError
from engine.runs import chat, control, processes, status
from engine.runs.control import Job
from engine.runs.directory import RunDir
from tests.engine.runs.conftest import over, pid_of, until

Make = Callable[..., RunDir]


def train(run: RunDir, **more: object) -> None:
    control.start(run, Job("train", str(run.path), {"resume": None}), **more)  # type: ignore[arg-type]


def state(run: RunDir) -> str:
    return status.read(run).state


def test_run_to_the_end(make_run: Make) -> None:
    run = make_run("train")
    train(run)
    until(lambda: state(run) == "ready")
    until(lambda: over(run))
    now = status.read(run)
    assert (now.name, now.step, now.total_steps, now.loss, now.epochs) == ("congyu", 20, 20, 1.0, 2.0)
    assert now.result == str(run.adapter) and not now.worker_alive and now.model == "starter" and now.method == "lora"
    ended = json.loads(run.exit_path.read_text())
    assert ended["code"] == 0 and ended["signal"] is None and ended["attempt"] == 1 and not ended["oom_killed"]
    for path in [run.path, *run.path.rglob("*")]:
        if path.name not in ("fake.txt",):
            assert path.lstat().st_mode & 0o077 == 0, path


def test_worker_environment(make_run: Make) -> None:
    run = make_run("environment")
    train(run, gpu=3)
    until(lambda: over(run))
    seen = json.loads(run.log_path.read_text().splitlines()[-1])
    assert seen["CUDA_VISIBLE_DEVICES"] == "3" and seen["PYTHONUNBUFFERED"] == "1"
    assert seen["TOKENIZERS_PARALLELISM"] == "false" and seen["FTUI_WARM_DIR"] is None
    assert seen["umask"] == 0o077 and Path(seen["cwd"]) == run.path
    assert json.loads(run.supervisor_path.read_text())["job"]["options"]["gpu"] == 3


FACE = """
import os, sys
from engine.runs import control
from engine.runs.directory import find
run = find(sys.argv[1])
control.start(run, control.Job("train", str(run.path), {"resume": None}))
print("started", flush=True)
sys.stdin.read()
"""


def test_outlives_a_killed_face_and_a_hang_up(make_run: Make) -> None:
    run = make_run("hang")
    environment = processes.environment()
    face = subprocess.Popen(
        [sys.executable, "-c", FACE, run.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert face.stdout is not None and face.stdout.readline() == b"started\n"
    supervisor, worker = pid_of(run, "supervisor"), pid_of(run)
    assert os.getsid(supervisor) not in (os.getsid(face.pid), os.getsid(0))
    assert os.getsid(worker) == os.getsid(supervisor)
    children = Path(f"/proc/{face.pid}/task/{face.pid}/children").read_text().split()
    assert children == []  # no zombie is left to the face, and nothing that would go with it
    face.kill()
    face.communicate()
    os.kill(supervisor, signal.SIGHUP)
    os.kill(worker, signal.SIGHUP)
    until(lambda: status.read(run).step == 7)
    assert status.read(run).worker_alive
    assert control.stop(run, wait=True).state == "stopped"
    until(lambda: over(run))
    assert (run.checkpoints / "step-000007").is_dir()


def test_kill_9_reads_failed_killed_and_resumes(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: state(run) == "failed")
    now = status.read(run)
    assert (now.detail, now.cause, now.next_step) == (
        "killed",
        "the worker was killed (signal 9)",
        "ftui resume congyu",
    )
    assert not now.worker_alive
    (run.path / "fake.txt").write_text("train")
    assert control.resume(run) == 5
    assert state(run) != "failed"
    until(lambda: state(run) == "ready")
    assert status.read(run).cause == "" and json.loads(run.supervisor_path.read_text())["attempt"] == 2


def test_memory_kill_is_told(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: over(run))
    ended = json.loads(run.exit_path.read_text())
    run.exit_path.write_text(json.dumps({**ended, "oom_killed": True}))
    assert status.read(run).cause.startswith("the kernel killed the worker for memory: it held ")


def test_what_the_worker_started_ends_with_it(make_run: Make) -> None:
    run = make_run("child")
    train(run)
    child = int(until(lambda: (run.path / "child").exists() and (run.path / "child").read_text()))
    who = processes.identity(child)
    assert who is not None
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: not processes.alive(who))


def test_exit_code_without_a_word(make_run: Make) -> None:
    run = make_run("exit 3")
    train(run)
    until(lambda: state(run) == "failed")
    now = status.read(run)
    assert now.cause == "the worker ended with exit code 3"
    assert now.where == "ValueError: the \x1b[31mlast\x1b[0m line"  # shown through text.safe by the faces
    assert now.next_step == "ftui resume congyu"


def test_failure_of_the_journal_comes_first(make_run: Make) -> None:
    run = make_run("failure")
    train(run)
    until(lambda: over(run))
    now = status.read(run)
    assert (now.state, now.detail, now.cause, now.where) == (
        "failed",
        "out of memory",
        "no room on the card",
        "step 3",
    )
    # A later attempt that dies without a word does not inherit that failure.
    (run.path / "fake.txt").write_text("exit 3")
    control.resume(run)
    until(lambda: over(run))
    assert status.read(run).cause == "the worker ended with exit code 3"


def test_sigterm_is_passed_on(make_run: Make) -> None:
    run = make_run("deaf")
    train(run)
    until(lambda: state(run) == "training")
    os.kill(pid_of(run, "supervisor"), signal.SIGTERM)
    until(lambda: state(run) == "failed")
    assert status.read(run).cause == "the worker ended on signal 15 (SIGTERM)"


def test_lost(make_run: Make) -> None:
    run = make_run("hang")
    assert state(run) == "lost" and status.read(run).cause == "the run was never started"
    train(run)
    until(lambda: status.read(run).step == 7)
    worker = processes.parse(json.loads(run.supervisor_path.read_text())["worker"])
    assert worker is not None
    os.kill(pid_of(run, "supervisor"), signal.SIGKILL)
    until(lambda: not processes.alive(processes.parse(json.loads(run.supervisor_path.read_text())["supervisor"])))
    # The worker goes on alone, and nobody may start a second one beside it.
    assert state(run) == "training" and status.read(run).worker_alive
    with pytest.raises(FtuiError) as caught:
        train(run)
    assert caught.value.code == Exit.RUN_STATE
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: state(run) == "lost")
    now = status.read(run)
    assert now.cause == "the run's processes are gone" and now.next_step == "ftui resume congyu"
    record = json.loads(run.supervisor_path.read_text())
    record["supervisor"]["boot_id"] = "another"
    run.supervisor_path.write_text(json.dumps(record))
    assert status.read(run).cause == "the machine was restarted while the run went on"


def test_pid_of_another_process_is_never_taken_or_signalled() -> None:
    me = processes.identity()
    assert me is not None and processes.alive(me)
    earlier = me._replace(start=me.start - 1)
    assert not processes.alive(earlier)
    assert not processes.send(earlier, signal.SIGKILL)  # would end this test run
    assert processes.alive(me._replace(host="renamed"))
    assert processes.elsewhere(me._replace(host="other", boot_id="x"))


def test_ready_holds_when_a_lingering_worker_is_killed(make_run: Make) -> None:
    run = make_run("linger")
    train(run)
    until(lambda: chat.answers(run.socket_path))
    assert status.read(run).worker_alive and state(run) == "ready"
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: over(run))
    assert state(run) == "ready" and status.read(run).cause == ""


def test_two_starts_of_one_run(make_run: Make) -> None:
    run = make_run("hang")
    outcomes: list[object] = []

    def go() -> None:
        try:
            train(run)
            outcomes.append("started")
        except FtuiError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == sorted(map(str, ["started", Exit.RUN_STATE, Exit.RUN_STATE]))
    assert run.log_path.read_text().count("job train") <= 1


def test_stop_flag(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    assert control.stop(run, wait=True).state == "stopped"
    until(lambda: over(run))
    with pytest.raises(FtuiError) as caught:
        control.stop(run)
    assert caught.value.code == Exit.RUN_STATE and "stopped" in caught.value.cause
    (run.path / "fake.txt").write_text("train")
    assert control.resume(run) == 7  # and the flag is gone, else it would stop at once
    until(lambda: state(run) == "ready")
    until(lambda: over(run))
    with pytest.raises(FtuiError, match="finished"):
        control.resume(run)


def test_resume_passes_over_a_damaged_checkpoint(make_run: Make) -> None:
    run = make_run("hang", epochs=3)
    train(run)
    until(lambda: status.read(run).step == 7)
    control.stop(run, wait=True)
    until(lambda: over(run))
    weights = run.checkpoints / "step-000007" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    (run.path / "fake.txt").write_text("train")
    assert control.resume(run) == 5
    assert json.loads(run.supervisor_path.read_text())["job"]["options"] == {"resume": "checkpoints/step-000005"}
    until(lambda: state(run) == "ready")


def test_extend(make_run: Make) -> None:
    run = make_run("linger")
    with pytest.raises(FtuiError):
        control.extend(run, 1)  # not ready
    train(run)
    until(lambda: chat.answers(run.socket_path))
    before = run.recipe_path.read_bytes()
    with pytest.raises(FtuiError):
        control.extend(run, 0)
    # The lingering chat worker is sent away, since it holds the run.
    assert control.extend(run, 1.5) == 20
    assert run.recipe().settings.epochs == 3.5
    assert (run.path / "recipe.before-extend-1.yaml").read_bytes() == before
    until(lambda: status.read(run).step == 35 and state(run) == "ready")
    job = json.loads(run.supervisor_path.read_text())["job"]
    assert job["options"] == {"resume": "checkpoints/step-000020", "extend": 1.5}


def test_extend_needs_a_whole_checkpoint(make_run: Make) -> None:
    run = make_run("train")
    train(run)
    until(lambda: state(run) == "ready")
    until(lambda: over(run))
    for manifest in run.checkpoints.glob("*/manifest.json"):
        manifest.unlink()
    before = run.recipe_path.read_bytes()
    with pytest.raises(FtuiError) as caught:
        control.extend(run, 1)
    assert "adapter" in caught.value.next_step and run.recipe_path.read_bytes() == before


def test_serve(make_run: Make) -> None:
    run = make_run("train")
    with pytest.raises(FtuiError) as caught:
        control.serve(run)
    assert "nothing to talk to" in caught.value.cause
    train(run)
    until(lambda: state(run) == "ready")
    control.serve(run)
    with chat.Chat(run) as talk:
        assert talk.status() == {"run": run.name, "state": "ready"}
    worker = pid_of(run)
    control.serve(run)  # it answers already
    assert pid_of(run) == worker and state(run) == "ready" and status.read(run).job == "serve"
    control.stop(run)  # nothing trains: this ends the chat worker
    assert over(run) and not chat.answers(run.socket_path)


def test_serve_while_training_and_serve_that_fails(make_run: Make) -> None:
    run = make_run("hang")
    train(run)
    until(lambda: status.read(run).step == 7)
    with pytest.raises(FtuiError, match="still training"):
        control.serve(run)
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: state(run) == "failed")
    (run.path / "fake.txt").write_text("failure")
    with pytest.raises(FtuiError) as caught:
        control.serve(run)  # from the checkpoint: there is no result
    assert (caught.value.code, caught.value.cause) == (Exit.DISK_FULL, "no room on the card")
    # How training ended is still told right, although exit.json is now the serving attempt's.
    assert status.read(run).detail == "killed" and state(run) == "failed"
    (run.path / "fake.txt").write_text("exit 3")
    with pytest.raises(FtuiError, match="exit code 3"):
        control.serve(run)


def test_supervisor_imports_little() -> None:
    code = "import sys, engine.runs.supervisor; print(*(m for m in ('msgspec', 'yaml', 'rich', 'torch') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=processes.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
