"""How long things take to start, against a bare interpreter: `python tests/bench/startup.py [repeats]`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "ftui --help": ["-m", "tui", "--help"],
    "ftui train --help": ["-m", "tui", "train", "--help"],
    "ftui where": ["-m", "tui", "where"],
    "ftui runs": ["-m", "tui", "runs"],
    "import textual.app": ["-c", "import textual.app"],
    "import tui.app": ["-c", "import tui.app"],
}


def main(repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):  # in turns, so that a busy moment hits all alike
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - began)
    bare = statistics.median(seconds["bare interpreter"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<20} {middle * 1000:7.0f} ms  {middle / bare:5.1f} x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
