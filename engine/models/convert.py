"""A GGUF file becomes a folder of safetensors, once, in a process of its own.

transformers can train only what it holds dequantised, so the conversion happens before the first use and its result
is kept. The work needs torch and therefore runs as `python -m engine.worker.convert`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from engine import paths
from engine.errors import Exit, FtuiError

Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def staging(target: Path, made: str = "config.json", what: str = "the model") -> Iterator[Path | None]:
    """A folder to build `target` in, renamed to it when the block ends well; None when `target` is there already.

    One process builds, others wait for it. What an interrupted process left is cleared away.
    made  the file that is in a whole `target`
    what  it is, for an error
    """
    paths.private_dir(target.parent)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (target / made).is_file():
            yield None
            return
        for leftover in target.parent.glob(f".{target.name}.stage-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.stage-", dir=target.parent))
        try:
            yield stage
            for path in stage.rglob("*"):
                paths.sync(path)
            shutil.rmtree(target, ignore_errors=True)
            stage.rename(target)
            paths.sync(target.parent)
        except OSError as error:
            if error.errno == 28:
                raise FtuiError(
                    Exit.DISK_FULL, f"the disk is full: {what} could not be kept", str(target.parent)
                ) from None
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def gguf(source: Path, target: Path, progress: Progress) -> None:
    """Convert the GGUF file `source` into the folder `target` (which exists).

    Raises FtuiError(MODEL_UNSUPPORTED) with the reader's own reason, or DISK_FULL.
    """
    progress("converting tensors", 0, 0)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.worker.convert", str(source), str(target)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stderr is not None
    tail = b""
    try:
        while chunk := os.read(process.stderr.fileno(), 4096):
            tail = (tail + chunk)[-4000:]
            # The readers report on stderr, as progress bars do: "… 120/272 …".
            counts = re.findall(rb"\b(\d+)/(\d+)\b", chunk)
            if counts:
                done, total = map(int, counts[-1])
                if total > 1:
                    progress("converting tensors", done, total)
    finally:
        if process.poll() is None:
            process.terminate() if sys.exc_info()[0] else None
        process.wait()
    if process.returncode != 0:
        lines = [line for line in tail.decode(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {process.returncode}"
        if "No space left" in reason:
            raise FtuiError(Exit.DISK_FULL, "the disk is full: the model could not be converted", str(target.parent))
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "this GGUF file could not be converted",
            f"{source}: {reason}",
            "give --model a folder with safetensors instead",
        )
