"""One training a slot: who comes first goes first, across processes, whatever happens to those before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine import hardware, paths
from engine.errors import FtuiError
from engine.hardware import Gpu, GpuUser, Hardware
from engine.runs import control, directory, processes, slots, status
from engine.runs.control import Job
from engine.runs.directory import RunDir
from engine.runs.journal import Reader
from engine.runs.slots import Place
from tests.engine.runs.conftest import make_recipe, over, pid_of, until
from tests.engine.runs.slot_worker import Machine

GB = 10**9
CPU = Hardware(cpu="processor", cores=2, memory_total=25 * GB, memory_free=20 * GB)
Make = Callable[..., RunDir]


def card(index: int = 0, free: int = 80, total: int = 80, ours: int = 0) -> Gpu:
    return Gpu(index, "NVIDIA H100", total * GB, free * GB, 0, True, ours * GB)


def place(name: str, *wanted: str) -> Place:
    return Place(directory.create(make_recipe(name), {}), wanted or ["cpu"])


# in one process -----------------------------------------------------------------------------------------------------


def test_who_comes_first_goes_first() -> None:
    first, second, third = place("first"), place("second"), place("third")
    assert not third.take({}) and not second.take({})  # first has not looked yet, and still it is its turn
    assert first.take({}) and first.slot == "cpu" and first.gpu is None
    assert not second.take({}) and not third.take({})
    assert second.waits({}) == "behind first on the CPU, 1st in line"
    assert third.waits({}) == "behind first on the CPU, 2nd in line"
    first.leave()
    assert not third.take({}) and second.take({})
    second.leave()
    second.leave()
    assert third.take({})


def test_any_gpu_is_the_first_that_is_free_and_a_chosen_one_is_waited_for() -> None:
    a, b = place("a", "gpu-0", "gpu-1"), place("b", "gpu-0")
    assert a.take({}) and a.gpu == 0
    assert not b.take({}) and b.waits({}) == "behind a on GPU 0, 1st in line"
    c, d, e = place("c", "gpu-0", "gpu-1"), place("d", "gpu-1", "gpu-0"), place("e", "gpu-1")
    assert c.take({}) and c.gpu == 1  # b was there before, but wants another
    assert not d.take({}) and d.waits({}) == "behind a on GPU 0 and c on GPU 1, 2nd in line"
    assert e.waits({}) == "behind c on GPU 1, 2nd in line"
    a.leave()
    assert not d.take({}) and b.take({})
    c.leave()
    assert not e.take({}) and d.take({}) and d.gpu == 1


def test_now_starts_beside_and_is_waited_for_too() -> None:
    first, second, hurried = place("first"), place("second"), place("hurried")
    assert first.take({}) and not second.take({})
    assert hurried.take({}, now=True) and hurried.slot == "cpu"
    first.leave()
    assert not second.take({}) and second.waits({}) == "behind hurried on the CPU, 1st in line"
    hurried.leave()
    assert second.take({})


def test_a_card_that_others_use_is_passed_over_and_waited_for() -> None:
    blocked = {"gpu-0": "python of alice uses 20 GB"}
    any_card, chosen = place("any", "gpu-0", "gpu-1"), place("chosen", "gpu-0")
    assert any_card.take(blocked) and any_card.gpu == 1
    assert not chosen.take(blocked) and chosen.waits(blocked) == "waits for GPU 0: python of alice uses 20 GB"
    late = place("late", "gpu-0")
    assert late.waits(blocked) == "waits for GPU 0: python of alice uses 20 GB, 2nd in line"
    assert chosen.take({})
    hurried = place("hurried", "gpu-0")
    assert hurried.take(blocked, now=True) and hurried.gpu == 0


def test_the_same_run_tried_again_keeps_its_place() -> None:
    first, second = place("first"), place("second")
    assert first.take({})
    # As the supervisor, which lives on, would be found in the record.
    run = RunDir(Path(first.ticket.run))
    first.leave(keep=True)
    first.leave()
    assert not second.take({}) and second.waits({}) == "behind first on the CPU, 1st in line"
    again = Place(run, ["cpu"])
    assert again.ticket.number == first.ticket.number and not second.take({}) and again.take({})
    again.leave()
    assert second.take({})


def test_tickets_of_the_dead_do_not_count_and_clocks_do_not_either() -> None:
    first, second = place("first"), place("second")
    folder = paths.state_dir() / "slots" / processes.host()
    me = processes.identity()
    assert me is not None
    ticket = folder / "000001.json"
    os.utime(ticket, (4e9, 4e9))
    for gone in (
        me._replace(start=me.start - 1),
        me._replace(boot_id="another"),
    ):  # another has this pid now; restarted
        ticket.write_bytes(
            msgspec.json.encode(msgspec.structs.replace(first.ticket, worker=gone._asdict(), slot="cpu"))
        )
        assert [found.name for found in slots.tickets()] == ["second"]
    ticket.write_text("{")
    (folder / "000000.json").symlink_to(folder / "000002.json")
    third = place("third")
    assert second.take({}) and third.ticket.number == 3
    assert sorted(path.name for path in folder.glob("*.json")) == ["000002.json", "000003.json"]


@pytest.mark.usefixtures("loose_umask")
def test_the_folder_is_private_and_no_link_is_followed(tmp_path: Path) -> None:
    place("first").take({})
    folder = paths.state_dir() / "slots"
    for path in (folder, *folder.rglob("*")):
        assert path.lstat().st_mode & 0o077 == 0, path
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FtuiError, match="not a folder of yours"):
        place("second")
    assert slots.tickets() == []
    folder.unlink()
    lock = folder / processes.host() / "cpu.lock"
    third = place("third")
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(FtuiError):
        third.take({})
    assert not (tmp_path / "victim").exists()


def test_which_slots_a_run_may_take() -> None:
    two = Hardware(gpus=[card(0, 20), card(1, 70)])
    assert slots.choices(two) == ["gpu-1", "gpu-0"]
    assert slots.choices(two, gpu=0) == ["gpu-0"]
    unlike = Hardware(gpus=[card(0, 15, 16), card(1, 10, 80)])
    assert slots.choices(unlike, need=30 * GB) == ["gpu-1"]
    assert slots.choices(unlike, need=300 * GB) == ["gpu-0", "gpu-1"]
    assert slots.choices(Hardware(gpus=[card()], torch_cuda=False)) == slots.choices(CPU, gpu=3) == ["cpu"]


def test_who_are_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(**found: list[GpuUser]) -> None:
        monkeypatch.setattr(hardware, "users", lambda: {int(key[1:]): users for key, users in found.items()})

    alice, bob = GpuUser(7, "alice", "python", 20 * GB, False), GpuUser(8, "bob", "vllm", 5 * GB, False)
    mine = GpuUser(9, "me", "python", 30 * GB, True)
    seen(_0=[alice, bob, mine])
    assert slots.strangers(Hardware(gpus=[card(0, 25, ours=30)])) == {"gpu-0": "python of alice uses 20 GB, and 1 more"}
    assert slots.strangers(Hardware(gpus=[card(0, 78)])) == {}  # a driver's own part
    seen(_0=[mine])
    assert slots.strangers(Hardware(gpus=[card(0, 49, ours=30)])) == {}
    seen()  # another container: nobody to be seen, but the memory is gone
    assert slots.strangers(Hardware(gpus=[card(0, 40)])) == {"gpu-0": "others use 40 GB"}
    seen(_0=[GpuUser(7, "", "", 0, False)])
    assert slots.strangers(Hardware(gpus=[card(0, 40)])) == {"gpu-0": "a program uses 40 GB"}


CONTENDER = """
import os, sys, time
from pathlib import Path
from engine import hardware
from engine.runs import slots
from engine.runs.directory import RunDir

