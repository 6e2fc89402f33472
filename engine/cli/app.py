"""One table of verbs, and the one place where an error becomes lines on stderr and an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import itertools
import json
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from engine import __version__, glyphs
from engine.errors import Exit, FtuiError
from engine.secrets import redacted

# Each verb is a module of this package with options(parser) and run(args) -> exit code. Imported only when it is run.
VERBS: dict[str, str] = {
    "demo": "from nothing to a model that knows its new name, no questions asked",
    "models": "models that are here, and models that can be fetched",
    "presets": "ready-made starting points, with what they measured",
    "data": "what is in a file of rows: shape, token lengths, findings, what is trained",
    "plan": "every setting with its reason and source, memory and time, before anything starts",
    "probe": "how fast this machine trains a model, measured in less than a minute",
    "train": "start a run in the background",
    "runs": "all runs and their states",
    "attach": "the whole curve of a run, then what happens next",
    "logs": "what the libraries printed in a run",
    "stop": "stop a run after a checkpoint",
    "resume": "go on from a run's last whole checkpoint",
    "extend": "train a finished run for more epochs",
    "chat": "talk to a tuned model",
    "evaluate": "answers to held-out rows before and after, side by side, and their scores",
    "export": "write the adapter or the merged model, checked by comparing logits",
    "doctor": "what works on this machine and what to mend",
    "where": "the folders in use",
}


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are FtuiErrors, so that they too are at most three lines."""

    def error(self, message: str) -> NoReturn:
        raise FtuiError(Exit.USAGE, message, next_step=f"`{self.prog} --help` shows how")


class Help(argparse.HelpFormatter):
    """Text flows to the width of the terminal and breaks between words; an indented line (an example, a table's) stays a line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for indented, block in itertools.groupby(text.strip("\n").splitlines(), lambda line: line[:1] in ("", " ")):
            if indented:
                lines += [part for line in block for part in _hung(line, width)]
            else:
                lines += _wrapped(" ".join(block), width)
        return "\n".join(lines)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _hung(line: str, width: int) -> list[str]:
    """A line of two columns whose second is too long goes on below that; any other line as it is."""
    columns = re.match(r"\s*\S+(?: \S+)*\s{2,}", line)
    if len(line) <= width or columns is None:
        return [line]
    first, *rest = _wrapped(line[columns.end() :], max(20, width - columns.end()))
    return [columns[0] + first, *(" " * columns.end() + more for more in rest)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; `argv` without the program's name. Returns the exit code, never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments), arguments)


def guarded(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Do `work`; the exit code. Whatever it raises becomes at most three lines on stderr, made safe."""
    as_json = "--json" in arguments
    glyphs.choose()
    try:
        return int(work())
    except FtuiError as error:
        complain(error, as_json)
        return int(error.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) left. Point stdout elsewhere, or Python complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(Exit.OK)
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0
    except Exception as error:
        known = _from_system(error) or unexpected(error, arguments)
        complain(known, as_json)
        return int(known.code)


def _dispatch(arguments: list[str]) -> int:
    parser = _top()
    if not arguments:
        parser.print_help()
        return Exit.OK
    verb = arguments[0]
    if verb.startswith("-"):
        parser.parse_args(arguments)  # --help, --version, or a complaint
        return Exit.OK
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean `ftui {near[0]}`?" if near else "`ftui --help` lists the verbs"
        raise FtuiError(Exit.USAGE, f"there is no verb {verb}", next_step=hint)
    module = importlib.import_module(f"engine.cli.{verb}")
    code: int = module.run(_verb_parser(verb, module).parse_args(arguments[1:]))
    return code


def _top() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    table = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in VERBS.items())
    parser = Parser(
        prog="ftui",
        usage="ftui [VERB …]        (without a verb, on a terminal: the screens)",
        description="The terminal companion for fine-tuning language models.",
        epilog=f"verbs (each with --help):\n{table}\n\n{_exit_codes()}",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"ftui {__version__}")
    return parser


def _exit_codes() -> str:
    """The codes as a table for --help; docs/exit-codes.md says what each means."""
    cells = [f"{code.value:>3} {code.name.lower()}" for code in Exit]
    rows = [cells[i : i + 3] for i in range(0, len(cells), 3)]
    return "exit codes:\n" + "\n".join(" " + "".join(f"{cell:<22}" for cell in row).rstrip() for row in rows)


def _verb_parser(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"ftui {verb}",
        description=VERBS[verb].capitalize() + ".",
        epilog=module.__doc__,
        formatter_class=Help,
        allow_abbrev=False,
    )
    module.options(parser)
    return parser


def complain(error: FtuiError, as_json: bool = False) -> None:
    """The lines of an error on stderr."""
    from engine.text import escaped, safe

    if as_json:
        print(escaped(redacted(json.dumps(error.as_dict(), ensure_ascii=False))), file=sys.stderr)
        return
    first, *rest = [safe(redacted(line)) for line in error.lines()]
    print(f"ftui: {first}", *(f"      {line}" for line in rest), sep="\n", file=sys.stderr)


def _from_system(error: Exception) -> FtuiError | None:
    """The operating system's errors that have a code of their own."""
    if not isinstance(error, OSError):
        return None
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FtuiError(Exit.DISK_FULL, "the disk is full", where, "free some space (`ftui where` shows the folders)")
    if error.errno == errno.ENAMETOOLONG:
        return FtuiError(Exit.USAGE, "this name is longer than a file's can be", where)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FtuiError(Exit.PERMISSION, f"not allowed: {error.strerror}", where, "check who owns it")
    return None


def unexpected(error: BaseException, arguments: Sequence[str]) -> FtuiError:
    """An error that nobody foresaw, in one line for the person; its traceback is written into a private file."""
    from engine import paths
    from engine.text import safe

    path = "(no file could be written)"
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    report = f"{when}  ftui {__version__}  {shlex.join(arguments)}\n{''.join(traceback.format_exception(error))}"
    try:
        log = paths.state_dir() / "crash.log"
        paths.write_private(log, safe(redacted(report), newlines=True))
        path = str(log)
    except OSError:
        pass
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return FtuiError(Exit.UNEXPECTED, f"unexpected: {reason}, details in {path}")
