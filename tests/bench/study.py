"""Is the advice right? The plan as given against a grid around it, on the starter model, by the loss on held-out rows.

    python tests/bench/study.py identity
    python tests/bench/study.py alpaca --data alpaca.json --rows 96
    python tests/bench/study.py summaries --data dialogsum.jsonl --rows 64

Trains real runs through ftui's own worker, one after the other: the advised settings, then learning rate, rank and
epochs each halved and doubled (`--grid star`, 7 runs) or every combination (`--grid full`, 27 runs). What is trained
from the first `--rows` rows is judged on the rows after them (`--held-out`), by the mean loss of their answers' tokens.
Prints how far the advised run is from the best. A result is written to `--out` as it comes; a second call goes on from
there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine import draft
from engine.data import dataset
from engine.data.convert import Example
from engine.recipe import Checks, Data
from engine.runs import status
from engine.runs.events import ENDED, Step
from engine.runs.journal import Reader

FACTORS = (0.5, 1.0, 2.0)
FIELDS = ("learning_rate", "rank", "epochs")
# What a workload is, beside its rows: the preset that a person would pick, and templates where columns need them.
WORKLOADS: dict[str, dict[str, Any]] = {
    "identity": {"preset": "identity"},
    "alpaca": {},
    "summaries": {"prompt": "Summarize the following conversation.\n\n{dialogue}", "completion": "{summary}"},
}


class Point(msgspec.Struct):
    """One run of the grid. `loss` is the mean over the held-out answers' tokens, `train` the mean of the last epoch."""

    workload: str
    settings: dict[str, float]
    steps: int
    loss: float
    train: float
    seconds: float
    advised: bool


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="ftui-study-") as scratch:
        train, held_out = halves(args, Path(scratch))
        choice = draft.Choice(
            preset=WORKLOADS[args.workload].get("preset"), data=str(train), name=f"study-{args.workload}"
        )
        first = draft.make(choice)
        advised = {name: getattr(first.plan.settings, name) for name in FIELDS}
        for edit in args.advised:  # a rule under trial, in place of the one that stands
            name, _, value = edit.partition("=")
            advised[name] = type(advised[name])(value)
        print(f"{args.workload}: {len(first.dataset.examples)} rows to learn from, {len(held_out)} held out")
        print("advised: " + "  ".join(f"{name} {value:g}" for name, value in advised.items()))
        judge = Judge(first.model_folder, held_out)
        print(f"before training: held-out loss {judge.loss(None):.4f}", flush=True)
        done = {key(p.settings): p for p in read(args.out) if p.workload == args.workload}
        for settings in grid(advised, args.grid, args.fields):
            if key(settings) not in done:
                point = run(args.workload, choice, settings, settings == advised, judge)
                done[key(settings)] = point
                with args.out.open("ab") as file:
                    file.write(msgspec.json.encode(point) + b"\n")
            show(done[key(settings)])
        verdict([done[key(s)] for s in grid(advised, args.grid, args.fields)], advised)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--data", help="the file of rows (identity brings its own)")
    parser.add_argument("--rows", type=int, default=64, help="rows to learn from")
    parser.add_argument("--held-out", type=int, default=16, help="rows to judge by, taken after those")
    parser.add_argument("--grid", choices=("star", "full"), default="star")
    parser.add_argument("--fields", nargs="+", choices=FIELDS, default=FIELDS, help="what the grid varies")
    parser.add_argument("--advised", action="append", default=[], metavar="FIELD=VALUE", help="a rule under trial")
    parser.add_argument("--out", type=Path, default=Path("study.jsonl"), help="where results are kept")
    return parser.parse_args()


