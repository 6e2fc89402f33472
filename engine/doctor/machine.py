"""What the checks ask of the machine. Each answer can be replaced, so that a test can make a machine of any kind."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine import hardware
from engine.hardware import Hardware

Level = Literal["ok", "warning", "bad"]


class Check(Struct, kw_only=True):
    """One thing looked at. `fix` says what to do; empty where nothing needs doing."""

    name: str
    level: Level
    detail: str
    fix: str = ""


class Driver(Struct, frozen=True):
    """What NVML says: `cuda` is the newest CUDA that the driver runs, as (major, minor). `problem` where it says nothing."""

    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    problem: str = ""


class Worker(Struct, frozen=True):
    """A process of ours that computes: for run folder `run` where that can be told, else ""."""

    pid: int
    run: str


class Machine:
    """This machine. Nothing here raises; what cannot be found out is empty."""

    root = Path("/")

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment: Mapping[str, str] = os.environ if environment is None else environment

    def read(self, path: str) -> str:
        """The text of a file of the system ("/etc/…"), empty where there is none."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder of the system."""
        return (self.root / path.lstrip("/")).exists()

    def names(self, folder: str, pattern: str = "*") -> list[str]:
        """Paths below a folder of the system, sorted."""
        try:
            found = sorted((self.root / folder.lstrip("/")).glob(pattern))
        except OSError:
            return []
        return [f"/{path.relative_to(self.root)}" for path in found]

    def run(self, *command: str, seconds: float = 5.0) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a command; code 127 where it is not there, 124 where it does not end."""
        try:
            done = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, "", f"no answer within {seconds:.0f} s"
        except OSError as error:
            return 127, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def hardware(self) -> Hardware:
        return hardware.read()

    def user(self, uid: int | None = None) -> str:
        number = os.geteuid() if uid is None else uid
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return str(number)

    def version(self, package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def requirements(self) -> list[str]:
        """What the project says it needs ("trl>=1.16,<1.17"): of the installed package, else of the source tree."""
        try:
            found = importlib.metadata.requires("finetune-tui")
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None:
            try:
                text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
                found = list(tomllib.loads(text)["project"]["dependencies"])
            except (OSError, KeyError, tomllib.TOMLDecodeError):
                return []
        return [line for line in found if "extra ==" not in line]

    def torch_cuda(self) -> str:
        """The CUDA that the installed torch was built with ("13.0"); empty for a build without. Imports no torch."""
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return ""
        try:
            text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
        except OSError:
            return ""
        match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
        return match[1] if match else ""

    def driver(self) -> Driver:
        try:
            import pynvml as nvml

            nvml.nvmlInit()
        except Exception as error:
            return Driver(problem=str(error) or type(error).__name__)
        try:
            version = nvml.nvmlSystemGetDriverVersion()
            number = int(nvml.nvmlSystemGetCudaDriverVersion())
            return Driver(str(version), (number // 1000, number % 1000 // 10))
        except Exception as error:
            return Driver(problem=str(error) or type(error).__name__)
        finally:
            nvml.nvmlShutdown()

    def disk(self, path: Path) -> tuple[int, int, int]:
        """(bytes free, bytes in all, number of the file system) where `path` is or would be made."""
        for place in (path, *path.parents):
            try:
                usage, device = shutil.disk_usage(place), place.stat().st_dev
            except OSError:
                continue
            return usage.free, usage.total, device
        return 0, 0, 0

    def reach(self, address: str, seconds: float) -> str:
        """Why `address` does not answer within so many seconds; empty where it does."""
        answer: list[str] = []

        def ask() -> None:
            try:
                with urllib.request.urlopen(address, timeout=seconds):
                    answer.append("")
            except urllib.error.HTTPError:
                answer.append("")  # it answers; which page it has does not matter here
            except (OSError, ValueError) as error:
                answer.append(_in_words(getattr(error, "reason", error)))

        # The timeout above does not cover the name look-up, so the whole question has one as well.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(seconds)
        return answer[0] if answer else f"no answer within {seconds:.0f} s"

    def encoding(self) -> str:
        return (sys.__stdout__.encoding if sys.__stdout__ else "") or ""

    def workers(self) -> list[Worker]:
        """Processes of this user that were started as `python -P -m engine.worker`, with the run they stand in."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if entry.stat().st_uid == os.geteuid() and b"engine.worker" in words:
                    found.append(Worker(int(entry.name), str((entry / "cwd").readlink())))
            except OSError:
                continue
        return sorted(found, key=lambda worker: worker.pid)


def _in_words(error: object) -> str:
    """Why an address does not answer, without the numbers of the operating system."""
    if isinstance(error, socket.gaierror):
        return "its name is not found"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
