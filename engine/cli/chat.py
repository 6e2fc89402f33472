"""The model is loaded in the background and stays there for a while, so that the next answer comes sooner.

With -p one answer goes to stdout. Without it, lines are answered one by one; /base and /tuned change who answers,
/again asks once more, /system TEXT sets the system prompt, /new forgets the conversation, Ctrl-D leaves.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from engine.cli import options as shared
from engine.cli import show
from engine.sampling import HOTTEST
from engine.text import safe

if TYPE_CHECKING:
    from engine.runs.chat import Chat, Reply

Which = Literal["tuned", "base"]


class Talk(Struct):
    """A conversation and how it is sampled."""

    which: Which
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    turns: list[dict[str, str]] = msgspec.field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]


def options(parser: argparse.ArgumentParser) -> None:
    shared.add_run(parser, optional=True)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="ask this, print the answer, leave")
    parser.add_argument("--base", action="store_true", help="ask the base model instead of the tuned one")
    parser.add_argument("--system", default="", metavar="TEXT", help="system prompt")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        metavar="T",
        help=f"from 0, always the likeliest token, to {HOTTEST:g} (default 0.7)",
    )
    parser.add_argument(
        "--top-p", type=float, default=0.9, metavar="P", help="share of likely words to draw from (default 0.9)"
    )
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="longest answer (default 256)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    shared.add_json(parser, "with -p: the answer and its figures as one JSON document")


def run(args: argparse.Namespace) -> int:
    from engine.errors import Exit, FtuiError
    from engine.runs import control, directory
    from engine.runs.chat import Chat

    _check(args)
    found = shared.named_run(args)
    talk = Talk("base" if args.base else "tuned", args.system, args.temperature, args.top_p, args.max_tokens, args.seed)
    if args.json and args.prompt is None:
        raise FtuiError(Exit.USAGE, "--json needs a question", next_step="give -p TEXT")
    if sys.stderr.isatty() and not args.json:
        print("loading the model …", end="\r", file=sys.stderr, flush=True)
    control.serve(found)
    if sys.stderr.isatty() and not args.json:
        print(" " * 20, end="\r", file=sys.stderr, flush=True)
    chat = Chat(found)
    try:
        if args.prompt is None:
            _converse(chat, talk, directory.title(found))
            return 0
        talk.turns.append({"role": "user", "content": args.prompt})
        answer, last = _ask(chat, talk, quiet=args.json)
        if args.json:
            show.emit(
                {
                    "run": directory.title(found),
                    "which": talk.which,
                    "prompt": args.prompt,
                    "answer": answer,
                    "reason": last.reason if last else None,
                    "tokens": last.tokens if last else None,
                    "seconds": last.seconds if last else None,
                }
            )
    finally:
        chat.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    from engine.errors import Exit, FtuiError

    if not 0 <= args.temperature <= HOTTEST:
        cause = f"the temperature cannot be {args.temperature:g}: it goes from 0 (always the likeliest token) to {HOTTEST:g}"
        raise FtuiError(Exit.USAGE, cause)
    if not 0 < args.top_p <= 1:
        raise FtuiError(Exit.USAGE, f"top-p cannot be {args.top_p:g}: it lies above 0 and up to 1")
    if args.max_tokens < 1:
        raise FtuiError(Exit.USAGE, f"an answer cannot have {args.max_tokens} tokens")


def _ask(chat: Chat, talk: Talk, quiet: bool = False) -> tuple[str, Reply | None]:
    """Stream one answer to stdout. Ctrl-C ends the answer, not the conversation. Returns the text and the last reply."""
    text, last = "", None
    try:
        for reply in chat.ask(
            talk.messages(),
            which=talk.which,
            temperature=talk.temperature,
            top_p=talk.top_p,
            max_tokens=talk.max_tokens,
            seed=talk.seed,
        ):
            last = reply
            text += reply.text
            if not quiet:
                sys.stdout.write(safe(reply.text, newlines=True))
                sys.stdout.flush()
    except KeyboardInterrupt:
        chat.stop()
        raise
    finally:
        if not quiet:
            print(flush=True)
    return text, last


def _converse(chat: Chat, talk: Talk, name: str) -> None:
    asked = sys.stdin.isatty()
    if asked:
        show.say(f"{name}, {talk.which}. /base /tuned /again /system TEXT /new, Ctrl-D leaves", "dim")
    while True:
        try:
            line = input("> " if asked else "").strip()
        except EOFError:
            return
        if not line or (line.startswith("/") and not _command(line, talk)):
            continue
        if not line.startswith("/"):
            talk.turns.append({"role": "user", "content": line})
        try:
            answer, _ = _ask(chat, talk)
        except KeyboardInterrupt:
            show.say("(stopped)", "dim")
            answer = "…"
        talk.turns.append({"role": "assistant", "content": answer})


def _command(line: str, talk: Talk) -> bool:
    """Carry out a slash command; True where the last question shall be asked now."""
    word, _, rest = line.partition(" ")
    match word:
        case "/base":
            talk.which = "base"
        case "/tuned":
            talk.which = "tuned"
        case "/system":
            talk.system = rest.strip()
        case "/new":
            talk.turns.clear()
        case "/again" if talk.turns:
            del talk.turns[-1:]
            return True
        case _:
            show.say(f"there is no {word} here", "yellow")
            return False
    show.say({"/base": "the base model answers", "/tuned": "the tuned model answers"}.get(word, "done"), "dim")
    return False
