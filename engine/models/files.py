"""Reading a model's JSON files, which come from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.errors import Exit, FtuiError

JSON_LIMIT = 64 * 1024**2  # bytes; the largest tokenizer.json in use is about a third of this


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None where there is no such file. FtuiError(MODEL_MISSING) where it is broken."""
    try:
        with path.open("rb") as file:
            raw = file.read(JSON_LIMIT + 1)
        if len(raw) > JSON_LIMIT:
            raise FtuiError(Exit.MODEL_MISSING, f"{path.name} is larger than any real one", str(path), "get it again")
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise FtuiError(Exit.PERMISSION, f"{path.name} cannot be read: {error.strerror}", str(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FtuiError(
            Exit.MODEL_MISSING, f"{path.name} is damaged: {error}", str(path), "get the model's files again"
        ) from None
