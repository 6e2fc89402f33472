"""Options that several verbs share, and what they mean as a `Choice`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.draft import Choice, Draft, Report
    from engine.runs.directory import RunDir

# Short names for the settings that people change most; --edit reaches all of them.
SHORT = {"epochs": "epochs", "lr": "learning_rate", "batch": "micro_batch", "length": "max_length", "rank": "rank"}
_SHORT_HELP = {
    "epochs": "passes over the rows",
    "lr": "learning rate",
    "batch": "rows computed at once (micro-batch); the accumulation follows",
    "length": "longest row in tokens; longer ones are cut",
    "rank": "rank of the adapter",
}


def add_json(parser: argparse.ArgumentParser, what: str = "one JSON document instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_run(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument(
        "run",
        nargs="?" if optional else None,
        metavar="RUN",
        help="name of the run, or the start of its folder's name" + (" (default: the newest)" if optional else ""),
    )


def named_run(args: argparse.Namespace) -> RunDir:
    """The run that was named, or the newest. Raises FtuiError(RUN_UNKNOWN)."""
    from engine.runs import directory

    if args.run:
        return directory.find(args.run)
    runs = directory.all_runs()
    if not runs:
        raise FtuiError(Exit.RUN_UNKNOWN, "there are no runs yet", next_step="`ftui demo` makes one in a few minutes")
    return runs[0]


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="show the progress and return when the run ends")
    add_json(parser, "one JSON document; with --wait the run's events, one a line")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """How rows are read: placeholders, templates, bad rows."""
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fill {{NAME}} in the rows")
    parser.add_argument("--prompt", metavar="TEMPLATE", help="prompt over the columns, as in 'Summarise: {dialogue}'")
    parser.add_argument("--completion", metavar="TEMPLATE", help="answer over the columns, as in '{summary}'")
    parser.add_argument("--system", metavar="TEXT", help="system prompt for conversations that have none")
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows that cannot be used, and count them"
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Everything that makes a run: what `plan` and `train` share."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="repeat the run that this file describes")
    parser.add_argument("-m", "--model", help='"starter", a hub id, a folder or a .gguf file (default: starter)')
    parser.add_argument("-d", "--data", metavar="FILE", help="json, jsonl, csv, tsv, parquet or txt, or preset:NAME")
    parser.add_argument("-p", "--preset", help="a ready-made starting point (`ftui presets`)")
    parser.add_argument("--from", dest="from_run", metavar="RUN", help="train on from the adapter of a finished run")
    parser.add_argument("-n", "--name", help="name of the run")
    parser.add_argument("--method", choices=("lora", "qlora", "full"))
    add_rows(parser)
    for short, name in SHORT.items():
        parser.add_argument(f"--{short}", metavar="N", help=f"{_SHORT_HELP[short]} ({name})")
    parser.add_argument(
        "-e",
        "--edit",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other setting (`ftui plan` lists them)",
    )


def pairs(given: list[str], option: str) -> dict[str, str]:
    """["a=b", …] as a dictionary. Raises FtuiError(USAGE) for a word without =."""
    found = {}
    for word in given:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise FtuiError(Exit.USAGE, f"{option} takes NAME=VALUE, not {word}")
        found[name.strip()] = value
    return found


def edits(args: argparse.Namespace) -> dict[str, object]:
    """The settings changed on the command line, typed. Raises FtuiError(RECIPE_INVALID) for one that does not fit."""
    from engine import recipe

    given: dict[str, str] = {
        name: getattr(args, short) for short, name in SHORT.items() if getattr(args, short) is not None
    }
    if args.method:
        given["method"] = args.method
    given.update(pairs(args.edit, "--edit"))
    return {name: recipe.setting(name, value) for name, value in given.items()}


def choice(args: argparse.Namespace) -> Choice:
    """What the options say, as a `Choice`."""
    from engine.draft import Choice

    made = Choice(
        model=args.model or "starter",
        data=args.data,
        preset=args.preset,
        values=pairs(args.set, "--set"),
        name=args.name,
        edits=edits(args),
        prompt=args.prompt,
        completion=args.completion,
        system=args.system,
        on_bad_row="skip" if args.skip_bad_rows else "abort",
    )
    if args.from_run:
        from engine.runs import directory

        earlier = directory.find(args.from_run)
        result = earlier.result
        if result is None or result != earlier.adapter:
            raise FtuiError(
                Exit.RUN_STATE,
                f"{args.from_run} has no finished adapter to start from",
                str(earlier.path),
                "`ftui runs` shows which runs are ready; a full run's model folder goes to --model",
            )
        source = earlier.recipe().model.source
        if args.model and args.model != source:
            raise FtuiError(Exit.USAGE, f"the adapter of {args.from_run} belongs to {source}, not to {args.model}")
        made.adapter, made.model = str(result), source
    return made


def draft(args: argparse.Namespace, progress: Report | None) -> Draft:
    """The draft that the options describe, from a recipe file or from a choice."""
    from engine import draft as drafts
    from engine import recipe

    if not args.recipe:
        return drafts.make(choice(args), progress)
    taken = [f"--{name}" for name in ("model", "data", "preset", "from_run") if getattr(args, name)]
    if taken:
        raise FtuiError(
            Exit.USAGE, f"a recipe file already says {', '.join(taken)}", args.recipe, "edit the file, or leave it out"
        )
    again = recipe.load(Path(args.recipe))
    if args.name:
        again.name = recipe.slug(args.name)
    again.data.values.update(pairs(args.set, "--set"))
    if args.skip_bad_rows:
        again.data.on_bad_row = "skip"
    return drafts.from_recipe(again, edits(args), progress)
