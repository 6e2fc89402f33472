"""Work that is the same each time, recorded once and played again (CUDA graphs)."""

from __future__ import annotations

from collections.abc import Callable

import torch

Work = Callable[[], torch.Tensor]


def recorded(work: Work, device: torch.device) -> Work:
    """What does `work` again, on a card without launching its kernels one by one; elsewhere `work` itself.

    `work` reads and writes tensors that stay where they are, asks for no number and takes no other way for other numbers;
    it is done several times at once here. What is returned is overwritten the next time. Raises RuntimeError where it
    cannot be recorded.
    """
    if device.type != "cuda":
        return work
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):  # kernels are chosen, and libraries take their memory, before anything is recorded
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = work()

    def play() -> torch.Tensor:
        graph.replay()
        return found

    return play
