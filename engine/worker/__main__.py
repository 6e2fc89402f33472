"""`python -m engine.worker`: does one job for one run, told on standard input by the supervisor as one JSON line.

Started warm (FTUI_WARM_DIR is set), it imports first and waits for the line; otherwise the line is there already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from pathlib import Path

import msgspec

from engine.runs.job import Job
from engine.secrets import redacting
from engine.worker import imports

LINGER = 600.0  # seconds a worker keeps the model for the next question when nobody is connected
FIRST_CLIENT = 60.0  # seconds that a worker started for chat waits for whoever started it


def main() -> int:
    os.umask(0o077)
    # What libraries print becomes worker.log.
    sys.stdout, sys.stderr = redacting(sys.stdout), redacting(sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warm = os.environ.get("FTUI_WARM_DIR")
    if warm:
        _import_all()
        with contextlib.suppress(OSError):
            (Path(warm) / "ready").touch()
    line = sys.stdin.readline()
    if not line.strip():
        return 0  # the face went away without giving work
    job = msgspec.json.decode(line, type=Job)
    if warm:
        _log_to(Path(job.run) / "worker.log")
    if job.options.get("gpu") is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(job.options["gpu"])
    from engine.worker import jobs

    return jobs.run(job, float(os.environ.get("FTUI_LINGER", LINGER)), FIRST_CLIENT)


def _import_all() -> None:
    """Everything that a training run will import, while the person is still choosing."""
    # Which card it will use is not known yet, so nothing may touch CUDA: torch then counts cards through the driver.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    with imports.quietly():
        import datasets  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        import engine.worker.stages.sft
        import engine.worker.train  # noqa: F401

        get_checkpoint_conversion_mapping("llama")  # at the first one it makes those of all models
    del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]


def _log_to(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
