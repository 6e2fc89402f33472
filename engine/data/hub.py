"""A data set of the hub becomes one Parquet file, once, in a process of its own.

`datasets` does the fetching and takes long to import; it runs as `python -m engine.worker.fetch`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from engine import paths
from engine.errors import Exit, FtuiError
from engine.models import hub as models_hub
from engine.models.convert import staging
from engine.recipe import slug

ROWS, ABOUT = "rows.parquet", "about.json"


def fetch(
    name: str, subset: str | None = None, split: str | None = None, folder: str | None = None
) -> tuple[Path, list[str]]:
    """(the file with the rows of a data set, what to know about it). `folder` is one inside the data set's repository.

    What was fetched is kept in the cache folder; deleted there, it is fetched again.
    Raises FtuiError: DATA_MISSING (no such data set, subset or split), NETWORK, DISK_FULL.
    """
    asked = json.dumps([name, subset, folder, split])
    kept = f"{slug(name.replace('/', '--'))}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    target = paths.private_dir(paths.cache_dir() / "hub") / kept
    if not (target / ABOUT).is_file():
        if not Path(name).is_dir() and not models_hub.answers():
            raise FtuiError(
                Exit.NETWORK,
                "the hub cannot be reached, and this data set was not fetched before",
                f"hub:{name}",
                "check the network (and HF_HUB_OFFLINE), or give a file or folder of rows",
            )
        with staging(target, made=ABOUT, what="the data set") as stage:
            if stage is not None:
                _run(name, subset, split, folder, stage)
    about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    return target / ROWS, list(about["notes"])


def _run(name: str, subset: str | None, split: str | None, folder: str | None, stage: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    request = {"name": name, "subset": subset, "split": split, "folder": folder, "stage": str(stage)}
    done = subprocess.run(
        [sys.executable, "-m", "engine.worker.fetch"],
        input=json.dumps(request).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        check=False,
    )
    try:
        reply = json.loads(done.stdout.decode(errors="replace").strip().rpartition("\n")[2])
    except ValueError:
        reply = {"code": int(Exit.DATA_MISSING), "cause": f"fetching it ended with exit code {done.returncode}"}
    if reply.get("cause"):
        raise FtuiError(Exit(reply["code"]), reply["cause"], f"hub:{name}", reply.get("next_step", ""))
