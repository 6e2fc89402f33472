"""The step under way is finished and a checkpoint written. `ftui resume RUN` goes on from there.

A run that waits in line leaves it; `ftui resume RUN` puts it back, at the end."""

from __future__ import annotations

import argparse

from engine.cli import options as shared
from engine.cli import show


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    parser.add_argument("--wait", action="store_true", help="return when it has stopped")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.runs import control

    found = shared.named_run(args)
    now = control.stop(found, wait=args.wait)
    if args.json:
        show.emit(now)
    elif now.state == "stopped":
        show.say(f"{now.name} stopped at step {now.step}; `ftui resume {now.name}` goes on")
    elif now.state == "queued":
        show.say(f"{now.name} leaves the line; `ftui resume {now.name}` puts it back")
    elif now.ended:
        show.say(f"{now.name} is {now.state}")
    else:
        show.say(f"{now.name} stops after the step under way and a checkpoint; `ftui resume {now.name}` goes on later")
    return 0
