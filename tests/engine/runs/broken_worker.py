"""The real worker, whose model breaks at its ninth batch in the way that FTUI_BREAK says.

nan      weights are NaN from then on
memory   there is no room for more than FTUI_ROOM rows at once
gpu      the card fails, in the first attempt only
hang     it waits for ever
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from engine.worker.__main__ import main


def breaking(build: Any) -> Any:
    import torch

    def for_training(*arguments: Any) -> Any:
        model = build(*arguments)
        batches = 0

        def before(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
            nonlocal batches
            batches += model.training
            if batches < 9 or not model.training:
                return
            match os.environ["FTUI_BREAK"]:
                case "memory" if len(named["input_ids"]) > int(os.environ["FTUI_ROOM"]):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                case "nan":
                    next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(float("nan"))
                case "gpu" if not Path("broken").exists():
                    Path("broken").touch()  # in the run's folder
                    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_…")
                case "hang":
                    threading.Event().wait()

        model.register_forward_pre_hook(before, with_kwargs=True)
        return model

    return for_training


if __name__ == "__main__":
    from engine.worker import build

    build.for_training = breaking(build.for_training)
    sys.exit(main())