def halves(args: argparse.Namespace, scratch: Path) -> tuple[Path, list[Example]]:
    """The rows to learn from, as a file, and those to judge by. A preset's rows lie in topics, so they are dealt out."""
    kind = WORKLOADS[args.workload]
    source = args.data or f"preset:{kind['preset']}"
    values = {"name": "Congyu", "author": "yuriko"} if args.workload == "identity" else {}
    rows = dataset.load(
        Data(source=source, values=values, prompt=kind.get("prompt"), completion=kind.get("completion"))
    ).examples
    wanted = args.rows + args.held_out
    if args.workload == "identity":
        every = max(2, len(rows) // args.held_out)
        held_out = [row for at, row in enumerate(rows) if at % every == every - 1]
        learn = [row for at, row in enumerate(rows) if at % every != every - 1]
    else:
        if len(rows) < wanted:
            sys.exit(f"{source} has {len(rows)} rows, {wanted} are wanted")
        learn, held_out = list(rows[: args.rows]), list(rows[args.rows : wanted])
    path = scratch / f"{args.workload}.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode({"messages": row.messages}) + b"\n" for row in learn))
    return path, held_out


def grid(advised: dict[str, Any], shape: str, fields: list[str]) -> Iterator[dict[str, Any]]:
    """The advised settings first, then those around them."""
    yield advised
    if shape == "full":
        points = itertools.product(FACTORS, repeat=len(fields))
    else:
        points = (
            (*(1.0,) * at, factor, *(1.0,) * (len(fields) - at - 1)) for at in range(len(fields)) for factor in FACTORS
        )
    for factors in points:
        if set(factors) != {1.0}:
            moved = {name: advised[name] * factor for name, factor in zip(fields, factors, strict=True)}
            yield {**advised, **moved, "rank": max(1, round(moved.get("rank", advised["rank"])))}


def run(workload: str, choice: draft.Choice, settings: dict[str, Any], advised: bool, judge: Judge) -> Point:
    """Train one point in ftui's worker and judge it. alpha follows the rank, as the rule has it; the rest is re-planned."""
    edits = {
        **settings,
        "alpha": settings["rank"],
        "sample_every": 100_000,
        "eval_fraction": 0.0,
        "save_every": 100_000,
    }
    made = draft.make(msgspec.structs.replace(choice, edits=edits))
    made.recipe.checks, made.recipe.probe = Checks(), ""
    started = draft.start(made)
    while (now := status.read(started)).state not in ENDED:
        time.sleep(0.5)
    if now.state != "ready":
        sys.exit(f"the run {started.path.name} ended as {now.state}: see its worker.log")
    steps = [event for event in Reader(started.journal_path).poll() if isinstance(event, Step)]
    last = [step.loss for step in steps if step.epoch > steps[-1].epoch - 1]
    return Point(
        workload,
        settings,
        len(steps),
        judge.loss(started.adapter),
        sum(last) / len(last),
        steps[-1].time - steps[0].time,
        advised,
    )


class Judge:
    """Mean loss over the answers' tokens of the held-out rows, each row on its own, so that no padding plays a part."""

    def __init__(self, folder: Path, rows: list[Example]) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from engine.data import tokenizer

        self._torch = torch
        made = tokenizer.load(folder)
        self._rows = [made.tokenize(row) for row in rows]
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def loss(self, adapter: Path | None) -> float:
        """With the adapter in this folder, or of the base model."""
        from peft import PeftModel

        torch = self._torch
        model = PeftModel.from_pretrained(self._model, adapter).eval() if adapter else self._model
        total, count = 0.0, 0
        with torch.no_grad():
            for row in self._rows:
                labels = torch.tensor(row.labels[1:])
                logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
                total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
                count += int((labels != -100).sum())
        if adapter:
            model.unload()
        return total / count


def key(settings: dict[str, Any]) -> tuple[float, ...]:
    return tuple(round(float(settings[name]), 10) for name in FIELDS)


def read(path: Path) -> list[Point]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Point) for line in lines]


def show(point: Point) -> None:
    words = "  ".join(f"{name} {point.settings[name]:<7g}" for name in FIELDS)
    mark = "  advised" if point.advised else ""
    print(
        f"  {words} {point.steps:4d} steps  train {point.train:.3f}  held-out {point.loss:.4f}"
        f"  {point.seconds:5.0f} s{mark}",
        flush=True,
    )


def verdict(points: list[Point], advised: dict[str, Any]) -> None:
    mine = next(point for point in points if key(point.settings) == key(advised))
    best = min(points, key=lambda point: point.loss)
    words = ", ".join(f"{name} {best.settings[name]:g}" for name in FIELDS)
    print(f"advised {mine.loss:.4f}, best of {len(points)} {best.loss:.4f} ({words}): {mine.loss / best.loss - 1:+.1%}")


if __name__ == "__main__":
    sys.exit(main())
