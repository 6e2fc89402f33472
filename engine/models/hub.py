"""The model hub: whether one answers, and fetching a model from it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from engine.errors import Exit, FtuiError

Progress = Callable[[str, int, int], None]

PATIENCE = 3.0  # seconds a hub has to answer in before something else is tried
# Never pickled weights; code to be read.
WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.tiktoken", "*.py"]


def answers(patience: float = PATIENCE) -> bool:
    """Whether a hub accepts a connection and replies within `patience` seconds. False when told to stay offline."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return False
    # A name server that is silent blocks longer than any socket timeout: ask in a thread that may be left behind.
    reply: list[bool] = []
    asking = threading.Thread(target=lambda: reply.append(_reply(patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return bool(reply) and reply[0]


def _reply(patience: float) -> bool:
    import http.client

    parts = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=patience)
        try:
            connection.request("HEAD", "/api/models/HuggingFaceTB/SmolLM2-135M-Instruct")
            return connection.getresponse().status < 400
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def download(repository: str, folder: Path | None, progress: Progress, revision: str | None = None) -> Path:
    """Fetch a model's files into `folder` (or the hub's own cache) and return where they are.

    Raises FtuiError: MODEL_MISSING (no such model), NETWORK (offline, gated, or no permission), each with its own text.
    """
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm

    class Bar(tqdm):
        """Hands what the hub's client reports to `progress` instead of drawing."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})  # type: ignore[arg-type]

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B" and self.total:
                progress("fetching MB", int(self.n) // 1_000_000, int(self.total) // 1_000_000)
            return shown

    try:
        return Path(
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=WANTED, tqdm_class=Bar)
        )
    except hub_errors.GatedRepoError:
        raise FtuiError(
            Exit.NETWORK,
            f"{repository} is gated: its owner asks for an agreement first",
            next_step="accept it on the model's page, then set HF_TOKEN and try again",
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise FtuiError(
            Exit.MODEL_MISSING,
            f"the hub knows no model {repository}, or it is private",
            next_step="check the name, or set HF_TOKEN if it is private",
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise FtuiError(Exit.MODEL_MISSING, f"{repository} has no revision {revision}") from None
    except (hub_errors.HfHubHTTPError, hub_errors.LocalEntryNotFoundError, OSError) as error:
        raise _unreachable(repository, error) from None


def _unreachable(repository: str, error: Exception) -> FtuiError:
    """Why nothing came, where the hub did not say that it is about the model."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FtuiError(Exit.DISK_FULL, f"the disk is full: {repository} could not be fetched")
    # Its client calls the hub unreachable, too, when it answers with an error.
    answered = next((one for one in (error, error.__cause__) if isinstance(one, HfHubHTTPError)), None)
    status = getattr(getattr(answered, "response", None), "status_code", None)
    if status in (401, 403):
        return FtuiError(
            Exit.NETWORK,
            f"the hub does not let this token fetch {repository}",
            next_step="set HF_TOKEN to a valid token that may read it, or unset it for what is public",
        )
    elsewhere = "or give --model a local folder, a GGUF file or `starter`"
    if status is not None:
        return FtuiError(
            Exit.NETWORK,
            f"the hub has a problem of its own: it answers {status}",
            next_step=f"try again later, {elsewhere}",
        )
    return FtuiError(
        Exit.NETWORK,
        f"the hub cannot be reached, and {repository} is not on this machine",
        next_step=f"check the network, {elsewhere}",
    )


class _Nowhere:
    """A file that swallows what a progress bar draws."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...
