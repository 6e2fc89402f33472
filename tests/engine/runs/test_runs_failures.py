"""Failures of training, brought about in a real run: what is tried, what is shown, what is kept, and that it can go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.errors import Exit, FtuiError
from engine.hardware import GpuUser
from engine.recipe import Recipe
from engine.runs import checkpoints, control, directory, hang, status
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Failure, Retry, Start, State, Step
from engine.runs.job import Job
from engine.runs.journal import Writer
from engine.worker import failures, retries
from tests.engine.runs.conftest import HERE, make_recipe, over, pid_of, told, until
from tests.engine.settings import settings
from tests.engine.worker.conftest import identity_rows, recipe  # noqa: F401

Make = Callable[..., Recipe]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """broken(what, room=2): from now on models break so (see broken_worker)."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("FTUI_WORKER_MODULE", "broken_worker")

    def change(what: str, room: int = 0) -> None:
        monkeypatch.setenv("FTUI_BREAK", what)
        monkeypatch.setenv("FTUI_ROOM", str(room))

    return change


def begin(made: Recipe) -> RunDir:
    run = directory.create(made, {})
    control.start(run, Job("train", str(run.path), {"resume": None}))
    return run


def ended(run: RunDir) -> status.Status:
    until(lambda: over(run), 240)
    return status.read(run)


def test_out_of_memory_goes_on_with_fewer_rows_at_once(recipe: Make, broken: Callable[..., None]) -> None:  # noqa: F811
    broken("memory", room=2)
    run = begin(recipe("memory", epochs=4.0))
    now = ended(run)
    assert (now.state, now.step) == ("ready", 12)
    (again,) = told(run, Retry)
    assert isinstance(again, Retry) and (again.attempt, again.kind) == (2, "memory")
    assert again.cause == "out of memory at 4 rows of up to 64 tokens"
    assert again.change == "2 instead of 4 rows at once, still 4 a step"
    settings = run.recipe().settings
    assert (settings.micro_batch, settings.accumulation) == (2, 2) and run.recipe().effective_batch == 4
    assert "micro_batch: 4" in (run.path / "recipe.before-retry-1.yaml").read_text()
    assert [(e.attempt, e.from_step) for e in told(run, Start)] == [(1, 0), (2, 6)]
    # The ninth step of the plan fails; from the checkpoint on each step is made once more, and every one has its place.
    assert [e.step for e in told(run, Step)] == [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9, 10, 11, 12]
    first, second = (e for e in told(run, Step) if e.step == 7)
    assert first.tokens == second.tokens and first.learning_rate == second.learning_rate  # the same rows
    assert "Traceback" in run.log_path.read_text()  # for whoever asks: `ftui logs`


