"""A worker under strace: the module in FTUI_STRACE_MODULE, with the faults in FTUI_STRACE_INJECT."""

from __future__ import annotations

import os
import sys

CALLS = "write,pwrite64,fsync,fdatasync,rename,openat,mkdir,chmod,unlink,rmdir,ftruncate"

if __name__ == "__main__":
    fault = os.environ["FTUI_STRACE_INJECT"]
    os.environ["PYTHONHASHSEED"] = "0"  # the same calls in the same order each time
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    python = [sys.executable, "-P", "-m", os.environ["FTUI_STRACE_MODULE"]]
    options = ["-f", "-q", "-y", "-s", "0", "-o", os.environ["FTUI_STRACE_LOG"]]
    if "signal" not in fault:
        options.append("--seccomp-bpf")  # quicker, but signals are not injected with it
    faults = [word for each in fault.split() for word in ("-e", f"inject={each}")]
    os.execvp("strace", ["strace", *options, "-e", f"trace={CALLS}", *faults, *python])
