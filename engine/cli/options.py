"""Options that several verbs share, and what they mean as a `Choice`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine.errors import Exit, FtuiError

if TYPE_CHECKING:
    from engine.chain import Later
    from engine.choice import Choice, Columns
    from engine.draft import Draft, Report
    from engine.llamafactory import Imported
    from engine.recipe import Recipe
    from engine.runs.control import Gpu
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
GOALS = ("persona", "style", "format", "language", "task", "changing-facts")
# What a recipe file says already, and an option may not say otherwise.
_IN_RECIPE = (
    *("model", "data", "preset", "stage", "reward", "from_run"),
    *("columns", "subset", "split", "prompt", "completion", "system"),
)


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


def add_place(parser: argparse.ArgumentParser, default: str) -> None:
    """Where a training goes, and when."""
    parser.add_argument(
        "--gpu",
        type=_gpu,
        metavar="N",
        help=f"index of the card to use, or auto: the first that is free (default: {default})",
    )
    parser.add_argument(
        "--now", action="store_true", help="start at once, whatever else runs there, and do not wait in line"
    )


def _gpu(word: str) -> Gpu:
    """A card of this machine, as the `type` of an option."""
    from engine import hardware

    if word == "auto":
        return "auto"
    machine = hardware.read()
    there = [card.index for card in machine.gpus] if machine.torch_cuda else []
    if not word.isdecimal() or int(word) not in there:
        has = f"GPU {', '.join(map(str, there))}" if there else "no GPU that can be used"
        raise argparse.ArgumentTypeError(f"{word} is no GPU of this machine: it has {has}")
    return int(word)


def add_rows(parser: argparse.ArgumentParser) -> None:
    """How rows are read: roles, templates, placeholders, bad rows."""
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="ROLE=COLUMN",
        help="correct what was found, as in --columns prompt=question; of the second source --columns 2:prompt=question",
    )
    for role, what, example in (("prompt", "prompt", "Summarise: {dialogue}"), ("completion", "answer", "{summary}")):
        parser.add_argument(
            f"--{role}",
            metavar="TEMPLATE",
            help=f"{what} over the columns, as in '{example}'; of the second source --columns '2:{role}={example}'",
        )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fill {{NAME}} in the rows")
    parser.add_argument("--system", metavar="TEXT", help="system prompt for conversations that have none")
    parser.add_argument("--subset", metavar="NAME", help="of a data set on the hub")
    parser.add_argument("--split", metavar="NAME", help="of a data set, on the hub or in a folder (default: train)")
    parser.add_argument(
        "--bad-rows",
        choices=("abort", "skip", "repair"),
        help="rows that cannot be used: stop (default), leave out, or mend where the meaning is plain",
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Everything that makes a run: what `plan` and `train` share."""
    from engine.recipe import STAGES, Method

    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE.yaml",
        help="repeat the run that this file describes; also the name of a run, or a LLaMA-Factory YAML",
    )
    parser.add_argument("-m", "--model", help='"starter", a hub id, a folder or a .gguf file (default: starter)')
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let the code run that comes with this model; read it first (default: no, whatever a recipe says)",
    )
    parser.add_argument(
        "-d",
        "--data",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a file or folder of rows, preset:NAME, hub:OWNER/NAME, or dataset_info.json:ENTRY; "
        "give it again to mix, with a weight as in 'more.jsonl*0.5' (in quotes: * is the shell's)",
    )
    parser.add_argument("-p", "--preset", help="a ready-made starting point (`ftui presets`)")
    parser.add_argument("--from", dest="from_run", metavar="RUN", help="train on from the adapter of a finished run")
    parser.add_argument("-n", "--name", help="name of the run")
    parser.add_argument("--stage", choices=STAGES, help="what the rows train (default: what they are made for)")
    parser.add_argument(
        "--reward",
        metavar="WHAT",
        help="what an answer is worth, for grpo, rloo and ppo: length:N, regex:PATTERN, exact, or a reward model's run",
    )
    parser.add_argument("--goal", choices=GOALS, help="what the tuning is for")
    parser.add_argument("--deadline", metavar="TIME", help="when it has to be done, as in 2h or 45min")
    methods = get_args(Method)
    parser.add_argument("--method", choices=methods, metavar="METHOD", help=f"way to train: {', '.join(methods)}")
    add_rows(parser)
    for short, name in SHORT.items():
        parser.add_argument(f"--{short}", metavar="N", help=f"{_SHORT_HELP[short]} ({name})")
    add_edit(parser, "any other setting (`ftui plan` lists them); STAGE.FIELD=VALUE for a later stage")
    parser.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="STAGE:ROWS",
        help="another stage after this one, from its adapter, as in dpo:pairs.json; again for a third",
    )


