"""The log holds what torch, transformers and their friends print, and tracebacks."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from engine.cli import options as shared
from engine.cli import show

_POLL = 0.5  # seconds


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser, optional=True)
    parser.add_argument("-f", "--follow", action="store_true", help="go on while the run does")


def run(args: argparse.Namespace) -> int:
    from engine.runs import status

    found = shared.named_run(args)
    offset, rest = _print_from(found.log_path, 0, b"")
    while args.follow and status.read(found).worker_alive:
        time.sleep(_POLL)
        offset, rest = _print_from(found.log_path, offset, rest)
    if rest:
        show.say(rest.decode("utf-8", errors="replace"))
    return 0


def _print_from(path: Path, offset: int, rest: bytes) -> tuple[int, bytes]:
    """Print the whole lines after `offset`; the unfinished one is handed back."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return offset, rest
    # A progress bar rewrites its line with carriage returns: what it said last is what counts.
    *lines, rest = (rest + data).split(b"\n")
    for line in lines:
        show.say(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", errors="replace"))
    return offset + len(data), rest