def test_out_of_memory_at_the_end_of_the_ladder_asks_the_person(
    recipe: Make,  # noqa: F811
    broken: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken("memory")
    run = begin(recipe("asks", epochs=1.0, micro_batch=1, accumulation=4, gradient_checkpointing=True, save_every=2))
    now = ended(run)
    assert now.state == "failed" and not told(run, Retry)
    assert now.cause == "out of memory at 1 row of up to 64 tokens, with gradient checkpointing"
    assert now.next_step.startswith("`ftui resume asks --edit method=qlora`: packs the base into 4 bits")
    assert "\n" not in now.cause + now.where + now.next_step
    (failure,) = told(run, Failure)
    assert isinstance(failure, Failure) and failure.offer == {"method": "qlora"}
    monkeypatch.delenv("FTUI_WORKER_MODULE")
    assert control.resume(run, edits=failure.offer) == 2
    assert ended(run).state == "ready" and run.recipe().settings.method == "qlora"


def test_a_loss_that_is_no_number_is_tried_once_at_half_the_rate(recipe: Make, broken: Callable[..., None]) -> None:  # noqa: F811
    broken("nan")
    run = begin(recipe("nan", epochs=6.0))
    now = ended(run)
    assert now.state == "failed" and now.cause.startswith("the loss is no longer a number at step 15"), now
    assert now.where == "tried 2 times: as planned, half the learning rate, 0.01"
    assert now.next_step == "`ftui resume nan --edit learning_rate=0.005`: lowers the rate again"
    (again,) = told(run, Retry)
    assert isinstance(again, Retry) and again.kind == "nan" and again.settings == {"learning_rate": 0.01}
    assert [e.from_step for e in told(run, Start)] == [0, 6]  # rolled back
    before, after = ([e.learning_rate for e in told(run, Step) if e.step == step] for step in (7, 8))
    assert before[1] == before[0] / 2 and after[1] == after[0] / 2
    # Of a broken step nothing is saved.
    assert checkpoints.newest_verified(run) == (12, run.checkpoints / "step-000012")


def test_where_a_real_run_hangs(
    recipe: Make,  # noqa: F811
    broken: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken("hang")
    run = begin(recipe("hang", epochs=4.0))
    until(lambda: status.read(run).step == 8, 60)
    assert not status.read(run).hung
    monkeypatch.setattr(hang, "FLOOR", 0.2)
    monkeypatch.setattr(hang, "FACTOR", 0.0)
    now = until(lambda: (found := status.read(run)).where and found)
    assert now.hung and now.cause.endswith("after step 8")
    assert now.where.startswith("hangs in before (tests/engine/runs/broken_worker.py, line ")
    os.kill(pid_of(run), signal.SIGKILL)
    until(lambda: over(run))


# without training: the exception, and what becomes of it ------------------------------------------------------------

MANY_LINES = "\nCUDA kernel errors might be asynchronously reported at some other API call\nCompile with …"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "memory",
        ),
        (MemoryError(), "memory"),
        (OSError(12, "Cannot allocate memory"), "memory"),
        (RuntimeError("CUDA error: out of memory" + MANY_LINES), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered" + MANY_LINES), "gpu"),
        (RuntimeError("CUDA error: device-side assert triggered" + MANY_LINES), "gpu"),
        (RuntimeError("CUDA error: unspecified launch failure" + MANY_LINES), "gpu"),
        (RuntimeError("GPU is lost"), "gpu"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "gpu"),
        (RuntimeError("CUDA driver version is insufficient for CUDA runtime version"), "driver"),
        (RuntimeError("Driver/library version mismatch"), "driver"),
        (failures.NotANumber("the loss is no longer a number at step 3"), "nan"),
        (OSError(28, "No space left on device"), "disk"),
        (ValueError("anything else"), ""),
        (FtuiError(Exit.MODEL_MISSING, "out of memory of that model"), ""),
    ],
)
def test_which_failure_it_is(error: BaseException, kind: str) -> None:
    assert failures.kind(error) == kind