def add_edit(parser: argparse.ArgumentParser, words: str) -> None:
    """Settings by name; `typed` reads them."""
    parser.add_argument("-e", "--edit", action="append", default=[], metavar="FIELD=VALUE", help=words)


def whole(word: str) -> int:
    """A whole number from 1 on, as the `type` of an option."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is no whole number from 1 on")
    return int(word)


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
    short = [f"{name}={getattr(args, name)}" for name in (*SHORT, "method") if getattr(args, name) is not None]
    return typed([*short, *(word for word in args.edit if not _later(word))], "--edit")


def later_edits(args: argparse.Namespace) -> dict[str, object]:
    """Those of later stages, by "STAGE.FIELD"."""
    found: dict[str, object] = {}
    for word in filter(_later, args.edit):
        stage, _, edit = word.partition(".")
        found |= {f"{stage}.{name}": value for name, value in typed([edit], "--edit").items()}
    return found


def _later(word: str) -> bool:
    return "." in word.partition("=")[0]


def later(args: argparse.Namespace, there: Sequence[str] = ()) -> tuple[list[Later], dict[str, object]]:
    """The stages that --then adds, and the edits for those that are `there` already (in a recipe)."""
    from msgspec.structs import replace

    from engine import chain

    added = [chain.parse(word) for word in args.then]
    edits = later_edits(args)
    sorted_ = chain.by_stage([*there, *(one.stage for one in added)], edits)
    own = {name: value for name, value in edits.items() if name.partition(".")[0] in there}
    return [replace(one, edits=sorted_[one.stage]) for one in added], own


def typed(given: list[str], option: str) -> dict[str, object]:
    """["lr=1e-4", …] as settings with typed values; short names count. Raises FtuiError(USAGE | RECIPE_INVALID)."""
    from engine import recipe

    named = {SHORT.get(name, name).replace("-", "_"): value for name, value in pairs(given, option).items()}
    return {name: recipe.setting(name, value) for name, value in named.items()}


def _goal(word: str | None) -> Any:
    return word and word.replace("-", " ")


def _seconds(word: str | None) -> float | None:
    from engine.text import seconds_of

    try:
        return seconds_of(word) if word else None
    except ValueError as error:
        raise FtuiError(Exit.USAGE, f"--deadline {word}: {error}") from None


def choice(args: argparse.Namespace, base: Choice | None = None) -> Choice:
    """What the options say, as a `Choice`; over what `base` says."""
    from msgspec.structs import replace

    from engine.choice import Choice

    base = base or Choice()
    # What was not given leaves the base's word.
    given: dict[str, Any] = {
        **rows(args, args.data),
        "model": args.model,
        "trust_remote_code": args.trust_remote_code,
        "preset": args.preset,
        "name": args.name,
        "stage": args.stage,
        "reward": args.reward,
        "goal": _goal(args.goal),
        "deadline": _seconds(args.deadline),
    }
    made = replace(base, **{name: value for name, value in given.items() if value})
    made.values = {**base.values, **made.values}
    made.edits = {**base.edits, **edits(args)}
    made.then, _ = later(args)
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


def rows(args: argparse.Namespace, sources: list[str]) -> dict[str, Any]:
    """What the options of `add_rows` say about the rows in `sources`, as fields of a `Choice`."""
    columns, said = _columns(args.columns, sources)
    return {
        "data": sources[0] if sources else None,
        "more": sources[1:],
        "columns": columns,
        "said": said,
        "values": pairs(args.set, "--set"),
        "prompt": args.prompt,
        "completion": args.completion,
        "system": args.system,
        "subset": args.subset,
        "split": args.split,
        "on_bad_row": args.bad_rows,
    }


def _columns(given: list[str], sources: list[str]) -> tuple[dict[str, str], dict[str, Columns]]:
    """Corrections to the first source, and to the others by their word: of those a prompt or an answer may be a template."""
    from engine.choice import Columns

    first: list[str] = []
    rest: dict[str, list[str]] = {}
    for word in given:
        number, sign, pair = word.partition(":")
        if not sign or not number.isdecimal():
            first.append(word)
        elif 1 <= int(number) <= max(1, len(sources)):
            (first if int(number) == 1 else rest.setdefault(sources[int(number) - 1], [])).append(pair)
        else:
            many = "1 source" if len(sources) < 2 else f"{len(sources)} sources"
            raise FtuiError(Exit.USAGE, f"--columns {word} is for source {number}, and there are {many}")
    said = {}
    for source, words in rest.items():
        roles = pairs(words, "--columns")
        templates = {role: roles.pop(role) for role in ("prompt", "completion") if "{" in roles.get(role, "")}
        said[source] = Columns(columns=roles, **templates)
    return pairs(first, "--columns"), said


def draft(args: argparse.Namespace, progress: Report | None) -> Draft:
    """The draft that the options describe: from a choice, a LLaMA-Factory YAML, or a recipe.

    Raises FtuiError(USAGE) for a --set that fills nothing; values that a recipe or a preset brings may stay unused.
    """
    from engine import draft as drafts
    from engine import presets
    from engine.data import placeholders

    made = _draft(args, progress)
    known = presets.load(args.preset).values if args.preset else ()
    placeholders.check(pairs(args.set, "--set"), [one.dataset for one in drafts.stages(made)], known)
    return made


def _draft(args: argparse.Namespace, progress: Report | None) -> Draft:
    from engine import chain, recipe
    from engine import draft as drafts
    from engine.llamafactory import Imported

    if not args.recipe:
        return drafts.make(choice(args), progress)
    again = described(args.recipe)
    if isinstance(again, Imported):
        return drafts.make(choice(args, again.choice), progress)
    taken = [f"--{name.removesuffix('_run')}" for name in _IN_RECIPE if getattr(args, name)]
    if taken:
        raise FtuiError(
            Exit.USAGE, f"a recipe already says {', '.join(taken)}", args.recipe, "edit the file, or leave it out"
        )
    each = chain.stages(again)
    for one in each:
        if args.name:
            one.name = recipe.slug(args.name) if one is each[0] else chain.name_of(recipe.slug(args.name), one.stage)
        # A recipe may come from anybody: its word is kept for resuming, but does not allow anything.
        one.model.trust_remote_code = args.trust_remote_code
        one.data.values.update(pairs(args.set, "--set"))
        one.data.on_bad_row = args.bad_rows or one.data.on_bad_row
    added, own = later(args, [one.stage for one in each[1:]])
    made = drafts.from_recipe(chain.linked(each), {**edits(args), **own}, progress)
    if added:
        made = drafts.extended(made, added, progress)
    if not args.goal and not args.deadline:
        return made
    return drafts.answer(made, _goal(args.goal), _seconds(args.deadline))


def described(word: str) -> Recipe | Imported:
    """What a recipe file, a LLaMA-Factory YAML or the name of a run describes.

    Raises FtuiError(RECIPE_INVALID) for a file that is neither, FtuiError(RUN_UNKNOWN) for a name that no run has.
    """
    import yaml

    from engine import llamafactory, recipe
    from engine.runs import directory

    path = Path(word).expanduser()
    if path.suffix not in (".yaml", ".yml", ".json") and not path.is_file():
        return directory.find(word).recipe()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return recipe.load(path)  # once more, for its words on what is wrong
    return llamafactory.read(path) if llamafactory.recognises(raw) else recipe.load(path)


def imported(args: argparse.Namespace) -> Imported | None:
    """What a LLaMA-Factory YAML came to, where the plan comes from one."""
    from engine.llamafactory import Imported

    taken = described(args.recipe) if args.recipe else None
    return taken if isinstance(taken, Imported) else None


def say_imported(args: argparse.Namespace) -> None:
    """What of a LLaMA-Factory YAML has no counterpart here."""
    from engine.cli import show

    if taken := imported(args):
        show.say(f"from LLaMA-Factory: {len(taken.kept)} keys taken", "dim")
        for line in taken.left:
            show.paragraph(line, "dim", lead="left out: ")
