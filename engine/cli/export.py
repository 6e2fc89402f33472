"""The export is loaded back and compared with the run before it counts as done; `ftui stop RUN` ends one that goes on.

examples:
  ftui export congyu                               the adapter, for peft
  ftui export congyu --merged --to ./congyu        a whole model
  ftui export congyu --merged --dtype bf16         the same in 16 bit
  ftui export congyu --gguf q8_0                   for llama.cpp and Ollama
  HF_TOKEN=… ftui export congyu --push me/congyu   and a private hub repository
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.cli import options as shared
from engine.cli import show
from engine.errors import Exit, FtuiError
from engine.runs import export as exports

if TYPE_CHECKING:
    from engine.runs.events import Exported


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--merged", action="store_true", help="the whole model instead of the adapter alone")
    kind.add_argument(
        "--gguf",
        nargs="?",
        const="f16",
        choices=exports.FORMATS,
        help="one GGUF file in this format (default f16), and a Modelfile for Ollama",
    )
    parser.add_argument("--to", metavar="DIR", help="a new folder (default: under the data folder of `ftui where`)")
    parser.add_argument(
        "--shard-size", default="2GB", metavar="SIZE", help="largest file of a merged model (default 2GB)"
    )
    parser.add_argument("--dtype", choices=exports.DTYPES, help="weights of a merged model (default: as it was tuned)")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="put it on the hub too, in a new private repository; HF_TOKEN is the token"
    )
    parser.add_argument("--public", action="store_true", help="with --push: a repository that everybody can see")
    shared.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engine.cli import live
    from engine.runs import control
    from engine.runs.events import Pushed
    from engine.runs.job import Job

    if args.public and not args.push:
        raise FtuiError(Exit.USAGE, "--public says how a repository is made, and none is", next_step="add --push")
    asked = exports.read(
        {
            "kind": "gguf" if args.gguf else "merged" if args.merged else "adapter",
            "to": str(Path(args.to).expanduser().resolve()) if args.to else None,
            "shard_size": args.shard_size,
            "dtype": args.dtype,
            "format": args.gguf or "f16",
            "push": args.push,
            "public": args.public,
        }
    )
    found = shared.named_run(args)
    if found.result is None:
        raise FtuiError(
            Exit.RUN_STATE, f"{found.name} has no result yet", str(found.path), "`ftui runs` shows its state"
        )
    exports.refuse(asked, found.recipe().settings)
    if asked.to:
        exports.check_place(Path(asked.to))
    if not args.json:
        show.say("exporting, then loading it back to compare …", "dim")
    seen = live.mark(found)
    control.start(found, Job(kind="export", run=str(found.path), options=msgspec.to_builtins(asked)))
    done = live.exported(found, seen, args.json, last=not args.push)
    if not args.json:
        _tell(done, exports.ollama_name(found.recipe().name))
    pushed = live.exported(found, done.seq, args.json, Pushed) if args.push else None
    if args.json:
        show.emit({**msgspec.to_builtins(done), "pushed": pushed.url if pushed else None})
    elif pushed:
        show.say(f"pushed to {pushed.url}" + ("" if pushed.public else ", which only you can see"), "bold")
    return 0


def _tell(done: Exported, ollama: str) -> None:
    from engine.text import size

    form = f" {done.form}" if done.form else ""
    show.say(f"exported to {done.path}: {done.kind}{form}, {size(done.bytes)}", "bold")
    same = f", {done.alike} of {done.asked} greedy answers are the same" if done.asked else ""
    show.say(f"loaded back and compared: the largest difference between logits is {done.difference:.2g}{same}")
    if done.kind == "gguf":
        show.say(f"for Ollama, in that folder: ollama create {ollama} -f Modelfile")