def torch_says_so() -> BaseException:
    """What this torch raises itself where there is no room: an allocation that no machine has."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("an exbibyte was allocated")


def test_an_allocation_that_no_machine_has() -> None:
    assert failures.kind(torch_says_so()) == "memory"


@pytest.fixture
def at_work() -> RunDir:
    """A run whose journal says that it trains."""
    run = directory.create(make_recipe(), {})
    writer = Writer(run.journal_path)
    writer.write(State(state="training"))
    writer.write(Start(attempt=1, from_step=0, total_steps=9, epochs=1.0, rows=9, device="H100"))
    writer.write(Checkpoint(step=5, path="checkpoints/step-000005"))
    writer.close()
    return run


def fails(run: RunDir, error: BaseException, attempt: int = 1) -> int:
    code = retries.after(error, run.recipe(), Job("train", str(run.path), {}, attempt), Writer(run.journal_path))
    if code == os.EX_TEMPFAIL:
        writer = Writer(run.journal_path)
        writer.write(State(state="training"))
    return code


def test_a_card_that_fails_is_tried_once_more(at_work: RunDir) -> None:
    broken = RuntimeError("CUDA error: an illegal memory access was encountered" + MANY_LINES)
    before = at_work.recipe()
    assert fails(at_work, broken) == os.EX_TEMPFAIL
    (again,) = told(at_work, Retry)
    assert isinstance(again, Retry) and again.change == "the same again" and at_work.recipe() == before
    with pytest.raises(FtuiError) as refused:  # this machine has no card: the next try would train on the processor
        retries.same_device(Job("train", str(at_work.path), {}, 2))
    assert refused.value.cause == "the GPU is lost: H100 does not answer any more"
    retries.same_device(Job("train", str(at_work.path), {}, 3))  # one that the person starts
    assert fails(at_work, broken, 2) == 1
    (failure,) = told(at_work, Failure)
    assert isinstance(failure, Failure)
    assert failure.cause == "the GPU has failed: CUDA error: an illegal memory access was encountered"
    assert failure.where == "tried 2 times: as planned, the same again"
    assert failure.next_step == "restart the machine (or reset the card), then `ftui resume congyu`"


def test_a_driver_that_does_not_fit_is_not_tried_again(at_work: RunDir) -> None:
    assert fails(at_work, RuntimeError("Driver/library version mismatch")) == 1
    (failure,) = told(at_work, Failure)
    assert isinstance(failure, Failure) and "the NVIDIA driver does not fit" in failure.cause
    assert failure.next_step.startswith("restart the machine (or reload the driver), then `ftui resume")


def test_nothing_is_tried_after_a_stop_or_before_training(at_work: RunDir) -> None:
    at_work.stop_path.touch()
    assert fails(at_work, torch.OutOfMemoryError("CUDA out of memory")) == 1
    at_work.stop_path.unlink()
    Writer(at_work.journal_path).write(State(state="loading"))
    assert fails(at_work, torch.OutOfMemoryError("CUDA out of memory")) == 1
    assert not told(at_work, Retry) and at_work.recipe().settings.micro_batch == 4


def test_out_of_memory_names_who_else_is_on_the_card(at_work: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    users = [
        GpuUser(4, "alice", "python", 12 << 30, False),
        GpuUser(os.getpid(), "me", "python", 9 << 30, True),
        GpuUser(5, "", "", 0, False),
    ]
    monkeypatch.setattr(failures.hardware, "users", lambda: {2: users})
    failure = failures.describe(torch.OutOfMemoryError("CUDA out of memory"), at_work.recipe(), "congyu")
    assert failure.where == "also on this card: python of alice (12.9 GB), a process that is not seen from here"
    assert failure.offer == {"micro_batch": 2, "accumulation": 2}


def test_no_weight_that_is_no_number_is_saved(tmp_path: Path) -> None:
    """An update can spoil the weights after a step whose loss was a number."""
    from engine.worker.trainer import Journalled

    model = torch.nn.Linear(2, 2)
    model.weight.data[0, 0] = float("inf")
    stub = type("Stub", (Journalled,), {"__init__": lambda self: None})()
    stub.state, stub.args = type("State", (), {"global_step": 7}), type("Args", (), {"output_dir": str(tmp_path)})
    with pytest.raises(failures.NotANumber, match="after step 7"):
        stub._save_checkpoint(model, None)


def test_four_bit_without_bitsandbytes_says_what_does_without(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers import quantizer_bnb_4bit

    from engine.recipe import Model
    from engine.worker import build

    monkeypatch.setattr(quantizer_bnb_4bit, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ImportError) as missing:
        build.base_model(tiny_model, Model(source=str(tiny_model)), settings(method="qlora"))
    failure = failures.describe(missing.value, make_recipe(), "congyu")
    assert failure.cause.startswith("4-bit and 8-bit loading need bitsandbytes, which does not work here: ")
    assert failure.next_step == "`ftui doctor` says how to mend it; --method lora does without"


def test_a_step_that_fp16_leaves_out_is_no_failure(tmp_path: Path) -> None:
    """Its scale of the loss is looked for from above: the first gradients overflow. A search without end is one."""
    from engine.worker.pace import Pace
    from engine.worker.trainer import MOST_SKIPPED, Journalled

    stub = type("Stub", (Journalled,), {"__init__": lambda self: None})()
    stub.state = type("State", (), {"global_step": 1, "max_steps": 99, "epoch": 0.1})
    stub.accelerator = type("Accelerator", (), {"optimizer_step_was_skipped": True})
    stub.pace, stub._journal = Pace(), Writer(tmp_path / "events.jsonl")
    stub._skipped = stub._read = stub._trained = 0
    logs = {"loss": 2.0, "grad_norm": float("inf"), "learning_rate": 1e-4}
    for _ in range(MOST_SKIPPED):
        stub._write_step(logs)
    with pytest.raises(failures.NotANumber):
        stub._write_step(logs)
    stub._skipped = 0
    with pytest.raises(failures.NotANumber):
        stub._write_step({**logs, "loss": float("nan")})
    stub.accelerator.optimizer_step_was_skipped = False
    with pytest.raises(failures.NotANumber):
        stub._write_step(logs)
