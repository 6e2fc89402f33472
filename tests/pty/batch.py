"""`python -m tests.pty.batch FILE`: one verb after another in one process, as FILE (a list of argument lists) says.

Before each stands a line «number». What a machine would say of itself (checks, cards, models of a hub) is hostile too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.pty import machine


def main() -> None:
    machine.pretend()
    from engine.cli import main as verbs

    for number, arguments in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        print(f"«{number}»", flush=True)
        sys.argv = ["ftui", *arguments]
        verbs(arguments)
        sys.stderr.flush()


main()
