"""Waiting in line and choosing a place: the picker as data and on the screens, a queued run on Runs and Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import hardware
from engine.hardware import Gpu, GpuUser, Hardware
from engine.runs import control
from engine.runs.directory import RunDir
from engine.runs.occupancy import Spot, User, look
from engine.runs.slots import Place
from tests.tui.run_files import FakeRun
from tests.tui.stage import seen, until
from tui.app import FtuiApp
from tui.machine import places, trouble, where
from tui.screens.review import ReviewScreen
from tui.widgets.choice import Choice

GB = 10**9
HOSTILE = "x\x1b[2J[@click=app.quit]"


def spot(index: int, free: int = 80, *, training: str = "", strangers: str = "", users: tuple[User, ...] = ()) -> Spot:
    return Spot(
        slot=f"gpu-{index}",
        name="NVIDIA H100 80GB",
        memory_total=80 * GB,
        memory_free=free * GB,
        memory_soon=(80 if training else free) * GB,
        users=list(users),
        training=[training] if training else [],
        waiting=0,
        strangers=strangers,
    )


ALICE = User("python of alice", 20 * GB, False)


def test_what_there_is_to_choose() -> None:
    free, mine = spot(1), spot(0, 50, training="first", users=(User("first", 30 * GB, True),))
    hers = spot(0, 60, strangers="python of alice uses 20 GB", users=(ALICE,))
    assert places([free]) == places([]) == []
    assert where([free]) == "GPU 1 NVIDIA H100 80GB, 80.0 GB of 80.0 GB free" and where([free, mine]) == ""
    assert places([mine]) == [
        ("auto", "In line", "behind first on GPU 0; starts by itself"),
        ("now", "At once", "on GPU 0, beside first: both will be slower"),
    ]
    assert places([hers])[0][2] == "as soon as GPU 0 is free: python of alice uses 20 GB; starts by itself"
    assert places([hers])[1][2] == "on GPU 0, beside python of alice: both will be slower"
    assert [name for name, _, _ in places([mine, free])] == ["auto", "gpu-0", "gpu-1"]
    assert places([mine, free])[0][2] == "the first that is free: GPU 1, now"
    assert places([hers, free])[1][2] == "H100, 60.0 GB of 80.0 GB free; python of alice 20.0 GB"
    assert [name for name, _, _ in places([mine, hers])] == ["auto", "gpu-0", "gpu-0", "now"]


def test_a_plan_that_does_not_fit_in_what_is_free() -> None:
    mine, hers = spot(0, 50, training="first"), spot(1, 60, strangers="python of alice uses 20 GB")
    assert trouble([mine, hers], "auto", 70 * GB) == ""  # GPU 0 has room when its turn comes
    assert trouble([mine, hers], "gpu-1", 70 * GB) == "the plan takes 70.0 GB, and 60.0 GB are free on GPU 1"
    assert trouble([mine], "now", 70 * GB) == "the plan takes 70.0 GB, and 50.0 GB are free on GPU 0"
    assert trouble([mine, hers], "auto", 90 * GB).endswith("80.0 GB will be free on GPU 0")
    assert trouble([], "auto", 90 * GB) == ""


def test_who_uses_what(monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeRun("first")
    first.run.supervisor_path.write_text("{}")
    machine = Hardware(
        gpus=[Gpu(0, "H100", 80 * GB, 20 * GB, 0, True, 30 * GB, 0, 30 * GB), Gpu(1, "H100", 80 * GB, 79 * GB, 0, True)]
    )
    alice, ours = GpuUser(7, "alice", "python", 30 * GB, False), GpuUser(8, "me", "python", 30 * GB, True)
    monkeypatch.setattr(hardware, "users", lambda: {0: [alice, ours], 1: []})
    assert Place(first.run, ["gpu-0"]).take({})
    Place(FakeRun("second").run, ["gpu-0", "gpu-1"])
    zero, one = look(machine)
    assert (zero.training, zero.waiting, zero.strangers) == (["first"], 1, "python of alice uses 30 GB")
    assert (zero.memory_free, zero.memory_soon, zero.beside) == (20 * GB, 50 * GB, "first and python of alice")
    assert zero.users == [User("python of alice", 30 * GB, False), User("python of me", 30 * GB, True)]
    assert not zero.free and not one.free and one.training == [] and one.waiting == 1
    (cpu,) = look(Hardware(cpu="a processor", memory_total=9 * GB, memory_free=4 * GB))
    assert (cpu.title, cpu.free, cpu.words) == ("the CPU", True, "4.0 GB of 9.0 GB free")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_review_says_who_is_before_and_can_start_at_once(
    machine: Hardware, tiny_starter: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    from engine import draft
    from engine.runs import directory

    asked: list[dict[str, Any]] = []

    def start(made: Any, **how: Any) -> RunDir:
        asked.append(how)
        return directory.create(made.recipe, {})

    monkeypatch.setattr(draft, "start", start)
    first = Place(FakeRun("first").run, ["cpu"])
    assert first.take({})
    app = FtuiApp()
    async with app.run_test(size=size) as pilot:
        app.wizard.begin_preset("identity")
        app.new_run("review")
        await until(pilot, lambda: "● In line" in seen(pilot))
        assert "behind first on the CPU; starts by itself" in seen(pilot) and "--now" not in seen(pilot)
        assert "Start" in seen(pilot).splitlines()[-1]
        await pilot.press("down")
        await until(pilot, lambda: "● At once" in seen(pilot))
        assert "beside first: both will be slower" in seen(pilot)
        assert "--now" in app.screen.command  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: asked)
        assert asked[0]["now"] and asked[0]["gpu"] is None


async def test_review_shows_each_card_and_starts_on_the_chosen_one(
    machine: Hardware, tiny_starter: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    from engine.runs import occupancy

    hers = User(HOSTILE, 79 * GB, False)
    now = [spot(0, 0, strangers="alice uses 80 GB", users=(hers,)), spot(1)]
    monkeypatch.setattr(occupancy, "look", lambda: list(now))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.wizard.begin_preset("identity")
        app.new_run("review")
        await until(pilot, lambda: "● Any GPU" in seen(pilot))
        assert "the first that is free: GPU 1, now" in seen(pilot) and "[@click=app.quit]" in seen(pilot)
        await pilot.press("down")
        await until(pilot, lambda: "are free on GPU 0" in seen(pilot))
        assert "--gpu 0" in app.screen.command  # type: ignore[attr-defined]
        # Alice is done: there is one card less to warn of, and the choice stays.
        now[0] = spot(0)
        assert isinstance(app.screen, ReviewScreen)
        app.screen._look()
        await until(pilot, lambda: "are free on GPU 0" not in seen(pilot))
        assert app.screen.query_one("#place", Choice).chosen == "gpu-0"


async def test_a_queued_run_on_both_screens(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun("second")
    run.alive()
    run.state("preparing")
    run.state("queued", "behind first on the CPU, 2nd in line", after=1.0)
    run.state("queued", "behind first on the CPU, 1st in line", after=60.0)
    did: list[tuple[str, bool]] = []
    monkeypatch.setattr(control, "stop", lambda run, **_: did.append(("stop", False)))
    monkeypatch.setattr(control, "resume", lambda run, now=False: did.append(("resume", now)))
    app = FtuiApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "› ○ second" in seen(pilot))
        (line,) = [line for line in seen(pilot).splitlines() if "○ second" in line]
        assert "queued behind first" in line
        await pilot.press("s")
        await until(pilot, lambda: did == [("stop", False)] and "leaves the line" in seen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "○ queued   behind first on the CPU, 1st in line" in seen(pilot))
        assert seen(pilot).count("Waiting in line") == 1 and "2nd" not in seen(pilot)
        assert "Start now" in seen(pilot).splitlines()[-1]
        await pilot.press("n")
        await until(pilot, lambda: did[1:] == [("resume", True)])
