from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from engine import hardware
from engine.hardware import Gpu, Hardware

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
