"""The real worker, with a library that quotes the token of the hub in what it logs, prints and raises."""

from __future__ import annotations

import logging
import os
import sys

from engine.worker.__main__ import main


def leak(*_: object, **__: object) -> None:
    token = os.environ["HF_TOKEN"]
    print(f"GET /api/models, authorization: Bearer {token}", flush=True)
    logging.getLogger("hub").warning("retrying with %s", token)
    raise RuntimeError(f"401 for {token}")


if __name__ == "__main__":
    from engine.data import dataset

    dataset.load = leak  # type: ignore[assignment]
    sys.exit(main())
