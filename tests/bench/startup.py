"""How long things take to start, and where the time goes, against the goals: `python -m tests.bench.startup [PART …] [--times N]`.

    commands  a bare interpreter, `ftui --help` and others, in turns
    screen    from starting `ftui` to the list of runs, on a pseudo-terminal
    train     from Enter on Review to the first optimizer step of the identity preset on the starter model, with a worker
              started ahead and without, as the journal has it
    chat      from a question to its first token: right after training, warm, and with no worker running

Each figure is the median. On a machine that does other things seconds say little; the load is printed with them, and what
each takes of the others' time still shows where it goes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from engine import draft
from engine.recipe import Checks
from engine.runs import chat, control, status
from engine.runs.directory import RunDir
from engine.runs.events import Start, State, Step
from engine.runs.journal import Reader
from tests.terminal.pty import Pty

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "ftui --help": ["-m", "tui", "--help"],
    "ftui train --help": ["-m", "tui", "train", "--help"],
    "ftui where": ["-m", "tui", "where"],
    "ftui runs": ["-m", "tui", "runs"],
    "import textual.app": ["-c", "import textual.app"],
    "import tui.app": ["-c", "import tui.app"],
}
HELP, PAINT, STEP, TOKEN = 8.0, 0.7, 2.0, 0.3  # goals: times a bare interpreter; seconds
STEPS = 0.04  # epochs: one optimizer step
Phases = dict[str, float]  # name -> seconds, in their order


def say(name: str, seconds: float, words: str = "", met: bool | None = None) -> None:
    verdict = "" if met is None else "met" if met else "NOT met"
    print(f"  {name:<44}{seconds:8.2f} s  {words}{verdict}", flush=True)


def middle(found: Iterable[Phases]) -> Phases:
    rounds = list(found)
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def commands(times: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(3 * times):  # in turns, so that a busy moment hits all alike
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - began)
    bare = statistics.median(seconds["bare interpreter"])
    for name, taken in seconds.items():
        ratio = statistics.median(taken) / bare
        help = name == "ftui --help"
        goal = f"goal {HELP:.0f} x: " if help else ""
        say(name, statistics.median(taken), f"{ratio:5.1f} x  {goal}", ratio <= HELP if help else None)


def screen(times: int) -> None:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        with Pty(["-m", "tui"], size=(120, 40)) as face:
            face.until("New run from a preset")
            taken.append(time.perf_counter() - began)
            face.type("q")
            face.wait()
    seconds = statistics.median(taken)
    say("first paint of the list of runs", seconds, f"goal {PAINT} s: ", seconds <= PAINT)


def train(times: int) -> None:
    for name, ahead in (("warm", True), ("cold", False)):
        found = middle(_trained(ahead)[1] for _ in range(times))
        print(f"  Enter on Review to the first optimizer step, {name}:")
        for phase, seconds in found.items():
            say(f"  {phase}", seconds)
        begins = sum(found.values()) - found["first step"]
        say("  it begins after", begins, f"goal {STEP} s: " if ahead else "", begins <= STEP if ahead else None)
        say("  it is done after", sum(found.values()))


def _trained(ahead: bool) -> tuple[RunDir, Phases]:
    """A short run of the identity preset that has ended, without the questions at its end; and its phases."""
    made = draft.make(draft.Choice(preset="identity", model="starter", edits={"epochs": STEPS}))
    made = msgspec.structs.replace(made, recipe=msgspec.structs.replace(made.recipe, checks=Checks()))
    worker = control.prewarm() if ahead else None
    while worker is not None and not worker.ready:
        time.sleep(0.05)
    began = time.time()
    run = draft.start(made, warm=worker)
    while not status.read(run).ended:
        time.sleep(0.1)
    events = [event for chunk in Reader(run.journal_path).chunks() for event in chunk]

    def at(wanted: Callable[[object], bool]) -> float:
        return next(event.time for event in events if wanted(event))

    def entered(state: str) -> float:
        return at(lambda event: isinstance(event, State) and event.state == state)

    moments = {
        "the worker has the run" if ahead else "supervisor, worker, imports": entered("tokenizing"),
        "rows and tokens": entered("loading"),
        "weights, adapter, trainer, its trials": at(lambda event: isinstance(event, Start)),
        "first step": at(lambda event: isinstance(event, Step)),
    }
    return run, {
        name: moment - before
        for (name, moment), before in zip(moments.items(), [began, *moments.values()], strict=False)
    }


def talk(times: int) -> None:
    rounds = []
    for _ in range(times):
        run, _ = _trained(True)
        found: Phases = {}
        with chat.Chat(run) as talk:
            found["right after training"] = _first(talk, "Who are you?")
            time.sleep(3.0)  # somebody reads
            found["warm"] = _first(talk, "What is the capital of France?")
        control.release(run)
        began = time.perf_counter()
        control.serve(run)
        with chat.Chat(run) as talk:
            _first(talk, "Who are you?")
            found["no worker running"] = time.perf_counter() - began
        control.release(run)
        rounds.append(found)
    print("  question to first token:")
    for name, seconds in middle(rounds).items():
        goal = name != "no worker running"
        say(f"  {name}", seconds, f"goal {TOKEN} s: " if goal else "", seconds <= TOKEN if goal else None)


def _first(talk: chat.Chat, question: str) -> float:
    """Seconds to the first piece of the answer; the rest is heard too."""
    began, first = time.perf_counter(), 0.0
    for reply in talk.ask([{"role": "user", "content": question}], temperature=0, max_tokens=12):
        first = first or (time.perf_counter() - began if reply.text else 0.0)
    return first


@contextlib.contextmanager
def _own_state() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="ftui-startup-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        yield


PARTS = {"commands": commands, "screen": screen, "train": train, "chat": talk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there is {', '.join(PARTS)}")
    print(f"{os.cpu_count()} cores, medians of {asked.times} (commands: {3 * asked.times})")
    for name in asked.parts or PARTS:
        with _own_state():
            print(f"{name}, load {os.getloadavg()[0]:.1f}", flush=True)
            PARTS[name](asked.times)


if __name__ == "__main__":
    main()
