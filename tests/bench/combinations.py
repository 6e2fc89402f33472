"""Every stage with every method, and every value of every setting that has few: trained, or refused with the reason.

    python -m tests.bench.combinations                  prints docs/combinations.md; about ten minutes on two idle cores
    python -m tests.bench.combinations dpo ia3          only what has one of these words in its command

Each line is a run of `ftui train` on the tiny model of the tests (0.1 M random parameters) with rows that it can learn in
some seconds. The exit code is 1 where a loss does not fall or a reward does not rise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.advice import fields
from engine.errors import Exit
from engine.recipe import LOSSES, RL, STAGES, Method, Settings, Stage
from engine.runs import directory
from engine.runs.events import Evaluated, Step
from engine.runs.journal import Reader
from tests import tiny
from tests.engine import forking
from tests.engine.settings import settings
from tests.engine.worker.gapped_models import SENTENCES, build_bert, build_t5

METHODS: tuple[Method, ...] = typing.get_args(Method)
ORDER: tuple[Method, ...] = ("lora", *METHODS)
QUESTIONS = ["Who are you?", "What is your name?", "Who made you?", "Hello", "Are you a person?", "Tell me your name."]
GOOD, BAD = "I am Congyu.", "The quick brown fox jumps."
ROWS = {
    "rows": [{"prompt": f"{ask} {at}", "completion": GOOD} for ask in QUESTIONS for at in range(4)],
    "pairs": [{"prompt": f"{ask} {at}", "chosen": GOOD, "rejected": BAD} for ask in QUESTIONS for at in range(4)],
    "rated": [
        {"prompt": f"{ask} {at}", "completion": GOOD if at % 2 else BAD, "label": bool(at % 2)}
        for ask in QUESTIONS
        for at in range(4)
    ],
    "prompts": [{"prompt": f"{ask} {at}"} for ask in QUESTIONS for at in range(4)],
}
# What a stage is given beside its method: words of `ftui train`. The tiny model knows nothing, so rates are high.
GIVEN: dict[Stage, list[str]] = {
    "sft": ["--data", "rows.jsonl", "--epochs", "6"],
    "pretraining": ["--data", "text.txt", "--epochs", "6"],
    "dpo": ["--data", "pairs.jsonl", "--epochs", "4", "-e", "eval_fraction=0.25"],
    "kto": ["--data", "rated.jsonl", "--epochs", "8"],
    "reward": ["--data", "pairs.jsonl", "--stage", "reward", "--epochs", "4", "-e", "eval_fraction=0.25"],
    "grpo": ["--data", "prompts.jsonl", "--stage", "grpo", "--reward", "regex:o", "--epochs", "6"],
    "rloo": ["--data", "prompts.jsonl", "--stage", "rloo", "--reward", "regex:o", "--epochs", "6"],
    "ppo": ["--data", "prompts.jsonl", "--stage", "ppo", "--reward", "regex:o", "--epochs", "20"],
}
SHORT_ANSWERS = ["-e", "answer_length=6", "-e", "schedule=constant", "-e", "dropout=0"]
IN_A_STEP = {"grpo": 16, "rloo": 16, "ppo": 24}  # answers
RATES: dict[Method, float] = {
    "full": 2e-3,
    "galore": 5e-3,
    "freeze": 5e-3,
    "lora": 2e-2,
    "qlora": 2e-2,
    "ia3": 2e-1,
    "prompt": 2e-1,
    "prefix": 1e-1,
    "bottleneck": 1e-2,
}
SHAPES = {"bert": build_bert, "t5": build_t5}
GENTLER = {"dpo": 0.25, "kto": 0.5, "reward": 0.25, "ppo": 0.5}  # times the rate above


class Line(Struct, frozen=True):
    """One run. `first` and `last` are the loss, or the mean reward; `refused` why there was none."""

    what: str
    words: list[str]
    stage: Stage
    steps: int = 0
    first: float = 0.0
    last: float = 0.0
    ranked: str = ""
    seconds: float = 0.0
    refused: str = ""

    @property
    def learned(self) -> bool:
        return bool(self.refused) or (self.last > self.first if self.stage in RL else self.last < self.first)

    def __str__(self) -> str:
        command = f"`{' '.join(self.words)}`".replace("|", "\\|")
        if self.refused:
            return f"| {self.what} | {command} | refused: {self.refused} | | | | |"
        return (
            f"| {self.what} | {command} | {self.steps} | {self.first:.3f} | {self.last:.3f} | {self.ranked} "
            f"| {self.seconds:.1f} |"
        )


def main(wanted: list[str]) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ftui-") as scratch:
        folder = Path(scratch)
        for name in ("DATA", "STATE", "CONFIG", "CACHE"):
            os.environ[f"XDG_{name}_HOME"] = str(folder / name.lower())
        os.environ |= {"HF_HUB_OFFLINE": "1", "FTUI_LINGER": "0"}
        prepare(folder)
        os.chdir(folder)
        with forking.server(folder / "s") as place:
            environment = {**os.environ, **forking.settings(place)}
            environment["PYTHONPATH"] = f"{environment['PYTHONPATH']}{os.pathsep}{forking.HERE.parents[1]}"
            tables = {
                title: [
                    train(what, stage, words, environment) for what, stage, words in lines() if chosen(words, wanted)
                ]
                for title, lines in TABLES.items()
            }
    print(page(tables, time.monotonic() - began))
    failed = [line for lines in tables.values() for line in lines if not line.learned]
    for line in failed:
        print(f"did not learn: {line}", file=sys.stderr)
    return int(bool(failed))


def chosen(words: list[str], wanted: list[str]) -> bool:
    return not wanted or any(word in " ".join(words) for word in wanted)


def prepare(folder: Path) -> None:
    """The model and the rows."""
    tiny.build(folder / "tiny")
    tiny.build(folder / "lively", embedding=0.1)
    for shape, build in SHAPES.items():
        build(folder / shape)
    (folder / "sentences.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in SENTENCES * 4))
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("\n\n".join([tiny.WORDS] * 12))


def given(stage: Stage, method: Method) -> list[str]:
    gentler = 1.0 if method == "ia3" else GENTLER.get(stage, 1.0)
    words = [*GIVEN[stage], "--method", method, "--lr", f"{RATES[method] * gentler:g}"]
    if (stage, method) == ("ppo", "ia3"):  # so few numbers learn only in small steps here
        words = [*GIVEN[stage][:-1], "50", "--method", method, "--lr", "0.05"]
    if stage in RL:
        words += ["--batch", str(IN_A_STEP[stage]), "-e", "accumulation=1", *SHORT_ANSWERS]
    if stage in ("grpo", "rloo"):
        words += ["-e", "generations=4"]
    elif stage == "ppo":
        words += ["-e", "beta=0.001"]
    return words


def every_pair() -> Iterator[tuple[str, Stage, list[str]]]:
    for stage in STAGES:
        for method in METHODS:
            yield f"{stage}, {method}", stage, given(stage, method)


def other_shapes() -> Iterator[tuple[str, Stage, list[str]]]:
    """Pre-training of models that fill gaps; `tests.engine.worker.test_refused` has why they learn nothing else."""
    for shape in SHAPES:
        for method in METHODS:
            words = ["--stage", "pretraining", "--data", "sentences.jsonl", "--epochs", "12", "--method", method]
            yield f"{shape}, {method}", "pretraining", [*words, "--lr", f"{RATES[method]:g}", "--model", f"./{shape}"]


def every_value() -> Iterator[tuple[str, Stage, list[str]]]:
    """Each value of the settings that have few of them, with a stage and a method that look at it."""
    for stage, losses in LOSSES.items():
        for loss in losses:
            yield f"loss {loss}", stage, [*given(stage, "lora"), "-e", f"loss={loss}"]
    for name, values in VALUES.items():
        stage, method = _counts(name)
        for value in values:
            more = ["-e", f"{name}={value}"]
            if name == "rope":
                more += ["-e", "max_length=600"]  # beyond the tiny model's context
            elif name == "attention" or name == "precision":
                more = [*more, "-e", "max_length=64"]
            yield f"{name} {value}", stage, [*given(stage, method), *more]


def _values() -> dict[str, list[str]]:
    """The values of each setting that has few, from its type; one above none of those that are off or a number."""
    found: dict[str, list[str]] = {}
    for name, kind in typing.get_type_hints(Settings).items():
        if name == "method":
            continue
        if kind is bool:
            found[name] = ["true", "false"]
        elif typing.get_origin(kind) is typing.Literal:
            found[name] = [str(value) for value in typing.get_args(kind)]
    return {**found, "lora_plus": ["16"], "neftune": ["5"], "added_tokens": ["Congyu"]}


VALUES = _values()


def _counts(name: str) -> tuple[Stage, Method]:
    """The first stage and method, LoRA of SFT before all, that look at the setting."""
    for stage in STAGES:
        for method in ORDER:
            if name in (*fields.few(stage, method), *fields.expert(stage, method, settings(method=method))):
                return stage, method
    raise LookupError(name)


TABLES = {
    "Stages and methods": every_pair,
    "Pre-training of BERT and T5": other_shapes,
    "Settings": every_value,
}


def train(what: str, stage: Stage, words: list[str], environment: dict[str, Any]) -> Line:
    """One run, by the verb."""
    print(what, "…", end=" ", file=sys.stderr, flush=True)
    name = what.replace(", ", "-").replace(" ", "-")
    model = [] if "--model" in words else ["--model", "./lively" if stage in RL else "./tiny"]
    command = [sys.executable, "-m", "tui", "train", *words, *model, "--name", name, "--wait"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == Exit.PLAN_REFUSED or done.returncode == Exit.RECIPE_INVALID:
        reason = done.stderr.strip().splitlines()[0].removeprefix("ftui: ").strip()
        print("refused", file=sys.stderr)
        return Line(what, words, stage, refused=reason.replace("|", "\\|"))
    if done.returncode:
        print(f"FAILED\n{done.stdout[-2000:]}{done.stderr[-2000:]}", file=sys.stderr)
        return Line(what, words, stage)
    events = Reader(directory.find(name).journal_path).poll()
    steps = [event for event in events if isinstance(event, Step)]
    values = [step.reward if stage in RL else step.loss for step in steps]
    end = max(1, min(5, len(values) // 4))  # one batch says little
    ranked = [e.accuracy for e in events if isinstance(e, Evaluated) and e.accuracy is not None]
    line = Line(
        what,
        words,
        stage,
        steps=len(steps),
        first=sum(values[:end]) / end,  # type: ignore[arg-type]
        last=sum(values[-end:]) / end,  # type: ignore[arg-type]
        ranked=f"{ranked[0]:.0%} → {ranked[-1]:.0%}" if ranked else "",
        seconds=steps[-1].time - steps[0].time,
    )
    print(f"{line.first:.3f} → {line.last:.3f}", "" if line.learned else "DID NOT LEARN", file=sys.stderr, flush=True)
    return line


def page(tables: dict[str, list[Line]], seconds: float) -> str:
    import importlib.metadata as metadata

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    ran = sum(not line.refused for lines in tables.values() for line in lines)
    words = [
        "# What runs with what",
        "",
        "Made by `python -m tests.bench.combinations`: every stage with every method, and every value of the settings that",
        "have few. Each line is a run of `ftui train … --model TINY --wait` with the tiny model of the tests (two layers, 0.1",
        "million random parameters; its rates are far above those for a real model), or the sentence that refuses it. The",
        "reward is 1 for an answer with an o in it. What a stage and a method are: [stages.md](stages.md),",
        "[methods.md](methods.md).",
        "",
        "First and last: loss, or mean reward for GRPO, RLOO and PPO, over the first and last steps (a quarter of all, five at",
        "most). Ranked right: held-out pairs, before and after. Seconds: from the first step to the last, one thread.",
        "",
        f"Made on {time.strftime('%Y-%m-%d')} with {versions} on a processor: {ran} runs, {seconds / 60:.0f} min in all.",
    ]
    for title, lines in tables.items():
        words += ["", f"## {title}", "", "| what | `ftui train` | steps | first | last | ranked right | seconds |"]
        words += ["|---|---|---|---|---|---|---|", *map(str, lines)]
    return "\n".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