hardware.read = lambda: hardware.Hardware(cpu="processor")
slots.POLL = 0.01
record = Path(sys.argv[2]).open("a", buffering=1)
place = slots.wait(RunDir(Path(sys.argv[1])), None, False, lambda words: None, lambda seconds: not time.sleep(seconds))
record.write(f"in {place.ticket.number}\\n")
time.sleep(0.05)
if place.ticket.number % 3 == 0:
    record.write(f"out {place.ticket.number}\\n")
    os.kill(os.getpid(), 9)
record.write(f"out {place.ticket.number}\\n")
place.leave()
"""


def test_many_at_once_train_one_at_a_time_in_the_order_they_came(tmp_path: Path) -> None:
    """Each in a process of its own; every third one is killed while it trains."""
    record = tmp_path / "record"
    before = place("before")
    assert before.take({})
    runs = [directory.create(make_recipe(f"run-{number}"), {}) for number in range(7)]
    environment = processes.environment()
    command = [sys.executable, "-c", CONTENDER]
    started = [subprocess.Popen([*command, str(run.path), str(record)], env=environment) for run in runs]
    until(lambda: len(slots.tickets()) == 8, 60)
    before.leave()
    assert sorted(process.wait(60) for process in started) == [-9, -9, 0, 0, 0, 0, 0]
    assert record.read_text() == "".join(f"in {number}\nout {number}\n" for number in range(2, 9))


# with processes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Machine], None]:
    """machine(…): what every worker sees from now on; a processor at first. Workers are the real one up to their turn."""
    monkeypatch.setenv("FTUI_WORKER_MODULE", "tests.engine.runs.slot_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("FTUI_TEST_MACHINE", str(tmp_path / "machine.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def see(now: Machine) -> None:
        paths.write_private(tmp_path / "machine.json", msgspec.json.encode(now))

    see(Machine(CPU))
    return see


@pytest.fixture
def line(machine: object, make_run: Make) -> Iterator[Callable[..., RunDir]]:
    """line(name): a run that was started, and trains or waits by now."""

    def start(name: str, gpu: int | None = None, **options: object) -> RunDir:
        run = make_run("", name)
        control.start(run, Job("train", str(run.path), {"resume": None, **options}), gpu)
        until(lambda: state(run) in ("training", "queued"))
        return run

    yield start


def state(run: RunDir) -> str:
    return status.read(run).state


def told(run: RunDir) -> str:
    now = status.read(run)
    return f"{now.state}: {now.detail}"


def states(run: RunDir) -> list[str]:
    return [event.state for event in Reader(run.journal_path).poll() if hasattr(event, "state")]


def test_the_next_goes_on_whatever_becomes_of_the_one_before(line: Callable[..., RunDir]) -> None:
    runs = [line(f"run-{number}") for number in range(6)]
    assert told(runs[0]) == "training: "
    assert told(runs[1]) == "queued: behind run-0 on the CPU, 1st in line"
    assert told(runs[5]) == "queued: behind run-0 on the CPU, 5th in line"
    assert status.read(runs[1]).worker_alive and not status.read(runs[1]).ended

    os.kill(pid_of(runs[0]), signal.SIGKILL)
    until(lambda: state(runs[1]) == "training")
    assert states(runs[1]) == ["preparing", "queued", "preparing", "training"]
    until(lambda: told(runs[2]) == "queued: behind run-1 on the CPU, 1st in line")

    control.stop(runs[1])
    until(lambda: state(runs[2]) == "training")

    os.kill(pid_of(runs[3], "supervisor"), signal.SIGKILL)  # nobody would note how it ends
    until(lambda: over(runs[3]))
    assert told(runs[3]) == "lost: "

    paths.write_private(runs[2].path / "fail", "again")  # another try, in another process: nobody comes in between
    until(lambda: states(runs[2]).count("training") == 2)
    assert told(runs[4]) == "queued: behind run-2 on the CPU, 1st in line"
    paths.write_private(runs[2].path / "fail", "as asked")
    until(lambda: state(runs[4]) == "training")
    assert state(runs[2]) == "failed"
    (runs[4].path / "finish").touch()
    until(lambda: state(runs[5]) == "training")


def test_out_of_the_line_and_back_into_it(line: Callable[..., RunDir]) -> None:
    first, second, third = line("first"), line("second"), line("third")
    assert control.stop(second, wait=True).state == "stopped"
    assert status.read(second).detail == "before its turn came"
    until(lambda: told(third) == "queued: behind first on the CPU, 1st in line")
    control.resume(second)
    until(lambda: told(second) == "queued: behind first on the CPU, 2nd in line")
    control.stop(second, wait=True)
    control.resume(second, now=True)
    until(lambda: state(second) == "training")
    (first.path / "finish").touch()
    until(lambda: told(third) == "queued: behind second on the CPU, 1st in line")


def test_one_that_only_talks_holds_nothing_and_makes_room(
    line: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTUI_LINGER", "600")
    first = line("first")
    (first.path / "finish").touch()
    until(lambda: state(first) == "ready")
    assert not over(first)
    line("second")
    assert [ticket.name for ticket in slots.tickets()] == ["second"]
    until(lambda: over(first))


def test_a_worker_that_was_started_ahead_waits_too(
    machine: Callable[[Machine], None], line: Callable[..., RunDir], make_run: Make
) -> None:
    machine(Machine(Hardware(gpus=[card(0, 55)]), {0: [GpuUser(7, "alice", "python", 20 * GB, False)]}))
    warm, run = control.prewarm(), make_run("", "run")
    control.start(run, Job("train", str(run.path), {"resume": None}), warm=warm)
    until(lambda: told(run) == "queued: waits for GPU 0: python of alice uses 20 GB")
    machine(Machine(Hardware(gpus=[card(0)])))
    until(lambda: told(run) == "training: 0")


def test_one_that_would_wait_with_everything_imported_is_not_taken(line: Callable[..., RunDir], make_run: Make) -> None:
    first, warm, second = line("first"), control.prewarm(), make_run("", "second")
    control.start(second, Job("train", str(second.path), {"resume": None}), warm=warm)
    until(lambda: told(second) == "queued: behind first on the CPU, 1st in line")
    until(lambda: not warm.alive)
    (first.path / "finish").touch()
    until(lambda: state(second) == "training")


def test_a_card_that_alice_uses(
    line: Callable[..., RunDir], machine: Callable[[Machine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = GpuUser(7, "alice", "python", 20 * GB, False)
    machine(Machine(Hardware(gpus=[card(0, 55), card(1)]), {0: [alice]}))
    free, chosen = line("free"), line("chosen", gpu=0)
    assert told(free) == "training: 1" and states(free) == ["preparing", "preparing", "training"]
    assert told(chosen) == "queued: waits for GPU 0: python of alice uses 20 GB"
    late = line("late")
    assert told(late) == "queued: behind free on GPU 1, waits for GPU 0: python of alice uses 20 GB, 2nd in line"
    assert told(line("hurried", gpu=0, now=True)) == "training: 0"
    machine(Machine(Hardware(gpus=[card(0), card(1)])))
    until(lambda: told(chosen) == "queued: behind hurried on GPU 0, 1st in line")
    (free.path / "finish").touch()
    until(lambda: told(late) == "training: 1")
