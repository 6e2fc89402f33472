"""What this machine has: GPUs through NVML, memory, cores, bf16 or not. Never through torch, never raises.

Everything is read afresh at each call, because other people use the same machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
from msgspec import Struct, field

from engine.paths import runs_dir, state_dir

Device = Literal["cuda", "cpu"]
T = TypeVar("T")

# bf16 arithmetic came with compute capability 8.0 (Ampere); older cards only emulate it.
_BF16_CAPABILITY = 8
# What the system and the person's other programs need, left alone when planning a run on the processor: bytes.
_SYSTEM_RESERVE = 512 * 1024**2
_IMPORTS = 10**9  # bytes, at most, of a worker that has no model yet
_NO_LIMIT = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63
# A card that nobody computes on is not quite empty: the driver keeps 0.3 to 0.8 GB of it, more on larger cards.
_DRIVER = 1024**3
_SMALL_SHARE = 0.05


class Gpu(Struct, frozen=True):
    """One graphics card. `index` is NVML's; memory in bytes; `utilisation` in percent, None where not reported.

    memory_ours     what workers of this user's runs hold on it
    memory_back     of that, what is free again when a run's turn comes (see `_ending`)
    memory_desktop  what programs hold that only draw with it
    """

    index: int
    name: str
    memory_total: int
    memory_free: int
    utilisation: int | None
    bf16: bool
    memory_ours: int = 0
    memory_desktop: int = 0
    memory_back: int = 0

    @property
    def memory_of_others(self) -> int:
        """Bytes in use by other people and other programs, the driver's own part included."""
        return max(0, self.memory_total - self.memory_free - self.memory_ours - self.memory_desktop)

    @property
    def occupied(self) -> bool:
        """Whether others compute on it: what they hold is more than a driver takes for itself."""
        return self.memory_of_others > max(_DRIVER, _SMALL_SHARE * self.memory_total)


class GpuUser(Struct, frozen=True):
    """A process that computes on a card. `memory` in bytes, 0 where not told; foreign text in `user` and `program`,
    both empty for a process that cannot be seen from here (of another container).

    ours  a worker of this user's runs
    """

    pid: int
    user: str
    program: str
    memory: int
    ours: bool

    @property
    def who(self) -> str:
        """ "python of alice"."""
        return (self.program or "a program") + (f" of {self.user}" if self.user else "")


class Hardware(Struct, frozen=True):
    """What there is to train on. Memory and disk in bytes, after the limits of the container we may be in.

    cpu_bf16     the processor multiplies bf16 itself (AVX512-bf16 or AMX)
    cpu_wide     it computes with 512 bits at once (AVX512)
    torch_cuda   the installed torch can use a GPU at all (a CPU build cannot, whatever cards there are)
    memory_back  what workers hold that have ended, or made room, when a run's turn comes (see `_ending`)
    """

    gpus: list[Gpu] = field(default_factory=list)
    cpu: str = "processor"
    cores: int = 1
    cpu_bf16: bool = False
    cpu_wide: bool = False
    memory_total: int = 0
    memory_free: int = 0
    disk_free: int = 0
    torch_cuda: bool = True
    memory_back: int = 0

    @property
    def gpu(self) -> Gpu | None:
        """The card a run would take: the one with most memory for it; None where the processor has to do it."""
        return max(self.gpus, key=_available) if self.gpus and self.torch_cuda else None

    @property
    def emptiest(self) -> Gpu | None:
        """The card with most memory free at this moment; None where the processor has to do it."""
        return max(self.gpus, key=lambda gpu: gpu.memory_free) if self.gpus and self.torch_cuda else None

    @property
    def device(self) -> Device:
        return "cuda" if self.gpu else "cpu"

    @property
    def device_name(self) -> str:
        return self.gpu.name if self.gpu else self.cpu

    @property
    def budget(self) -> int:
        """Bytes a run may use on the device when its turn comes: what is free, and what runs before it hold now.

        On the processor a little less, for the system.
        """
        if self.gpu:
            return _available(self.gpu)
        return max(0, min(self.memory_free + self.memory_back, self.memory_total or self.memory_free) - _SYSTEM_RESERVE)

    @property
    def budget_now(self) -> int:
        """What of `budget` is there at this moment, before any other run has ended."""
        if self.gpu:
            return min(self.budget, self.gpu.memory_free)
        return min(self.budget, max(0, self.memory_free - _SYSTEM_RESERVE))

    @property
    def when_there(self) -> str:
        """What has to be said behind `budget`: " once the other runs have ended"; empty where all of it is there now.

        Less than a worker's imports take is no matter: what was started ahead for the next run holds that much.
        """
        return " once the other runs have ended" if self.budget - self.budget_now >= _IMPORTS else ""

    @property
    def bf16(self) -> bool:
        """Whether the device that trains computes in bf16 itself."""
        return self.gpu.bf16 if self.gpu else self.cpu_bf16


