"""What drawing a loss curve costs, from a short run to a million steps: `python tests/bench/chart.py [repeats]`."""

from __future__ import annotations

import random
import statistics
import sys
import time
from array import array

from tui.widgets.chart import Curve, draw


def main(repeats: int) -> None:
    for count in (100, 10_000, 100_000, 1_000_000):
        loss = array("d", [2.0 * 0.99999**step + random.random() for step in range(count)])
        curve = Curve(array("q", range(1, count + 1)), loss, loss, [], count)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            draw(curve, 76, 18)
            times.append(time.perf_counter() - began)
        print(f"{count:>9,} steps  {statistics.median(times) * 1000:6.1f} ms  (best {min(times) * 1000:.1f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
