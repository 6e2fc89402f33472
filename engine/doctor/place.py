"""Checks of where runs live: disks, permissions, limits of memory, logging out, workers that were left, the terminal."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from engine import paths
from engine.doctor.machine import Check, Level, Machine
from engine.runs import directory, processes, status
from engine.text import size

# A small model with its checkpoints and a merged export; below it a run is likely to end on a full disk.
DISK_LOW = 5_000_000_000
DISK_NONE = 500_000_000  # not even a small run's checkpoints
_MEMORY_LIMIT_LOW = 4_000_000_000  # the starter model with LoRA needs about 2 GB
_SHARED_LOW = 64 * 1024**2  # what Docker gives without being asked
_NO_LIMIT = 1 << 60
_LOGIND = ("/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf")


def disks(machine: Machine) -> list[Check]:
    """One line a folder; a run needs its checkpoints (three at a time), a model its files, an export both."""
    checks = []
    for name, kind, below in (("runs", "state", "runs"), ("models", "data", "models"), ("cache", "cache", "")):
        folder = paths.place(kind) / below  # type: ignore[arg-type]
        free, total, _ = machine.disk(folder)
        level: Level = "bad" if free < DISK_NONE else "warning" if free < DISK_LOW else "ok"
        detail = f"{size(free)} of {size(total)} free at {folder}"
        if level != "ok":
            detail += f"; a small model with its checkpoints and an export takes {size(DISK_LOW)}"
        fix = "" if level == "ok" else f"free some space, or move it: set XDG_{kind.upper()}_HOME"
        checks.append(Check(name=f"disk for {name}", level=level, detail=detail, fix=fix))
    return checks


def shared_memory(machine: Machine) -> list[Check]:
    free, total, _ = machine.disk(machine.root / "dev/shm")
    if total and total <= _SHARED_LOW:
        detail = f"/dev/shm has {size(total)}: libraries that share tensors between processes fail on it"
        fix = "in a container: start it with --shm-size=1g, or --ipc=host"
        return [Check(name="shared memory", level="warning", detail=detail, fix=fix)]
    return [Check(name="shared memory", level="ok", detail=f"{size(free)} of {size(total)} free at /dev/shm")]


def memory_limit(machine: Machine) -> list[Check]:
    """The limit of the control group: beyond it the kernel kills, whatever the machine has."""
    limits = []
    own = next((line[3:] for line in machine.read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    for group in (Path(own), *Path(own).parents):  # every group above counts as well
        text = machine.read(f"/sys/fs/cgroup/{str(group).strip('/')}/memory.max").strip()
        limits += [int(text)] if text.isdecimal() else []
    text = machine.read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()  # version 1
    limits += [int(text)] if text.isdecimal() and int(text) < _NO_LIMIT else []
    if not limits:
        return [Check(name="memory limit", level="ok", detail="none but the machine's own")]
    low = min(limits) < _MEMORY_LIMIT_LOW
    detail = f"{size(min(limits))} for everything in this control group; the kernel kills what goes beyond"
    fix = "give the container or session more memory, or pick a smaller model" if low else ""
    return [Check(name="memory limit", level="warning" if low else "ok", detail=detail, fix=fix)]


def permissions(machine: Machine) -> list[Check]:
    """Runs hold what was in the training rows: nobody else may look, and nobody else may put things there."""
    checks = []

    def say(level: Level, detail: str, fix: str) -> None:
        checks.append(Check(name="permissions", level=level, detail=detail, fix=fix))

    me = machine.user()
    for kind in ("state", "data", "config", "cache"):
        place = paths.place(kind)  # type: ignore[arg-type]
        for folder in (place / "runs", place / "models", place):
            try:
                found = folder.lstat()
            except OSError:
                continue
            if found.st_uid != os.geteuid():
                what = "is a link of" if stat.S_ISLNK(found.st_mode) else "belongs to"
                fix = f"chown -R {me} {folder}, or set XDG_{kind.upper()}_HOME to a folder of yours"
                say("bad", f"{folder} {what} {machine.user(found.st_uid)}", fix)
            elif not stat.S_ISLNK(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077:
                say("warning", f"{folder} can be read by others", f"chmod 700 {folder}")
        # Who may write to a folder above can put another in the place of ours.
        for above in place.parents:
            try:
                mode = above.stat().st_mode
            except OSError:
                continue
            if mode & 0o002 and not mode & stat.S_ISVTX:
                say("bad", f"{above} can be written by everybody, and {place} lies in it", f"chmod o-w {above}")
    for run in _folders(paths.place("state") / "runs"):
        if run.stat().st_uid == os.geteuid() and stat.S_IMODE(run.stat().st_mode) & 0o077:
            say("warning", f"{run} can be read by others", f"chmod -R go= {run}")
    return checks or [Check(name="permissions", level="ok", detail=f"everything is {me}'s and readable by {me} only")]


def _folders(parent: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def leaving(machine: Machine) -> list[Check]:
    """Whether systemd ends what a person started when they log out (logind.conf, KillUserProcesses; loginctl, Linger)."""
    if not machine.has("/run/systemd/system"):
        return [Check(name="logging out", level="ok", detail="a run goes on when you log out: no systemd here")]
    kills, where = False, ""
    files = [file for base in _LOGIND for file in (base, *machine.names(f"{base}.d", "*.conf"))]
    for file in files:  # in the order in which one overrides the other
        for value in re.findall(r"(?mi)^\s*KillUserProcesses\s*=\s*(\w+)", machine.read(file)):
            kills, where = value.lower() in {"yes", "true", "1", "on"}, file
    user = machine.user()
    code, said, _ = machine.run("loginctl", "show-user", user, "-p", "Linger", "--value")
    lingers = said.strip() == "yes" if code == 0 else machine.has(f"/var/lib/systemd/linger/{user}")
    if lingers:
        return [Check(name="logging out", level="ok", detail="a run goes on when you log out: you linger")]
    if not kills:
        return [Check(name="logging out", level="ok", detail="a run goes on when you log out")]
    detail = f"{where} ends every process of yours when you log out, runs and tmux too"
    fix = f"loginctl enable-linger {user} (if it is refused, ask an administrator for it)"
    return [Check(name="logging out", level="bad", detail=detail, fix=fix)]


def workers(machine: Machine) -> list[Check]:
    """Workers that no run knows of hold memory for nothing: their supervisor was killed."""
    known = {}
    try:
        for run in directory.all_runs():
            who = processes.parse(status.read_json(run.supervisor_path).get("worker"))
            if who is not None:
                known[who.pid] = run.name
    except Exception as error:  # the folder of runs has a check of its own
        return [
            Check(name="workers", level="warning", detail=f"the runs cannot be read: {error}", fix="see permissions")
        ]
    runs = str(paths.place("state") / "runs")  # a worker stands in its run's folder; others are of other state folders
    there = [worker for worker in machine.workers() if worker.run.startswith(runs)]
    lost = [str(worker.pid) for worker in there if worker.pid not in known]
    if lost:
        detail = f"{len(lost)} left over, which no run knows of any more: process {', '.join(lost)}"
        return [Check(name="workers", level="warning", detail=detail, fix=f"kill {' '.join(lost)}")]
    names = sorted(known[worker.pid] for worker in there)
    detail = f"{len(names)} at work: {', '.join(names)}" if names else "none at work, none left over"
    return [Check(name="workers", level="ok", detail=detail)]


def terminal(machine: Machine) -> list[Check]:
    kind = machine.environment.get("TERM", "")
    encoding = machine.encoding().lower().replace("-", "").replace("_", "")
    if not kind or kind == "dumb":
        detail = f"TERM is {kind or 'not set'}: the screens may not be drawn; the verbs work"
        return [Check(name="terminal", level="warning", detail=detail, fix="export TERM=xterm-256color")]
    if encoding and encoding != "utf8":
        detail = f"{kind}, in {machine.encoding()}: marks are drawn in ASCII"
        return [Check(name="terminal", level="warning", detail=detail, fix="export LC_ALL=C.UTF-8, or your language's")]
    if machine.environment.get("NO_COLOR"):
        colours = "no colours (NO_COLOR)"
    elif machine.environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        colours = "16 million colours"
    else:
        colours = "256 colours" if "256" in kind else "16 colours"
    return [Check(name="terminal", level="ok", detail=f"{kind}, UTF-8, {colours}")]
