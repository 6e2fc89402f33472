"""Leaving (Ctrl-C) does not end the run. Ends by itself when the run does."""

from __future__ import annotations

import argparse

from engine.cli import options as shared


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser, optional=True)
    shared.add_json(parser, "all events so far and from now on, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    from engine.cli import live

    return live.wait(shared.named_run(args), args.json, curve=True)
