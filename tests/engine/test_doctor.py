"""Each check of the doctor, on machines that are made up: what it says, and that it says what to do."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine import doctor, paths
from engine.cli import doctor as verb
from engine.cli import main
from engine.doctor import Check, hub, place, stack
from engine.doctor.machine import Driver, Machine, Worker
from engine.errors import Exit
from engine.hardware import Gpu, Hardware
from engine.runs import directory
from tests.engine.runs.conftest import make_recipe

GB = 10**9
CARD = Gpu(0, "NVIDIA H100", 80 * GB, 78 * GB, 0, True)
TESTED = [
    "torch>=2.11,<3",
    "trl>=1.16,<1.17",
    "bitsandbytes>=0.50,<0.51; sys_platform == 'linux'",
    "other; sys_platform == 'win32'",
]
HERE = {"torch": "2.13.0+cu130", "trl": "1.16.0", "bitsandbytes": "0.50.2"}


class Made(Machine):
    """A machine on which all is well, until a test says otherwise."""

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__({"TERM": "xterm-256color", **(environment or {})})
        self.root = root
        self.versions: dict[str, str] = dict(HERE)
        self.cards: list[Gpu] = []
        self.memory = (20 * GB, 32 * GB)
        self.nvml = Driver(problem="NVML Shared Library Not Found")
        self.cuda = "13.0"
        self.commands: dict[str, tuple[int, str, str]] = {}
        self.room: dict[str, tuple[int, int, int]] = {}
        self.silence = ""
        self.letters = "utf-8"
        self.left: list[Worker] = []

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, *command: str, seconds: float = 5.0) -> tuple[int, str, str]:
        return self.commands.get(Path(command[0]).name, (127, "", "no such command"))

    def hardware(self) -> Hardware:
        return Hardware(gpus=self.cards, cpu="Some Processor", memory_free=self.memory[0], memory_total=self.memory[1])

    def version(self, package: str) -> str | None:
        return self.versions.get(package)

    def requirements(self) -> list[str]:
        return TESTED

    def torch_cuda(self) -> str:
        return self.cuda

    def driver(self) -> Driver:
        return self.nvml

    def disk(self, path: Path) -> tuple[int, int, int]:
        return self.room.get(path.name, (100 * GB, 200 * GB, 1))

    def reach(self, address: str, seconds: float) -> str:
        return self.silence

    def encoding(self) -> str:
        return self.letters

    def workers(self) -> list[Worker]:
        return self.left


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "root")


def worst(checks: list[Check]) -> Check:
    found = next((check for level in ("bad", "warning") for check in checks if check.level == level), checks[0])
    assert found.level == "ok" or found.fix, "what is wrong must come with what to do"
    return found


def test_all_is_well(made: Made) -> None:
    made.cards, made.nvml = [CARD], Driver("580.95", (13, 0))
    made.commands[Path(sys.executable).name] = (0, "cuda\n", "")
    checks = doctor.report(made)
    assert [check for check in checks if check.level != "ok"] == []
    names = [check.name for check in checks]
    assert {"packages", "driver", "gpu 0", "memory limit", "shared memory", "logging out", "workers"} <= set(names)
    assert "bitsandbytes works on cuda" in checks[-1].detail


def test_versions(made: Made) -> None:
    assert worst(stack.packages(made)).level == "ok"
    made.versions["trl"] = "1.19.0"
    found = worst(stack.packages(made))
    assert found.level == "warning" and found.detail == "trl 1.19.0 is here, tested with >=1.16, <1.17"
    assert "pip install 'trl" in found.fix
    made.versions["trl"] = "1.2.0"
    assert "trl 1.2.0 is here" in worst(stack.packages(made)).detail
    del made.versions["torch"]
    assert worst(stack.packages(made)).detail == "missing: torch"


def test_the_projects_own_requirements_are_found() -> None:
    there = Machine().requirements()
    assert any(line.startswith("trl") for line in there) and not any("pytest" in line for line in there)


def test_no_card_is_worth_knowing_and_no_fault(made: Made) -> None:
    found = [check for check in stack.devices(made) if check.name == "gpu"]
    assert [check.level for check in found] == ["warning"] and "processor" in found[0].detail


@pytest.mark.parametrize(
    ("driver", "cuda", "level", "said", "fix"),
    [
        (Driver("580.95", (13, 0)), "13.0", "ok", "NVIDIA 580.95, for CUDA up to 13.0; torch with CUDA 13.0", ""),
        (Driver("580.95", (13, 0)), "13.2", "ok", "torch with CUDA 13.2", ""),
        (Driver("550.54", (12, 4)), "13.0", "bad", "torch was built with CUDA 13.0", "update the driver"),
        (Driver("580.95", (13, 0)), "", "bad", "build without CUDA", "pytorch.org"),
        (Driver(problem="Driver/library version mismatch"), "13.0", "bad", "NVML says: Driver/library", "reboot"),
        (Driver(problem="GPU is lost"), "13.0", "bad", "NVML says: GPU is lost", "nvidia-smi"),
    ],
)
def test_driver_and_runtime(made: Made, driver: Driver, cuda: str, level: str, said: str, fix: str) -> None:
    made.cards = [] if driver.problem else [CARD]
    made.nvml, made.cuda = driver, cuda
    made.write("/proc/driver/nvidia/version", "NVRM version: 580.95")
    found = worst([check for check in stack.devices(made) if check.name == "driver"])
    assert found.level == level and said in found.detail and fix in found.fix


def test_a_card_that_somebody_uses_and_a_driver_without_cards(made: Made) -> None:
    made.nvml = Driver("580.95", (13, 0))
    made.cards = [Gpu(1, "NVIDIA H100", 80 * GB, 3 * GB, 90, True)]
    found = worst(stack.devices(made))
    assert found.name == "gpu 1" and found.level == "warning" and "nvidia-smi" in found.fix
    made.cards = []
    assert "CUDA_VISIBLE_DEVICES" in worst(stack.devices(made)).fix


def test_little_memory(made: Made) -> None:
    made.memory = (1 * GB, 8 * GB)
    assert worst([check for check in stack.devices(made) if check.name == "memory"]).level == "warning"


@pytest.mark.parametrize(
    ("files", "level", "said"),
    [
        ({}, "ok", "none but the machine's own"),
        ({"/sys/fs/cgroup/memory.max": "max\n"}, "ok", "none"),
        ({"/sys/fs/cgroup/memory.max": f"{64 * GB}\n"}, "ok", "64.0 GB"),
        (
            {"/sys/fs/cgroup/memory.max": f"{64 * GB}\n", "/sys/fs/cgroup/user/me/memory.max": f"{GB}\n"},
            "warning",
            "1.0 GB",
        ),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, "ok", "none"),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n"}, "warning", "2.0 GB"),
    ],
)
def test_limit_of_the_control_group(made: Made, files: dict[str, str], level: str, said: str) -> None:
    made.write("/proc/self/cgroup", "0::/user/me\n")
    for path, text in files.items():
        made.write(path, text)
    found = worst(place.memory_limit(made))
    assert found.level == level and said in found.detail


def test_shared_memory(made: Made) -> None:
    assert worst(place.shared_memory(made)).level == "ok"
    made.room["shm"] = (60_000_000, 64 * 1024**2, 2)
    assert "--shm-size" in worst(place.shared_memory(made)).fix


@pytest.mark.parametrize(("free", "level"), [(50 * GB, "ok"), (3 * GB, "warning"), (100_000_000, "bad")])
@pytest.mark.parametrize(("folder", "variable"), [("runs", "STATE"), ("models", "DATA"), ("ftui", "CACHE")])
def test_disks(made: Made, free: int, level: str, folder: str, variable: str) -> None:
    made.room[folder] = (free, 100 * GB, 1)
    found = worst(place.disks(made))
    assert found.level == level and (level == "ok" or f"XDG_{variable}_HOME" in found.fix)


def test_permissions(made: Made, private_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = directory.create(make_recipe(), {})
    assert worst(place.permissions(made)).level == "ok"
    run.path.chmod(0o755)
    assert worst(place.permissions(made)).fix == f"chmod -R go= {run.path}"
    run.path.chmod(0o700)
    state = paths.place("state")
    state.chmod(0o750)
    # The whole report sees it before any of its own checks mends it.
    seen = [check for check in doctor.report(made) if check.name == "permissions"]
    assert [check.fix for check in seen] == [f"chmod 700 {state}"]
    state.chmod(0o700)
    private_folders.chmod(0o777)
    assert worst(place.permissions(made)).fix == f"chmod o-w {private_folders}"
    private_folders.chmod(0o1777)  # with the sticky bit nobody can take another's folder away
    assert worst(place.permissions(made)).level == "ok"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    found = worst(place.permissions(made))
    assert found.level == "bad" and "chown -R" in found.fix and "belongs to" in found.detail


@pytest.mark.parametrize(
    ("files", "linger", "level", "said"),
    [
        ({}, "no", "ok", "no systemd"),
        ({"/run/systemd/system/x": ""}, "no", "ok", "goes on"),
        ({"/run/systemd/system/x": "", "/etc/systemd/logind.conf": "#KillUserProcesses=yes\n"}, "no", "ok", "goes on"),
        (
            {"/run/systemd/system/x": "", "/etc/systemd/logind.conf": "KillUserProcesses=yes\n"},
            "no",
            "bad",
            "logind.conf ends",
        ),
        (
            {"/run/systemd/system/x": "", "/etc/systemd/logind.conf": "KillUserProcesses=yes\n"},
            "yes",
            "ok",
            "you linger",
        ),
        (
            {
                "/run/systemd/system/x": "",
                "/etc/systemd/logind.conf": "KillUserProcesses=yes\n",
                "/etc/systemd/logind.conf.d/90-keep.conf": "[Login]\nKillUserProcesses=no\n",
            },
            "no",
            "ok",
            "goes on",
        ),
    ],
)
def test_logging_out(made: Made, files: dict[str, str], linger: str, level: str, said: str) -> None:
    for path, text in files.items():
        made.write(path, text)
    made.commands["loginctl"] = (0, f"{linger}\n", "")
    found = worst(place.leaving(made))
    assert found.level == level and said in found.detail and (level == "ok" or "enable-linger" in found.fix)


def test_lingering_where_loginctl_does_not_say(made: Made) -> None:
    made.write("/run/systemd/system/x")
    made.write("/etc/systemd/logind.conf", "KillUserProcesses=yes\n")
    assert worst(place.leaving(made)).level == "bad"
    made.write(f"/var/lib/systemd/linger/{made.user()}")
    assert worst(place.leaving(made)).level == "ok"


def test_workers_that_were_left(made: Made) -> None:
    run = directory.create(make_recipe("mine"), {})
    assert worst(place.workers(made)).detail == "none at work, none left over"
    record = {"worker": {"host": "h", "boot_id": "b", "pid": 100, "start": 1}}
    paths.write_private(run.supervisor_path, json.dumps(record))
    made.left = [Worker(100, str(run.path)), Worker(300, "/somewhere/else/ftui/runs/x")]
    assert worst(place.workers(made)).detail == f"1 at work: {run.name}"
    made.left += [Worker(200, str(run.path))]
    found = worst(place.workers(made))
    assert found.level == "warning" and found.fix == "kill 200"


@pytest.mark.parametrize(
    ("environment", "letters", "level", "said"),
    [
        ({}, "utf-8", "ok", "256 colours"),
        ({"COLORTERM": "truecolor"}, "UTF-8", "ok", "16 million"),
        ({"NO_COLOR": "1"}, "utf8", "ok", "no colours"),
        ({"TERM": "dumb"}, "utf-8", "warning", "dumb"),
        ({"TERM": ""}, "utf-8", "warning", "not set"),
        ({}, "ANSI_X3.4-1968", "warning", "ASCII"),
    ],
)
def test_terminal(tmp_path: Path, environment: dict[str, str], letters: str, level: str, said: str) -> None:
    made = Made(tmp_path, environment)
    made.letters = letters
    found = worst(place.terminal(made))
    assert found.level == level and said in found.detail


def test_hub_and_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    secret = "hf_ThisIsNeverShown"
    made = Made(tmp_path)
    assert worst(hub.hub(made)).detail == "https://huggingface.co answers; no token: gated models cannot be fetched"
    (tmp_path / "token").write_text(secret)
    (tmp_path / "token").chmod(0o644)
    assert "which others can read" in worst(hub.hub(made)).detail
    made = Made(tmp_path, {"HF_TOKEN": secret, "HF_ENDPOINT": f"https://me:{secret}@mirror/"})
    made.silence = f"401 for {secret}"
    monkeypatch.setenv("HF_TOKEN", secret)
    (found,) = [check for check in doctor.report(made) if check.name == "hub"]
    assert found.level == "warning" and secret not in found.detail and "a token is set in HF_TOKEN" in found.detail
    offline = worst(hub.hub(Made(tmp_path, {"HF_HUB_OFFLINE": "1"})))
    assert offline.level == "warning" and "HF_HUB_OFFLINE" in offline.detail


def test_a_hub_that_keeps_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # listens here, in the test, and never accepts
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        host, port = silent.getsockname()
        assert Machine().reach(f"http://{host}:{port}", 0.2)
    assert Machine().reach("nothing:", 0.2)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its name is not found"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError("timed out"), "no answer in time"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert Machine().reach("https://somewhere", 5.0) == words
    made = Made(tmp_path)
    made.silence = words
    found = worst(hub.hub(made))
    assert found.detail.startswith(f"cannot be reached: {words} (https://huggingface.co); ")
    assert "offline work goes on" in found.fix and "Errno" not in found.detail


def test_four_bit_that_does_not_work(made: Made) -> None:
    made.commands[Path(sys.executable).name] = (1, "", "Traceback …\nImportError: no libbitsandbytes.so")
    found = worst(stack.four_bit(made))
    assert found.level == "warning" and "no libbitsandbytes.so" in found.detail and "pip install" in found.fix


def test_a_check_that_fails_is_one_line_and_the_rest_stands(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Any:
        raise RuntimeError("stranger than thought")

    monkeypatch.setattr(made, "disk", broken)
    checks = doctor.report(made)
    assert [check.detail for check in checks if "stranger" in check.detail] and len(checks) > 8


@pytest.mark.parametrize(("level", "code"), [("ok", Exit.OK), ("warning", Exit.OK), ("bad", Exit.UNEXPECTED)])
def test_exit_code(level: Any, code: Exit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(name="disk", level=level, detail="a \x1b[31m detail", fix="mend it")
    monkeypatch.setattr(doctor, "report", lambda: [check])
    assert verb.__doc__
    assert main(["doctor"]) == code
    said = capsys.readouterr().out
    assert "mend it" in said and "\x1b" not in said
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)[0]["level"] == level
