"""`python -m engine.worker.fetch`: one split of a data set of the hub, written as Parquet.

The request is one JSON object on standard input: name, subset, split, folder, stage (where to write). The reply is the
last line on standard output: {} or code, cause and next_step of what went wrong.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from engine.data.hub import ABOUT, ROWS
from engine.errors import Exit, FtuiError


def main() -> int:
    request = json.loads(sys.stdin.read())
    try:
        fetch(**{**request, "stage": Path(request["stage"])})
    except FtuiError as error:
        print(json.dumps({"code": int(error.code), "cause": error.cause, "next_step": error.next_step}))
        return 1
    print("{}")
    return 0


def fetch(name: str, subset: str | None, split: str | None, folder: str | None, stage: Path) -> None:
    """Raises FtuiError: DATA_MISSING with the names there are, NETWORK, DISK_FULL."""
    import datasets

    datasets.disable_progress_bars()
    work = stage / "work"  # the copy that `datasets` makes for itself, in a format of its own
    try:
        splits: list[str] = []
        if not split:
            splits = _splits(name, subset, folder)
            split = "train" if "train" in splits or not splits else splits[0]
        rows: Any = datasets.load_dataset(name, subset, data_dir=folder, split=split, cache_dir=str(work))
        rows.to_parquet(str(stage / ROWS))
    except Exception as error:
        raise _refusal(error, name, subset, split) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    others = [one for one in splits if one != split]
    notes = [f"the split {split} is read; there are also: {', '.join(others[:12])}"] if others else []
    (stage / ABOUT).write_text(json.dumps({"name": name, "rows": len(rows), "notes": notes}), encoding="utf-8")


def _splits(name: str, subset: str | None, folder: str | None) -> list[str]:
    from datasets import get_dataset_split_names

    return list(get_dataset_split_names(name, subset, data_dir=folder))


def _refusal(error: Exception, name: str, subset: str | None, split: str | None) -> FtuiError:
    """What went wrong, told by the kind of error that the libraries raise and by the words in it."""
    from huggingface_hub import errors as hub_errors

    reason = " ".join(str(error).split())[:300]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and error.errno == 28:
        return FtuiError(Exit.DISK_FULL, "the disk is full: the data set could not be kept")
    if isinstance(error, hub_errors.GatedRepoError):
        step = "accept it on the data set's page, then set HF_TOKEN and try again"
        return FtuiError(Exit.NETWORK, "the data set is gated: its owner asks for an agreement first", "", step)
    if isinstance(error, ValueError) and ("Config name is missing" in reason or "BuilderConfig" in reason):
        what = f"there is no subset {subset}" if subset else "the data set has several subsets"
        return FtuiError(Exit.DATA_MISSING, f"{what}: {reason}", "", "name one with --subset")
    if isinstance(error, ValueError) and "split" in reason.lower():
        return FtuiError(Exit.DATA_MISSING, f"there is no split {split}: {reason}", "", "name one with --split")
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError", "EmptyDatasetError", "DataFilesNotFoundError"}:
        step = "check the name, or set HF_TOKEN if it is private"
        return FtuiError(Exit.DATA_MISSING, f"the hub has no data set {name}, or no rows in it: {reason}", "", step)
    if isinstance(error, OSError) or kinds & {"HTTPError", "HfHubHTTPError", "RequestException", "TransportError"}:
        step = "check the network, or give a file or folder of rows"
        return FtuiError(Exit.NETWORK, f"the data set could not be fetched: {reason}", "", step)
    step = "fetch its files yourself, and name the file or folder"
    return FtuiError(Exit.DATA_MISSING, f"the data set cannot be read: {type(error).__name__}: {reason}", "", step)


if __name__ == "__main__":
    sys.exit(main())
