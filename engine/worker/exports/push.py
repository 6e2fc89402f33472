"""To the hub: one commit with the whole export, private unless said otherwise.

The token is the environment's HF_TOKEN and nothing else: not one that another program left in a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub import errors as hub_errors

from engine.errors import Exit, FtuiError

_FIRST_FILES = {".gitattributes", "README.md"}  # what a repository holds that nobody has put anything into yet


def ready(repository: str) -> None:
    """FtuiError unless the hub answers, takes the token, and `repository` (OWNER/NAME) is free; nothing is changed."""
    with _said(repository):
        api = _api()
        api.whoami()
        try:
            files = {one.rfilename for one in api.model_info(repository).siblings or ()}
        except hub_errors.RepositoryNotFoundError as error:
            # The hub says the same of a repository that is not there and of one that may not be seen.
            if error.response is not None and error.response.status_code in (401, 403):
                raise
            return
        if files - _FIRST_FILES:
            raise FtuiError(
                Exit.EXPORT_FAILED,
                f"{repository} exists on the hub and is not empty",
                next_step="push under another name; ftui replaces nothing",
            )


def push(folder: Path, repository: str, private: bool, base: str) -> str:
    """Put the files of `folder` into `repository`, made now unless it is there and empty; returns its address.

    base  what an adapter's configuration calls its base model there, in place of a folder of this machine
    """
    with _said(repository):
        api = _api()
        url = api.create_repo(repository, private=private, exist_ok=True)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        operations = [CommitOperationAdd(str(path.relative_to(folder)), _content(path, base)) for path in files]
        api.create_commit(repository, operations, commit_message="Export from ftui")
        return str(url)


def _api() -> HfApi:
    token = os.environ.get("HF_TOKEN", "").strip()
    if constants.HF_HUB_OFFLINE:
        raise hub_errors.OfflineModeIsEnabled("HF_HUB_OFFLINE")
    if not token:
        raise FtuiError(
            Exit.PERMISSION,
            "there is no token for the hub",
            "HF_TOKEN is not set",
            "make one that may write on the hub's page of tokens, and set HF_TOKEN to it",
        )
    return HfApi(endpoint=constants.ENDPOINT, token=token)


def _content(path: Path, base: str) -> bytes | str:
    """The file, or an adapter's configuration without the folder that its base model lies in here."""
    if path.name != "adapter_config.json":
        return str(path)
    known = json.loads(path.read_text(encoding="utf-8"))
    if Path(str(known.get("base_model_name_or_path"))).is_absolute():
        known["base_model_name_or_path"] = base
    return json.dumps(known, indent=2, ensure_ascii=False).encode()


@contextmanager
def _said(repository: str) -> Iterator[None]:
    """What can go wrong with a hub, each in its own words."""
    try:
        yield
    except hub_errors.OfflineModeIsEnabled:
        raise FtuiError(
            Exit.NETWORK, "nothing can be pushed offline", "HF_HUB_OFFLINE is set", "unset it, then export again"
        ) from None
    except hub_errors.HFValidationError:
        raise FtuiError(Exit.USAGE, "that is no name for a repository", repository, "write it OWNER/NAME") from None
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            cause, step = (
                "the hub does not know the token in HF_TOKEN",
                "make a new one that may write, and set HF_TOKEN to it",
            )
            raise FtuiError(Exit.PERMISSION, cause, repository, step) from None
        if status == 403:
            cause = f"the token in HF_TOKEN may not write to {repository}"
            raise FtuiError(
                Exit.PERMISSION, cause, next_step="take a token with write access, and your own name as OWNER"
            ) from None
        raise FtuiError(
            Exit.NETWORK, f"the hub refused ({status or 'no answer'}): {error.server_message or error}"
        ) from None
    except (OSError, hub_errors.HTTPError) as error:  # connection errors of the client's own kind come as both
        raise FtuiError(
            Exit.NETWORK,
            f"the hub cannot be reached: {' '.join(str(error).split())[:200]}",
            constants.ENDPOINT,
            "check the network, then export again",
        ) from None