def read() -> Hardware:
    """Read the machine. What cannot be found out is left at its cautious default."""
    name, flags = _processor()
    total, free = _memory()
    workers = _workers()
    ending = _ending(workers)
    return Hardware(
        gpus=_cards(lambda nvml, index, handle: _gpu(nvml, index, handle, workers, ending)),
        cpu=name,
        cores=_cores(),
        cpu_bf16=bool(flags & {"avx512_bf16", "amx_bf16"}),
        cpu_wide="avx512f" in flags,
        memory_total=total,
        memory_free=free,
        disk_free=_disk_free(),
        torch_cuda=_torch_has_cuda(),
        memory_back=sum(map(_resident, ending)),
    )


def users() -> dict[int, list[GpuUser]]:
    """Who computes on each card, by NVML index, who holds most first."""
    workers = _workers()
    return dict(_cards(lambda nvml, index, handle: (index, _users(nvml, handle, workers))))


def visible(uuids: list[str], wanted: str | None) -> list[int]:
    """Which of the cards (their UUIDs in NVML's order) CUDA_VISIBLE_DEVICES=`wanted` leaves, as NVML indices.

    As CUDA does: entries are indices or beginnings of UUIDs, and the first one that names no card ends the list.
    """
    if wanted is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.isdecimal() and int(entry) < len(uuids):
            index = int(entry)
        else:
            matches = [number for number, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
            if len(matches) != 1:
                break
            index = matches[0]
        if index not in chosen:
            chosen.append(index)
    return chosen


def _cards(look: Callable[[Any, int, Any], T]) -> list[T]:
    """What `look(nvml, index, handle)` finds at each card that this process may use."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, no library, no permission: there is no card for us
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        uuids = [_words(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        found = []
        for index in visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES")):
            with suppress(Exception):  # one lost card must not hide the others
                found.append(look(pynvml, index, handles[index]))
        return found
    except Exception:
        return []
    finally:
        with suppress(Exception):
            pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, handle: Any, workers: set[int], ending: set[int]) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    utilisation: int | None = None
    with suppress(Exception):  # not reported by every card, and not inside a MIG slice
        utilisation = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    major = 0
    with suppress(Exception):
        major = int(nvml.nvmlDeviceGetCudaComputeCapability(handle)[0])
    name = _words(nvml.nvmlDeviceGetName(handle))
    computing = _held(nvml, handle, "nvmlDeviceGetComputeRunningProcesses")
    drawing = _held(nvml, handle, "nvmlDeviceGetGraphicsRunningProcesses")
    ours, back = (sum(held for pid, held in computing.items() if pid in some) for some in (workers, ending))
    desktop = sum(held for pid, held in drawing.items() if pid not in computing)
    total, free = int(memory.total), int(memory.free)
    return Gpu(index, name, total, free, utilisation, major >= _BF16_CAPABILITY, ours, desktop, back)


def _held(nvml: Any, handle: Any, question: str) -> dict[int, int]:
    """Bytes that each process holds on a card; 0 where the driver does not tell (in a container, or under Windows)."""
    with suppress(Exception):
        return {int(found.pid): int(found.usedGpuMemory or 0) for found in getattr(nvml, question)(handle)}
    return {}


def _users(nvml: Any, handle: Any, workers: set[int]) -> list[GpuUser]:
    found = []
    for pid, held in _held(nvml, handle, "nvmlDeviceGetComputeRunningProcesses").items():
        user = program = ""
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            program, user = process.name(), process.username()
        found.append(GpuUser(pid, user, program, held, pid in workers))
    return sorted(found, key=lambda user: -user.memory)


def _workers() -> set[int]:
    """Processes of this user's runs: each was started as `python -P -m engine.worker`."""
    found = set()
    with suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                with suppress(OSError):
                    if entry.stat().st_uid == os.geteuid() and "engine.worker" in _read(f"{entry.path}/cmdline").split(
                        "\0"
                    ):
                        found.add(int(entry.name))
    return found - {os.getpid()}


def _ending(workers: set[int]) -> set[int]:
    """Those of `workers` that hold nothing any more when a run of this state folder has its turn: runs that train are
    waited for, and make room afterwards; the worker that this face started ahead is the next run's own.

    Others stay: whoever chats, evaluates or exports is not waited for, and runs of another state folder are not seen.
    """
    return {pid for pid in workers if _ends(_read(f"/proc/{_parent(pid)}/cmdline").split("\0"))}


def _ends(supervisor: list[str]) -> bool:
    """Whether a worker ends before the next run: told by its supervisor's command line (engine.runs.supervisor)."""
    try:
        what, folder = supervisor[supervisor.index("engine.runs.supervisor") + 1 :][:2]
    except ValueError:
        return False
    if what == "--warm":  # it trains once its folder is gone
        face = _record(Path(folder) / "face.json").get("face")
        mine = isinstance(face, dict) and face.get("pid") == os.getpid()
        return Path(folder).parent == state_dir() / "warm" and (mine or not Path(folder).exists())
    run = Path(what)
    job = _record(run / "supervisor.json").get("job")
    return run.parent == runs_dir() and isinstance(job, dict) and job.get("kind") == "train"


def _record(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it cannot be read."""
    with suppress(ValueError):
        found = json.loads(_read(str(path)))
        return found if isinstance(found, dict) else {}
    return {}


def _parent(pid: int) -> str:
    """The process that started this one; its name stands in brackets and may hold brackets and blanks."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[1] if len(fields) > 1 else ""


def _resident(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    fields = _read(f"/proc/{pid}/statm").split()
    return max(0, int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 2 else 0


def _available(gpu: Gpu) -> int:
    return min(gpu.memory_total, gpu.memory_free + gpu.memory_back)


def _words(value: str | bytes) -> str:
    """NVML's bindings gave bytes in older releases."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _processor() -> tuple[str, set[str]]:
    """The processor's name and its instruction flags."""
    text = _read("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    title = re.sub(r"\((?:R|TM|r|tm)\)", "", name[1]) if name else "processor"
    return " ".join(title.split()), set(flags[1].split()) if flags else set()


def _cores() -> int:
    """Cores this process may use: the affinity mask, less what the container's quota takes."""
    cores = os.cpu_count() or 1
    with suppress(Exception):
        cores = len(os.sched_getaffinity(0))
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    with suppress(ValueError, ZeroDivisionError, IndexError):  # "max 100000" has no number to read
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def _memory() -> tuple[int, int]:
    """(total, free) bytes of memory: the machine's, or the container's where that is less."""
    total = free = 0
    with suppress(Exception):
        memory = psutil.virtual_memory()
        total, free = int(memory.total), int(memory.available)
    limit = _number(("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    if limit is not None and limit < _NO_LIMIT:
        used = _number(("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")) or 0
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def _number(files: Iterable[str]) -> int | None:
    """The number that the first of `files` holds."""
    for file in files:
        with suppress(ValueError):
            return int(_read(file))
    return None


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _disk_free() -> int:
    try:
        return shutil.disk_usage(runs_dir()).free
    except OSError:
        return 0


def _torch_has_cuda() -> bool:
    """Whether the installed torch is a CUDA build, told by its libraries; True where torch cannot be found."""
    try:
        spec = importlib.util.find_spec("torch")  # finds it, does not import it
        if spec is None or spec.origin is None:
            return True
        return any((Path(spec.origin).parent / "lib").glob("libtorch_cuda*"))
    except Exception:
        return True
