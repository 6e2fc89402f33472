"""The rest of a path while it is typed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from textual.suggester import Suggester

from engine.text import one_for_one


class Paths(Suggester):
    """Suggests the first name in the folder that begins as the last part does; see `completed`."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(completed, value)  # a folder may be far away, and large


def completed(path: str) -> str | None:
    """`path` with its last part whole, a folder's with a / behind it; None where nothing begins so.

    A name that cannot be written to a terminal as it is is never suggested.
    """
    folder, slash, begun = path.rpartition("/")
    if not begun:
        return None
    try:
        with os.scandir(Path(folder + slash).expanduser()) as entries:
            names = sorted(
                f"{one.name}/" if one.is_dir() else one.name for one in entries if one.name.startswith(begun)
            )
    except (OSError, ValueError, RuntimeError):  # no such folder, no name at all, nobody's home
        return None
    return next((folder + slash + name for name in names if one_for_one(name) == name), None)
