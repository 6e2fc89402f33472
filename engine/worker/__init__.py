"""The heavy side: started as a process of its own, imported by nobody.

Before any library: none of them may unpickle more than tensors, or fetch compiled code from the hub and run it.
"""

from __future__ import annotations

import logging
import os
import sys

# torch.load then takes nothing but tensors from a pickle, whatever a library asks of it (torch/serialization.py).
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
# Where the package `kernels` is installed, transformers and bitsandbytes take kernels from the hub without being asked.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it warns that there are none
