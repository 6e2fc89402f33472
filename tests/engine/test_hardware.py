from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from engine import hardware, paths
from engine.hardware import Gpu, GpuUser, Hardware

GB = 10**9


class FakeNvml(SimpleNamespace):
    """Two cards as NVML reports them: an H100 half in use, and a T4 that tells no utilisation."""

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return ("GPU-aaaa", "GPU-bbbb")[handle]

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return ("NVIDIA H100", b"Tesla T4")[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=(80 * GB, 16 * GB)[handle], free=(40 * GB, 15 * GB)[handle])

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise RuntimeError("not supported")
        return SimpleNamespace(gpu=61)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return ((9, 0), (7, 5))[handle]


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_reads_this_machine() -> None:
    found = hardware.read()
    assert found.cores >= 1
    assert found.cpu.strip()
    assert 0 < found.memory_free <= found.memory_total <= psutil.virtual_memory().total
    assert found.disk_free > 0


def test_cards(two_cards: FakeNvml) -> None:
    big, small = hardware.read().gpus
    assert big == Gpu(0, "NVIDIA H100", 80 * GB, 40 * GB, 61, True)
    assert small == Gpu(1, "Tesla T4", 16 * GB, 15 * GB, None, False)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("0,7,1", [0]),
        (" 1 , 1", [1]),
        ("GPU-b", [1]),
        ("GPU-", []),
        ("GPU-c,0", [2, 0]),
    ],
)
def test_visible_cards(wanted: str | None, indices: list[int]) -> None:
    assert hardware.visible(["GPU-aaaa", "GPU-bbbb", "GPU-cccc"], wanted) == indices


def computing(monkeypatch: pytest.MonkeyPatch, fake: FakeNvml, held: dict[int, int | None], drawing: int = 0) -> None:
    """Let the processes `held` (pid: bytes) compute on card 0, and one draw on it."""

    def processes(handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=count) for pid, count in held.items() if handle == 0]

    def graphics(handle: int) -> list[Any]:
        return [SimpleNamespace(pid=1, usedGpuMemory=drawing)] if drawing and handle == 0 else []

    monkeypatch.setattr(fake, "nvmlDeviceGetComputeRunningProcesses", processes, raising=False)
    monkeypatch.setattr(fake, "nvmlDeviceGetGraphicsRunningProcesses", graphics, raising=False)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like one of a run, and does nothing."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "-m", "engine.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_who_uses_a_card(two_cards: FakeNvml, monkeypatch: pytest.MonkeyPatch, worker: subprocess.Popen[bytes]) -> None:
    monkeypatch.setattr(hardware, "_torch_has_cuda", lambda: True)
    gone = 2**22 + 1  # no pid is as large: a process of another container
    computing(monkeypatch, two_cards, {os.getpid(): 5 * GB, worker.pid: 30 * GB, gone: None}, drawing=GB)
    me = psutil.Process()
    assert hardware.users() == {
        0: [
            GpuUser(worker.pid, me.username(), psutil.Process(worker.pid).name(), 30 * GB, True),
            GpuUser(os.getpid(), me.username(), me.name(), 5 * GB, False),
            GpuUser(gone, "", "", 0, False),
        ],
        1: [],
    }
    found = hardware.read()
    big, small = found.gpus
    assert (big.memory_ours, big.memory_desktop, big.memory_of_others) == (30 * GB, GB, 9 * GB)
    assert big.occupied and not small.occupied  # 1 GB of 16 in use, by nobody who computes: the driver
    assert found.budget == 40 * GB  # nobody knows what run this worker is of: nothing ends for the next one
    assert found.emptiest == big and found.memory_back == 0
    monkeypatch.setattr(hardware, "_ending", lambda workers: workers & {worker.pid})
    assert hardware.read().budget == 70 * GB  # for a run whose turn comes after the one that trains there now


def test_a_card_that_only_our_runs_use_is_not_occupied(
    two_cards: FakeNvml, monkeypatch: pytest.MonkeyPatch, worker: subprocess.Popen[bytes]
) -> None:
    computing(monkeypatch, two_cards, {worker.pid: 39 * GB})
    assert not hardware.read().gpus[0].occupied
    computing(monkeypatch, two_cards, {})
    assert hardware.read().gpus[0].occupied  # nobody to be seen, and half of it is gone


