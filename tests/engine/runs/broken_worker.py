"""The real worker, whose model breaks at its ninth batch in the way that FTUI_BREAK says: "nan" or "memory"."""

from __future__ import annotations

import os
import sys
from typing import Any

from engine.worker.__main__ import main


def breaking(build: Any) -> Any:
    import torch

    def for_training(*arguments: Any) -> Any:
        model = build(*arguments)
        batches = 0

        def before(_module: Any, _inputs: Any) -> None:
            nonlocal batches
            batches += model.training
            if batches < 9 or not model.training:
                return
            if os.environ["FTUI_BREAK"] == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(float("nan"))

        model.register_forward_pre_hook(before)
        return model

    return for_training


if __name__ == "__main__":
    from engine.worker import build

    build.for_training = breaking(build.for_training)
    sys.exit(main())
