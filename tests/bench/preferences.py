"""DPO, KTO, a reward model and GRPO on the starter model: held-out answers ranked before and after, or the mean reward.

    python -m tests.bench.preferences dpo --data pairs.json -e learning_rate=3e-4
    python -m tests.bench.preferences kto --data rated.json
    python -m tests.bench.preferences reward grpo --data pairs.json      GRPO learns from the reward model before it

Takes the `--rows` shortest rows of the file and trains one stage after the other through ftui's own worker, as planned but
for what `-e` sets; prints a line of the table in docs/stages.md for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine import draft
from engine.recipe import RL, Stage
from engine.runs import status
from engine.runs.directory import RunDir
from engine.runs.events import ENDED, Evaluated, Step
from engine.runs.journal import Reader


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=("dpo", "kto", "reward", *RL))
    parser.add_argument("--data", type=Path, required=True, help="a JSON file of pairs, or of rated answers")
    parser.add_argument("--rows", type=int, default=64, help="so many of the shortest rows")
    parser.add_argument("--held-out", type=float, default=0.375, help="share of them that is held out, where it can be")
    parser.add_argument("--reward", help="for RL, where no reward model is trained before it")
    parser.add_argument("-e", "--edit", action="append", default=[], metavar="[STAGE.]SETTING=VALUE")
    args = parser.parse_args()
    print("| stage | settings | steps | first | last | ranked right | margin | likelier | seconds |\n|" + "---|" * 9)
    reward = args.reward
    with tempfile.TemporaryDirectory(prefix="ftui-preferences-") as scratch:
        rows = sorted(json.loads(args.data.read_text()), key=lambda row: len(json.dumps(row)))[: args.rows]
        path = Path(scratch) / "rows.json"
        path.write_text(json.dumps(rows))
        for stage in args.stages:
            edits = {} if stage in RL else {"eval_fraction": args.held_out}
            for word in args.edit:
                name, _, value = word.partition("=")
                of, _, setting = name.rpartition(".")
                if of in ("", stage):
                    edits[setting] = value
            run, seconds = train(stage, path, edits, reward if stage in RL else None)
            print(line(stage, run, seconds), flush=True)
            if stage == "reward":
                reward = run.name
    return 0


def train(stage: Stage, path: Path, edits: dict[str, Any], reward: str | None) -> tuple[RunDir, float]:
    made = draft.make(draft.Choice(data=str(path), stage=stage, reward=reward, name=f"bench-{stage}", edits=edits))
    if reasons := draft.refusals(made):
        sys.exit(f"{stage}: {reasons[0]}")
    began = time.monotonic()
    run = draft.start(made)
    while status.read(run).state not in ENDED:
        time.sleep(0.5)
    now = status.read(run)
    if now.state != "ready":
        sys.exit(f"{stage}: {now.cause}")
    return run, time.monotonic() - began


def line(stage: Stage, run: RunDir, seconds: float) -> str:
    """First and last: held-out loss, or the mean reward of the first and last quarter of the steps."""
    events = Reader(run.journal_path).poll()
    steps = [event for event in events if isinstance(event, Step)]
    settings = run.recipe().settings
    words = f"{settings.learning_rate:g}, {settings.epochs:g} epochs, {settings.max_length} tokens"
    if stage in RL:
        rewards = [step.reward for step in steps if step.reward is not None]
        part = max(1, len(rewards) // 4)
        first, last = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
        return f"| {stage} | {words} | {len(steps)} | {first:.3f} | {last:.3f} | | | | {seconds:,.0f} |"
    found = [event for event in events if isinstance(event, Evaluated)]
    before, after = found[0], found[-1]

    def share(name: str) -> str:
        pair = getattr(before, name), getattr(after, name)
        return "" if None in pair else " → ".join(f"{value:.0%}" for value in pair)

    margin = f"{before.margin:+.2f} → {after.margin:+.2f}" if after.margin is not None else ""
    return (
        f"| {stage} | {words} | {len(steps)} | {before.loss:.3f} | {after.loss:.3f} | {share('accuracy')} | {margin} "
        f"| {share('likelier')} | {seconds:,.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