def test_what_runs_before_hold_is_counted_on_up_to_all_there_is() -> None:
    found = Hardware(memory_total=10 * GB, memory_free=4 * GB, memory_back=3 * GB)
    assert 6 * GB < found.budget < 7 * GB and 3 * GB < found.budget_now < 4 * GB
    assert found.when_there == " once the other runs have ended"
    assert Hardware(memory_total=10 * GB, memory_free=9 * GB, memory_back=3 * GB).budget < 10 * GB
    alone = Hardware(memory_total=10 * GB, memory_free=4 * GB, memory_back=GB // 2)  # started ahead, by this very face
    assert alone.when_there == "" and alone.budget > alone.budget_now


@pytest.mark.parametrize(
    ("folder", "job", "back"),
    [
        ("here", "train", True),
        ("here", "serve", False),  # whoever chats is not waited for
        ("here", "export", False),
        ("elsewhere", "train", False),  # another state folder has another line
        ("warm, mine", "", True),  # the next run's own
        ("warm, theirs", "", False),
        ("warm, gone", "", True),  # it was handed a run
    ],
)
def test_only_what_ends_before_a_run_is_counted_on(tmp_path: Path, folder: str, job: str, back: bool) -> None:
    if folder.startswith("warm"):
        place = paths.private_dir(paths.state_dir() / "warm") / "abc"
        if not folder.endswith("gone"):
            place.mkdir()
            face = os.getpid() if folder.endswith("mine") else 1
            (place / "face.json").write_text(json.dumps({"face": {"pid": face}}))
        command = ["--warm", str(place)]
    else:
        place = (paths.runs_dir() if folder == "here" else tmp_path) / "20260101-000000-first"
        place.mkdir()
        (place / "supervisor.json").write_text(json.dumps({"job": {"kind": job}}))
        command = [str(place), "--lock", "3"]
    worker = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()", "-m", "engine.worker"]
    code = f"import subprocess; subprocess.run({worker!r})"
    supervisor = [sys.executable, "-c", code, "-m", "engine.runs.supervisor", *command]
    with subprocess.Popen(supervisor, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        held = hardware.read().memory_back
        process.stdin.close()
    assert (held > 0) is back


def test_hidden_cards_are_not_read(two_cards: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in hardware.read().gpus] == [1]


def test_a_lost_card_does_not_hide_the_other(two_cards: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def info(handle: int) -> Any:
        if handle == 0:
            raise RuntimeError("GPU is lost")
        return SimpleNamespace(total=16 * GB, free=15 * GB)

    monkeypatch.setattr(two_cards, "nvmlDeviceGetMemoryInfo", info, raising=False)
    assert [gpu.name for gpu in hardware.read().gpus] == ["Tesla T4"]


def test_no_driver(two_cards: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("driver not loaded")

    monkeypatch.setattr(two_cards, "nvmlInit", fail, raising=False)
    assert hardware.read().gpus == []


def test_the_card_with_most_free_memory_is_the_device() -> None:
    cards = [Gpu(0, "small", 16 * GB, 2 * GB, 90, True), Gpu(1, "big", 80 * GB, 60 * GB, 0, True)]
    found = Hardware(gpus=cards, cpu="a processor", memory_free=100 * GB)
    assert (found.device, found.device_name, found.budget, found.bf16) == ("cuda", "big", 60 * GB, True)


def test_a_card_is_no_use_to_a_torch_without_cuda() -> None:
    found = Hardware(
        gpus=[Gpu(0, "big", 80 * GB, 60 * GB, 0, True)], cpu="a processor", memory_free=8 * GB, torch_cuda=False
    )
    assert (found.device, found.device_name, found.bf16) == ("cpu", "a processor", False)
    assert 7 * GB < found.budget < 8 * GB


def cpuinfo(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> Hardware:
    monkeypatch.setattr(hardware, "_read", lambda file: files.get(file, ""))
    return hardware.read()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2", False), ("fpu avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512bw", False)],
)
def test_processor(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    text = f"processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Gold CPU\nflags\t\t: {flags}\n"
    found = cpuinfo(monkeypatch, {"/proc/cpuinfo": text})
    assert (found.cpu, found.cpu_bf16) == ("Intel Xeon Gold CPU", expected)


def test_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cpuinfo(monkeypatch, {})
    assert (found.cpu, found.cpu_bf16) == ("processor", False)
    assert found.cores >= 1


def test_container_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/memory.max": "1000000000\n",
        "/sys/fs/cgroup/memory.current": "400000000\n",
        "/sys/fs/cgroup/cpu.max": "100000 100000\n",
    }
    found = cpuinfo(monkeypatch, files)
    assert (found.memory_total, found.memory_free, found.cores) == (1_000_000_000, 600_000_000, 1)


def test_a_container_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/memory.max": "max\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "/sys/fs/cgroup/cpu.max": "max 100000\n",
    }
    assert cpuinfo(monkeypatch, files).memory_total == psutil.virtual_memory().total


def test_reading_imports_nothing_heavy() -> None:
    code = "import sys; from engine import hardware; hardware.read(); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
